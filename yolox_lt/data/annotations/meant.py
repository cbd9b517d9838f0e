"""Boxes that nobody can have meant: fractions of the image, corners in place of sizes, less than a pixel."""

from __future__ import annotations

import numpy as np

from yolox_lt.data.columns import Floats, Ints
from yolox_lt.errors import UserError

IN_BULK = 0.1
"""Share of the boxes below a pixel, or beyond their image, from which it is the file that is odd, not the boxes."""

CANNOT = "cannot be meant"
"""In every sentence of `unmeant`."""


def refuse_fractions(boxes: Floats, source: str) -> None:
    """Refuse boxes [N, 4] that are all fractions of their image.

    Raises:
        UserError: every number lies in 0..1, and not all of them are whole.
    """
    finite = boxes[np.isfinite(boxes).all(axis=1)]
    if len(finite) and (finite >= 0).all() and (finite <= 1).all() and (finite != np.round(finite)).any():
        raise UserError(
            f"{source}: all {len(finite)} boxes lie between 0 and 1, so they are fractions of the image; multiply x "
            "and width by the image's width, y and height by its height"
        )


def unmeant(boxes: Floats, sizes: Ints, source: str) -> list[str]:
    """What is odd about many of the boxes, a sentence each.

    Args:
        boxes: x y width height [N, 4]. sizes: (height, width) [N, 2] of the image of each. source: of the boxes, named.
    """
    real = np.isfinite(boxes).all(axis=1) & (boxes[:, 2:] > 0).all(axis=1)
    boxes, limit = boxes[real], sizes[real][:, ::-1]
    if not len(boxes):
        return []
    found = []
    thin = int((boxes[:, 2:] < 1).any(axis=1).sum())
    if thin > IN_BULK * len(boxes):
        found.append(
            f"{source}: {thin} of {len(boxes)} boxes are less than a pixel wide or high, which {CANNOT}; look whether "
            "their numbers are pixels of these images"
        )
    with np.errstate(over="ignore"):
        beyond = ((boxes[:, :2] + boxes[:, 2:]) > limit + 0.5).any(axis=1)
    corners = (boxes[:, 2:] > boxes[:, :2]).all() and (boxes[:, 2:] <= limit + 0.5).all()
    if corners and int(beyond.sum()) > max(IN_BULK * len(boxes), 1):
        found.append(
            f"{source}: {int(beyond.sum())} of {len(boxes)} boxes leave their image, which {CANNOT}; all would fit as "
            "corners x1 y1 x2 y2: write x y width height"
        )
    return found
