"""The released order of operations, written plainly: resize four, paste on a canvas of twice the input, warp, resize
the partner, blend, change the colours by tables, flip, letterbox. The reference of the fast recipe, for tests and
benchmarks/augment.py: same draws, same boxes, every source sampled two to four times.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import cv2
import numpy as np

from yolox_lt.data.augment.mosaic import MIXUP_MIN_SIDE, mixup_slack, tile_placement
from yolox_lt.data.augment.recipe import AFFINE_MIN_SIDE, MIN_SIDE, AugmentRecipe, draw_size, finish, value_range
from yolox_lt.data.augment.transforms import (
    Sample,
    affine_matrix,
    clip_boxes,
    fit,
    flip,
    larger_than,
    letterbox_sample,
    surviving,
    warp_boxes,
)

Resize = Callable[[np.ndarray, tuple[int, int]], tuple[np.ndarray, float]]
Blend = Callable[[np.ndarray, np.ndarray], np.ndarray]


def mosaic(
    samples: Sequence[Sample], centre: tuple[int, int], input_size: tuple[int, int], fill: int, resize: Resize = fit
) -> Sample:
    """Four samples on one canvas of twice `input_size` (height, width), meeting at `centre` (x, y)."""
    canvas_size = (2 * input_size[0], 2 * input_size[1])
    canvas = np.full((*canvas_size, 3), fill, dtype=np.uint8)
    boxes = []
    for quadrant, sample in enumerate(samples):
        tile, _ = resize(sample.image, input_size)
        target, source = tile_placement(quadrant, centre, (tile.shape[0], tile.shape[1]), input_size)
        canvas[target[1] : target[3], target[0] : target[2]] = tile[source[1] : source[3], source[0] : source[2]]
        ratio = np.array(tile.shape[1::-1]) / sample.image.shape[1::-1]  # x, y
        shift = np.array([target[0] - source[0], target[1] - source[1]])
        boxes.append(sample.boxes * np.tile(ratio, 2) + np.tile(shift, 2))
    return Sample(
        canvas,
        clip_boxes(np.concatenate(boxes), canvas_size).astype(np.float32),
        np.concatenate([sample.labels for sample in samples]),
    )


def warp(sample: Sample, matrix: np.ndarray, size: tuple[int, int], fill: int) -> Sample:
    """An affine matrix [2, 3] applied to image (bilinear, `fill` outside it) and boxes; the result has `size`."""
    image = cv2.warpAffine(
        sample.image, matrix, (size[1], size[0]), flags=cv2.INTER_LINEAR, borderValue=(fill, fill, fill)
    )
    return Sample(image, warp_boxes(sample.boxes, matrix, size), sample.labels)


def half_and_half(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """The mean of two uint8 images, cut to whole grey levels."""
    return cv2.addWeighted(one, 0.5, other, 0.5, -0.25)


def mixup(
    base: Sample,
    partner: Sample,
    scale: float,
    flipped: bool,
    offset: tuple[int, int],
    fill: int,
    filter_boxes: bool,
    blend: Blend = half_and_half,
) -> Sample:
    """`partner` over `base`, see `yolox_lt.data.augment.mosaic.mixup`."""
    height, width = size = (base.image.shape[0], base.image.shape[1])
    boxed = letterbox_sample(partner, size, fill)
    canvas_size = max(1, int(width * scale)), max(1, int(height * scale))
    canvas = cv2.resize(boxed.image, canvas_size, interpolation=cv2.INTER_LINEAR)
    placed = Sample(canvas, clip_boxes(boxed.boxes * np.float32(scale), canvas_size[::-1]), boxed.labels)
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
    boxes, labels = [base.boxes, after[keep]], [base.labels, placed.labels[keep]]
    return Sample(blend(base.image, overlay), np.concatenate(boxes), np.concatenate(labels))


def hsv_tables(image: np.ndarray, hue: np.ndarray, saturation: np.ndarray, value: np.ndarray) -> np.ndarray:
    """Every hue, saturation and value replaced by its entry in three tables of 256 numbers, cut to whole numbers."""
    tables = np.stack([hue % 180, np.clip(saturation, 0, 255), np.clip(value, 0, 255)], axis=-1)
    hsv = cv2.cvtColor(image, cv2.COLOR_BGR2HSV)
    return cv2.cvtColor(cv2.LUT(hsv, tables[None].astype(np.uint8)), cv2.COLOR_HSV2BGR)  # [256, 3] -> [1, 256, 3]


class ReleasedOrder:
    """The training sample of `Augment` in the released order, from the same draws."""

    def __init__(self, recipe: AugmentRecipe, input_size: tuple[int, int]) -> None:
        self.recipe = recipe
        self.input_size = input_size

    def __call__(
        self,
        index: int,
        rng: np.random.Generator,
        use_mosaic: bool,
        read: Callable[[int], Sample],
        partner: Callable[[np.random.Generator], int],
    ) -> Sample:
        recipe = self.recipe
        sample = read(index)
        if use_mosaic and rng.random() < recipe.mosaic_prob:
            sample = self.mosaic(sample, rng, read, partner)
            if recipe.enable_mixup and rng.random() < recipe.mixup_prob:
                sample = self.mixup(sample, rng, read, partner)
            sample = sample.select(larger_than(sample.boxes, 0.0))
        changed = self.colour(sample, rng) if rng.random() < recipe.hsv_prob else sample
        if rng.random() < recipe.flip_prob:
            changed = flip(changed)
        size = self.input_size
        if recipe.image_multiscale is not None:
            size = draw_size(size, recipe.image_multiscale, rng)
        return finish(sample, changed, size, recipe.fill, recipe.truncate, recipe.keep_last_boxes)

    def draw(self, name: str, centre: float, rng: np.random.Generator) -> float:
        low, high = value_range(name, getattr(self.recipe, name), centre)
        return float(rng.uniform(low, high))

    def mosaic(
        self,
        first: Sample,
        rng: np.random.Generator,
        read: Callable[[int], Sample],
        partner: Callable[[np.random.Generator], int],
    ) -> Sample:
        recipe, (height, width) = self.recipe, self.input_size
        centre_y, centre_x = int(rng.uniform(0.5 * height, 1.5 * height)), int(rng.uniform(0.5 * width, 1.5 * width))
        others = [partner(rng) for _ in range(3)]
        samples = [first, *(read(i) for i in others)]
        canvas = mosaic(samples, (centre_x, centre_y), self.input_size, recipe.fill, self.resize)
        canvas = canvas.select(larger_than(canvas.boxes, MIN_SIDE))
        angle, scale = self.draw("degrees", 0.0, rng), self.draw("mosaic_scale", 1.0, rng)
        shear = self.draw("shear", 0.0, rng), self.draw("shear", 0.0, rng)
        middle = 0.5 if recipe.centred else 0.0
        translation = self.draw("translate", middle, rng) * width, self.draw("translate", middle, rng) * height
        pivot = (float(width), float(height)) if recipe.centred else (0.0, 0.0)
        warped = warp(canvas, affine_matrix(angle, scale, shear, translation, pivot), self.input_size, recipe.fill)
        if recipe.filter_boxes:
            warped = warped.select(surviving(canvas.boxes, warped.boxes, scale, AFFINE_MIN_SIDE))
        return warped

    def mixup(
        self,
        base: Sample,
        rng: np.random.Generator,
        read: Callable[[int], Sample],
        partner: Callable[[np.random.Generator], int],
    ) -> Sample:
        recipe = self.recipe
        other, scale = partner(rng), self.draw("mixup_scale", 1.0, rng)
        flipped = bool(rng.random() < recipe.mixup_flip_prob)
        slack_y, slack_x = mixup_slack(self.input_size, scale)
        offset = int(rng.random() * slack_y), int(rng.random() * slack_x)
        return mixup(base, read(other), scale, flipped, offset, recipe.fill, recipe.filter_boxes, self.blend)

    def resize(self, image: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, float]:
        return fit(image, size)

    def blend(self, one: np.ndarray, other: np.ndarray) -> np.ndarray:
        return half_and_half(one, other)

    def colour(self, sample: Sample, rng: np.random.Generator) -> Sample:
        strength, levels = rng.uniform(-1.0, 1.0, 3) * np.array(self.recipe.hsv_strength), np.arange(256)
        if self.recipe.hsv_kind == "gain":
            tables = [levels * gain for gain in 1.0 + strength]
        else:
            tables = [levels + shift for shift in (strength * rng.integers(0, 2, 3)).astype(int)]
        return Sample(hsv_tables(sample.image, *tables), sample.boxes, sample.labels)
