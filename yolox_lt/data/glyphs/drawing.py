"""Draws one image of the glyph data set: textured background, distractors, glyphs, bars that hide a part of them.

Everything random comes from the generator that is handed in, so an image depends on its own seed alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from yolox_lt.data.glyphs.alphabet import crop_to

MAX_ROTATION = 20.0  # degrees either way: M stays different from W, an arrow from its neighbour 45 degrees on
MIN_CONTRAST = 80.0  # between a glyph's luma and that of the pixels under its box, of 255
MAX_OVERLAP = 0.15  # of the smaller of two boxes
OCCLUDED_SHARE = 0.2  # of the glyphs get a bar across
PLACEMENT_TRIES = 40
LUMA = np.array([0.114, 0.587, 0.299])  # of B, G, R
MASK_THRESHOLD = 128  # coverage from which a pixel belongs to the object: a half


@dataclass(frozen=True)
class DrawnGlyph:
    """A glyph in an image.

    category: index into the alphabet. box: x, y, width, height in pixels, the tight hull of the mask. area: mask
    pixels, before anything hides them. left, top: corner at which the uint8 [h, w] `coverage` was painted; the mask is
    coverage >= MASK_THRESHOLD.
    """

    category: int
    box: tuple[float, float, float, float]
    area: int
    left: int
    top: int
    coverage: np.ndarray


def render_image(
    rng: np.random.Generator,
    bitmaps: Sequence[np.ndarray],
    categories: Sequence[int],
    image_size: tuple[int, int],
    object_size: tuple[float, float],
) -> tuple[np.ndarray, list[DrawnGlyph]]:
    """An image uint8 [height, width, 3] BGR with one glyph per entry of `categories`, in that order.

    bitmaps: coverage uint8 [h, w] per category, larger than any object. image_size: (height, width).
    object_size: smallest and largest longer side of a glyph before rotation, pixels.
    """
    unit = min(image_size) / 128  # the sizes of texture and strokes below are for an image of 128 pixels
    image = background(rng, image_size, unit)
    add_distractors(rng, image, unit)
    drawn = place_glyphs(rng, bitmaps, categories, image_size, object_size)
    for glyph in drawn:
        paint(image, glyph.coverage, glyph.left, glyph.top, contrasting_colour(rng, image, glyph))
    for glyph in drawn:
        if rng.random() < OCCLUDED_SHARE:
            add_bar(rng, image, glyph)
    return add_noise(rng, image), drawn


def background(rng: np.random.Generator, image_size: tuple[int, int], unit: float) -> np.ndarray:
    """A gradient with clouds and, half of the time, stripes: uint8 [height, width, 3]."""
    height, width = image_size
    colour = rng.uniform(30, 225, 3)
    clouds = rng.normal(0, 12, (6, 6, 3)) + colour
    image = cv2.resize(clouds.astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC)
    slope = (rng.uniform(-60, 60, 3) / max(image_size)).astype(np.float32)
    image = image + wave_argument(rng, image_size)[..., None] * slope
    if rng.random() < 0.5:
        period = rng.uniform(6, 30) * unit
        stripes = np.sin(wave_argument(rng, image_size) * np.float32(2 * np.pi / period))
        image = image + stripes[..., None] * rng.uniform(-20, 20, 3).astype(np.float32)
    return np.clip(image, 0, 255).astype(np.uint8)


def wave_argument(rng: np.random.Generator, image_size: tuple[int, int]) -> np.ndarray:
    """Distance of each pixel from a line of random direction through the top-left corner: float32 [height, width]."""
    direction = rng.uniform(0, 2 * np.pi)
    rows, columns = (np.arange(side, dtype=np.float32) for side in image_size)
    return rows[:, None] * np.float32(np.sin(direction)) + columns * np.float32(np.cos(direction))


def add_distractors(rng: np.random.Generator, image: np.ndarray, unit: float) -> None:
    """Draws two to five broken strokes or blobs into `image`; none has the shape of a glyph."""
    height, width = image.shape[:2]
    for _ in range(rng.integers(2, 6)):
        colour = rng.uniform(0, 255, 3).tolist()
        centre = rng.uniform((0, 0), (width, height))
        if rng.random() < 0.5:
            corners = centre + np.cumsum(rng.uniform(-30, 30, (4, 2)), axis=0) * unit
            thickness = max(1, round(rng.uniform(1, 2.5) * unit))
            cv2.polylines(image, [corners.astype(np.int32)], False, colour, thickness, cv2.LINE_AA)
        else:
            axes = rng.uniform(3, 14, 2) * unit
            ellipse = (centre.tolist(), (2 * axes).tolist(), rng.uniform(0, 180))
            cv2.ellipse(image, ellipse, colour, cv2.FILLED, cv2.LINE_AA)


def place_glyphs(
    rng: np.random.Generator,
    bitmaps: Sequence[np.ndarray],
    categories: Sequence[int],
    image_size: tuple[int, int],
    object_size: tuple[float, float],
) -> list[DrawnGlyph]:
    """Size, angle and place of each glyph, in the order of `categories`; boxes overlap little or not at all.

    Large glyphs are placed first. One that finds no room shrinks, down to the smallest size, where the best place is
    taken.
    """
    smallest, largest = object_size
    sizes = np.exp(rng.uniform(math.log(smallest), math.log(largest), len(categories)))
    angles = rng.uniform(-MAX_ROTATION, MAX_ROTATION, len(categories))
    placed: dict[int, DrawnGlyph] = {}
    boxes = np.zeros((0, 4))  # x1 y1 x2 y2
    for index in np.argsort(-sizes, kind="stable").tolist():
        size = sizes[index]
        while True:
            coverage = turned_glyph(bitmaps[categories[index]], size, angles[index])
            left, top, overlap = find_place(rng, coverage.shape, boxes, image_size)
            if overlap <= MAX_OVERLAP or size == smallest:
                break
            size = max(smallest, 0.75 * size)
        placed[index] = drawn_glyph(categories[index], coverage, left, top)
        x, y, width, height = placed[index].box
        boxes = np.vstack([boxes, (x, y, x + width, y + height)])
    return [placed[index] for index in range(len(categories))]


def turned_glyph(bitmap: np.ndarray, size: float, angle: float) -> np.ndarray:
    """Coverage uint8 [h, w] of a glyph with a longer side of `size` pixels, turned by `angle` degrees; cropped."""
    height, width = bitmap.shape
    # Warp to a fine grid near the bitmap's own resolution, then average: sharp edges, no aliasing.
    fine = max(1, round(max(height, width) / size))
    scale = size * fine / max(height, width)
    side = math.ceil(math.hypot(height, width) * scale / fine) + 2  # pixels of the coarse canvas: any angle fits
    matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), angle, scale)
    matrix[:, 2] += (side * fine - width) / 2, (side * fine - height) / 2
    canvas = cv2.warpAffine(bitmap, matrix, (side * fine, side * fine), flags=cv2.INTER_LINEAR)
    coverage = cv2.resize(canvas, (side, side), interpolation=cv2.INTER_AREA)
    return crop_to(coverage, coverage > 0)


def find_place(
    rng: np.random.Generator, shape: tuple[int, ...], boxes: np.ndarray, image_size: tuple[int, int]
) -> tuple[int, int, float]:
    """A place inside the image for a patch of `shape` (height, width): left, top, overlap with `boxes` [n, 4].

    The first of PLACEMENT_TRIES random places with an overlap up to MAX_OVERLAP, else the one with the least.
    """
    height, width = shape
    top = rng.integers(0, image_size[0] - height, PLACEMENT_TRIES, endpoint=True)
    left = rng.integers(0, image_size[1] - width, PLACEMENT_TRIES, endpoint=True)
    if not len(boxes):
        return int(left[0]), int(top[0]), 0.0
    x1, y1, x2, y2 = boxes.T
    common_x = np.minimum(left[:, None] + width, x2) - np.maximum(left[:, None], x1)
    common_y = np.minimum(top[:, None] + height, y2) - np.maximum(top[:, None], y1)
    common = common_x.clip(0) * common_y.clip(0)  # [tries, boxes]
    overlap = (common / np.minimum(height * width, (x2 - x1) * (y2 - y1))).max(1)
    best = int(np.argmax(overlap <= MAX_OVERLAP)) if (overlap <= MAX_OVERLAP).any() else int(np.argmin(overlap))
    return int(left[best]), int(top[best]), float(overlap[best])


def drawn_glyph(category: int, coverage: np.ndarray, left: int, top: int) -> DrawnGlyph:
    """The record of a coverage patch at (left, top), with box and area of its mask."""
    mask = coverage >= MASK_THRESHOLD
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    width, height = columns[-1] + 1 - columns[0], rows[-1] + 1 - rows[0]
    box = (float(left + columns[0]), float(top + rows[0]), float(width), float(height))
    return DrawnGlyph(category, box, int(mask.sum()), left, top, coverage)


def contrasting_colour(rng: np.random.Generator, image: np.ndarray, glyph: DrawnGlyph) -> np.ndarray:
    """A random colour [3] that stands out from the pixels under the glyph."""
    height, width = glyph.coverage.shape
    region = image[glyph.top : glyph.top + height, glyph.left : glyph.left + width]
    colours = rng.uniform(0, 255, (8, 3))
    contrast = np.abs(colours @ LUMA - np.dot(cv2.mean(region)[:3], LUMA))
    enough = contrast >= MIN_CONTRAST
    return colours[np.argmax(enough) if enough.any() else np.argmax(contrast)]


def paint(image: np.ndarray, coverage: np.ndarray, left: int, top: int, colour: np.ndarray) -> None:
    """Blends `colour` [3] into `image` where `coverage` uint8 [h, w] says, with the patch's corner at (left, top)."""
    height, width = coverage.shape
    region = image[top : top + height, left : left + width]
    opacity = coverage[..., None].astype(np.float32) / 255
    region[:] = np.rint(region + (colour.astype(np.float32) - region) * opacity)


def add_bar(rng: np.random.Generator, image: np.ndarray, glyph: DrawnGlyph) -> None:
    """Draws a bar across the glyph, a tenth of its size wide: it hides a part and leaves the rest readable."""
    x, y, width, height = glyph.box
    size = max(width, height)
    centre = np.array([x + width * rng.uniform(0.2, 0.8), y + height * rng.uniform(0.2, 0.8)])
    direction = rng.uniform(0, np.pi)
    half = 0.6 * size * np.array([np.cos(direction), np.sin(direction)])
    start, end = np.rint([centre - half, centre + half]).astype(np.int64).tolist()
    cv2.line(image, start, end, rng.uniform(0, 255, 3).tolist(), max(1, round(size / 10)), cv2.LINE_AA)


def add_noise(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """Grain of a random strength, up to about ten grey levels, different in each channel."""
    strength = rng.uniform(2, 10)
    grain = np.frombuffer(rng.bytes(image.size), np.int8).reshape(image.shape)  # [height, width, 3]
    noisy = image + grain * np.float32(strength * math.sqrt(3) / 128)  # a uniform variable of deviation `strength`
    return np.clip(np.rint(noisy), 0, 255).astype(np.uint8)
