"""Flip and resize by the shorter side: the recipe of the ResNet models, without letterbox, mosaic or colour.

As in the released ResNet models: flip, then the shorter side is resized to a length drawn from a list, the longer one
to at most a limit; boxes are scaled by the ratio of the rounded sizes, axis by axis.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

from yolox_lt.data.augment.transforms import Sample, flip
from yolox_lt.data.collate import Item
from yolox_lt.errors import UserError


def short_side_scale(height: int, width: int, short: int, long: int) -> float:
    """Factor by which the shorter side becomes `short` pixels, or less so that the longer one stays within `long`."""
    return min(short / min(height, width), long / max(height, width))


def resize_short_side(image: np.ndarray, short: int, long: int) -> tuple[np.ndarray, tuple[float, float]]:
    """uint8 [H, W, 3] -> the resized image and (y, x) factors from the old to the new size.

    The shorter side becomes `short` pixels, or less so that the longer one stays within `long`. Sides are rounded and
    at least one pixel; pixels are sampled bilinearly at the exact scale.
    """
    height, width = image.shape[:2]
    scale = short_side_scale(height, width, short, long)
    if min(round(height * scale), round(width * scale)) < 1:
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        resized = cv2.resize(image, size, interpolation=cv2.INTER_LINEAR)
    elif scale == 1:
        resized = image
    else:
        resized = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_LINEAR)
    return resized, (resized.shape[0] / height, resized.shape[1] / width)


@dataclass(frozen=True)
class ShortSideAugment:
    """Training samples: flip, then a shorter side drawn from `short_sides` for every image.

    Args:
        short_sides: lengths in pixels, drawn uniformly. long_side: limit of the longer side.
        flip_prob: probability of a mirror image.
        legacy: resize boxes as the released models do, by their last pixel: x2 - 1 is scaled, and one pixel added.
    """

    short_sides: tuple[int, ...] = (640, 672, 704, 736, 768, 800)
    long_side: int = 1333
    flip_prob: float = 0.5
    legacy: bool = True

    def __post_init__(self) -> None:
        if not self.short_sides or min(self.short_sides) < 1 or self.long_side < max(self.short_sides):
            raise UserError(
                f"short_sides {list(self.short_sides)} and long_side {self.long_side}: give lengths of at least 1 "
                "pixel, none above long_side"
            )
        if not 0 <= self.flip_prob <= 1:
            raise UserError(f"flip_prob = {self.flip_prob} is not a probability; choose a number from 0 to 1")

    def __call__(
        self,
        index: int,
        rng: np.random.Generator,
        use_mosaic: bool,
        read: Callable[[int], Sample],
        partner: Callable[[np.random.Generator], int],
    ) -> Sample:
        """One sample. Draws: flip gate, shorter side. `use_mosaic` and `partner` belong to recipes with a mosaic."""
        sample = read(index)
        if rng.random() < self.flip_prob:
            sample = flip(sample)
        short = self.short_sides[int(rng.integers(len(self.short_sides)))]
        image, (y, x) = resize_short_side(sample.image, short, self.long_side)
        pixel = np.array([0, 0, 1, 1], np.float32) * float(self.legacy)
        boxes = (sample.boxes - pixel) * np.array([x, y, x, y], np.float32) + pixel
        return Sample(np.ascontiguousarray(image), boxes, sample.labels)


@dataclass(frozen=True)
class ShortSideTransform:
    """Test images: the shorter side resized to `short` pixels, the longer one to at most `long`."""

    short: int = 800
    long: int = 1333
    fill: int = 0

    def input_size(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) that an image of this size is resized to."""
        scale = short_side_scale(height, width, self.short, self.long)
        return max(round(height * scale), 1), max(round(width * scale), 1)

    def __call__(self, image: np.ndarray, image_id: int = 0) -> Item:
        """uint8 [H, W, 3] -> Item without objects, with the factors that lead back."""
        resized, scale = resize_short_side(image, self.short, self.long)
        content, original = resized.shape[:2], image.shape[:2]
        return Item(
            np.ascontiguousarray(resized),
            np.zeros((0, 4), np.float32),
            np.zeros(0, np.int64),
            image_id,
            (content[0], content[1]),
            (original[0], original[1]),
            scale=scale,
        )
