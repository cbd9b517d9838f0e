"""Transforms of several images: mosaic of four, mixup of two. Pure functions, no random numbers (see recipe.py).

Mosaic: four images, each fitted into the input size, meet at one point of a canvas twice that size.
Mixup: a second image is laid over the first, half and half, and brings its objects.
Both as in official YOLOX and in the released models, which differ in fill, flip and in the boxes they keep.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from yolox_lt.data.augment import Sample, clip_boxes, fit, flip, letterbox_sample, surviving

MIXUP_MIN_SIDE = 5.0
"""Shortest side in pixels of a partner's box that survives mixup in the released models (exclusive)."""


def tile_placement(
    quadrant: int, centre: tuple[int, int], tile_size: tuple[int, int], input_size: tuple[int, int]
) -> tuple[tuple[int, int, int, int], tuple[int, int, int, int]]:
    """Where a tile goes on the mosaic canvas, which is twice `input_size`.

    quadrant: 0 top-left, 1 top-right, 2 bottom-left, 3 bottom-right of the centre; centre: (x, y) on the canvas;
    tile_size, input_size: (height, width). The corner of the tile that faces the centre touches it.
    Returns the visible rectangle x1 y1 x2 y2 on the canvas, and the same rectangle in pixels of the tile.
    """
    height, width = tile_size
    left = centre[0] if quadrant % 2 else centre[0] - width
    top = centre[1] if quadrant >= 2 else centre[1] - height
    x1, y1 = max(left, 0), max(top, 0)
    x2, y2 = min(left + width, 2 * input_size[1]), min(top + height, 2 * input_size[0])
    return (x1, y1, x2, y2), (x1 - left, y1 - top, x2 - left, y2 - top)


def mosaic(samples: Sequence[Sample], centre: tuple[int, int], input_size: tuple[int, int], fill: int) -> Sample:
    """Four samples on one canvas of twice `input_size` (height, width), meeting at `centre` (x, y).

    Order: top-left, top-right, bottom-left, bottom-right. Every image is fitted into the input size; its boxes are
    scaled by the size it really got, shifted and clipped to the canvas, none is dropped.
    """
    canvas_size = (2 * input_size[0], 2 * input_size[1])
    canvas = np.full((*canvas_size, 3), fill, dtype=np.uint8)
    boxes = []
    for quadrant, sample in enumerate(samples):
        tile, _ = fit(sample.image, input_size)
        target, source = tile_placement(quadrant, centre, tile.shape[:2], input_size)
        canvas[target[1] : target[3], target[0] : target[2]] = tile[source[1] : source[3], source[0] : source[2]]
        ratio = np.array(tile.shape[1::-1]) / sample.image.shape[1::-1]  # x, y
        shift = np.array([target[0] - source[0], target[1] - source[1]])
        boxes.append(sample.boxes * np.tile(ratio, 2) + np.tile(shift, 2))
    return Sample(
        canvas,
        clip_boxes(np.concatenate(boxes), canvas_size).astype(np.float32),
        np.concatenate([sample.labels for sample in samples]),
    )


def mixup_slack(input_size: tuple[int, int], scale: float) -> tuple[int, int]:
    """How many pixels (y, x) the partner's canvas, resized by `scale`, is larger than the input; 0 if it is not."""
    return max(int(input_size[0] * scale) - input_size[0], 0), max(int(input_size[1] * scale) - input_size[1], 0)


def mixup(
    base: Sample,
    partner: Sample,
    scale: float,
    flipped: bool,
    offset: tuple[int, int],
    fill: int,
    filter_boxes: bool,
) -> Sample:
    """Lay `partner` over `base`: the mean of both images, cut to whole grey levels, and the objects of both.

    The partner is letterboxed to the size of `base` (`fill` around it); that canvas is resized by `scale`, mirrored if
    `flipped`, cut at `offset` (y, x pixels) where it is larger than `base` and filled up with zeros where smaller.
    filter_boxes: True as in the released models, a partner's box stays by the rule of `surviving` with sides above
    5 px; False as in official YOLOX, all stay, clipped (the final rule of the recipe drops those without extent).
    Without a partner's box that stays, `base` itself comes back.
    """
    height, width = size = base.image.shape[:2]
    boxed = letterbox_sample(partner, size, fill)
    canvas_size = max(1, int(width * scale)), max(1, int(height * scale))
    canvas = cv2.resize(boxed.image, canvas_size, interpolation=cv2.INTER_LINEAR)
    placed = Sample(canvas, clip_boxes(boxed.boxes * np.float32(scale), canvas.shape[:2]), boxed.labels)
    if flipped:
        placed = flip(placed)

    y, x = offset
    before = placed.boxes - np.array([x, y, x, y], dtype=np.float32)
    after = clip_boxes(before, size)
    keep = surviving(before, after, 1.0, MIXUP_MIN_SIDE) if filter_boxes else np.ones(len(after), dtype=bool)
    if not keep.any():
        return base

    window = placed.image[y : y + height, x : x + width]
    overlay = np.zeros_like(base.image)
    overlay[: window.shape[0], : window.shape[1]] = window
    # Half grey levels must be cut, not rounded to even: a quarter below them, rounding always goes down.
    image = cv2.addWeighted(base.image, 0.5, overlay, 0.5, -0.25)
    return Sample(image, np.concatenate([base.boxes, after[keep]]), np.concatenate([base.labels, placed.labels[keep]]))
