"""A user's own transforms behind the recipe: torchvision.transforms.v2, or any callable (image, target)."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from yolox_lt.data.augment.transforms import Sample, larger_than
from yolox_lt.errors import UserError

OwnTransforms = Callable[[Any, dict[str, Any]], tuple[Any, dict[str, Any]]]
"""(image, target) -> (image, target). image: tv_tensors.Image uint8 [3, H, W] in RGB. target: "boxes",
tv_tensors.BoundingBoxes [G, 4] in XYXY, and "labels", int64 [G].
"""

MIN_SIDE = 1.0
"""Boxes at most this many pixels wide or high are dropped at the end, as in the recipes."""


def apply_own(transforms: OwnTransforms, sample: Sample, rng: np.random.Generator) -> Sample:
    """The sample after a user's transforms: boxes clipped to the image, those without area dropped with their labels.

    Args:
        rng: of the sample. It seeds the random numbers of torch, numpy and Python, which are restored afterwards: the
            same sample comes out whichever process makes it, also after a resume.

    Raises:
        UserError: the transforms failed, or gave something else than they were given.
    """
    from torchvision import tv_tensors  # slow to load

    height, width = sample.image.shape[:2]
    image = tv_tensors.Image(np.ascontiguousarray(sample.image[..., ::-1]).transpose(2, 0, 1))  # HWC BGR -> CHW RGB
    boxes = tv_tensors.BoundingBoxes(
        torch.from_numpy(sample.boxes.copy()).reshape(-1, 4), format="XYXY", canvas_size=(height, width)
    )
    labels = torch.from_numpy(np.asarray(sample.labels, np.int64).copy())
    with seeded(int(rng.integers(2**32))):
        try:
            image, target = transforms(image, {"boxes": boxes, "labels": labels})
            return as_sample(image, target["boxes"], target["labels"])
        except UserError:
            raise
        except Exception as error:
            raise UserError(
                f"the transforms of get_transforms failed: {type(error).__name__}: {error}; correct them in the "
                "experiment file"
            ) from error


def as_sample(image: torch.Tensor, boxes: torch.Tensor, labels: torch.Tensor) -> Sample:
    """uint8 [3, H, W] RGB, boxes [G, 4] and labels [G] -> a Sample with the boxes inside the image."""
    from torchvision import tv_tensors
    from torchvision.transforms.v2 import functional

    if image.dtype != torch.uint8 or image.ndim != 3 or image.shape[0] != 3:
        raise UserError(
            f"the transforms of get_transforms gave an image {tuple(image.shape)} of {image.dtype}; give uint8 "
            "[3, H, W], normalised it is later (get_preprocessor)"
        )
    if len(boxes) != len(labels):
        raise UserError(
            f"the transforms of get_transforms gave {len(boxes)} boxes and {len(labels)} labels; drop both together, "
            "as v2.SanitizeBoundingBoxes does"
        )
    if isinstance(boxes, tv_tensors.BoundingBoxes) and boxes.format != tv_tensors.BoundingBoxFormat.XYXY:
        boxes = functional.convert_bounding_box_format(boxes, new_format=tv_tensors.BoundingBoxFormat.XYXY)
    pixels = np.ascontiguousarray(image.permute(1, 2, 0).numpy()[..., ::-1])  # CHW RGB -> HWC BGR
    height, width = pixels.shape[:2]
    corners = np.asarray(boxes, np.float32).reshape(-1, 4)  # [G, 4], also without a box
    corners = corners.clip(0, [width, height, width, height]).astype(np.float32)
    sample = Sample(pixels, corners, np.asarray(labels, np.int64))
    return sample.select(larger_than(corners, MIN_SIDE))


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """The random numbers of torch (on the CPU), numpy and Python begin at `seed` inside; afterwards as before."""
    numbers, python = np.random.get_state(), random.getstate()
    try:
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            np.random.seed(seed)
            random.seed(seed)
            yield
    finally:
        np.random.set_state(numbers)
        random.setstate(python)
