"""Transforms of one image and its boxes: letterbox, flip, colour, affine map, box rules. Pure functions.

Nothing here draws a random number or changes its input; the recipes (recipe.py) draw, and chain these functions.
Images are uint8 [H, W, 3] BGR; sizes are (height, width) in pixels; boxes are x1 y1 x2 y2 in pixels of the image.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np


@dataclass(frozen=True, eq=False)
class Sample:
    """One image with its objects.

    image: uint8 [H, W, 3], BGR.
    boxes: float32 [G, 4], x1 y1 x2 y2 in pixels of `image`.
    labels: int64 [G], 0..C-1.
    """

    image: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray

    def select(self, mask: np.ndarray) -> Sample:
        """The same image with the objects where `mask` (bool [G]) is True."""
        return Sample(self.image, self.boxes[mask], self.labels[mask])


# -- size ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Fit:
    """How an image is fitted into a size.

    size: (height, width) it gets, in pixels; ratio: (x, y) scale of its content; scale: the nominal one, of its boxes.
    """

    size: tuple[int, int]
    ratio: tuple[float, float]
    scale: float


def fitting(image_size: tuple[int, int], size: tuple[int, int], truncate: bool = True) -> Fit:
    """What `fit` does to an image of `image_size` (height, width)."""
    height, width = image_size
    scale = min(size[0] / height, size[1] / width)
    rounded = round(height * scale), round(width * scale)
    if truncate or min(rounded) < 1:
        new_height, new_width = max(1, int(height * scale)), max(1, int(width * scale))
        return Fit((new_height, new_width), (new_width / width, new_height / height), scale)
    return Fit(rounded, (scale, scale), scale)


def fit(image: np.ndarray, size: tuple[int, int], truncate: bool = True) -> tuple[np.ndarray, float]:
    """Resize an image, up or down and bilinearly, so that it just fits into `size`; also returns the nominal scale.

    truncate=True (official YOLOX; mosaic and mixup of both recipes): the new sides are the scaled ones cut to whole
    pixels, and the content is stretched to fill them. truncate=False (test and final resize of the released models):
    the new sides are rounded, and sampled at the exact scale. No side becomes shorter than one pixel. An image that
    fits already is returned itself, not a copy.
    """
    fitted = fitting(image.shape[:2], size, truncate)
    if fitted.ratio == (1.0, 1.0):
        return image, fitted.scale
    if fitted.ratio == (fitted.scale, fitted.scale):
        scale = fitted.scale
        return cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_LINEAR), scale
    return cv2.resize(image, fitted.size[::-1], interpolation=cv2.INTER_LINEAR), fitted.scale


def letterbox(image: np.ndarray, size: tuple[int, int], fill: int, truncate: bool = True) -> tuple[np.ndarray, float]:
    """Fit an image into `size` (height, width): content top-left, `fill` to the right of it and below.

    Returns the new uint8 image [height, width, 3] and the nominal scale: boxes of the original times the scale are
    boxes of the result, on both axes. As in official YOLOX with fill 114, truncate=True; as in the released models
    with fill 0, truncate=False (see `fit`).
    """
    content, scale = fit(image, size, truncate)
    return pad(content, size, fill), scale


def pad(content: np.ndarray, size: tuple[int, int], fill: int) -> np.ndarray:
    """A copy of `content` in the top-left corner of a canvas of `size` (height, width) that is `fill` elsewhere."""
    canvas = np.full((*size, *content.shape[2:]), fill, dtype=np.uint8)
    canvas[: content.shape[0], : content.shape[1]] = content
    return canvas


def letterbox_sample(sample: Sample, size: tuple[int, int], fill: int, truncate: bool = True) -> Sample:
    """`letterbox` of the image, with the boxes scaled alike."""
    image, scale = letterbox(sample.image, size, fill, truncate)
    return Sample(image, (sample.boxes * scale).astype(np.float32), sample.labels)


# -- flip ------------------------------------------------------------------------------------------------------------


def flip_boxes(boxes: np.ndarray, width: int) -> np.ndarray:
    """Mirror boxes [G, 4] in an image of `width` pixels: x1' = width - x2."""
    flipped = boxes.copy()
    flipped[:, 0::2] = width - boxes[:, 2::-2]
    return flipped


def flip(sample: Sample) -> Sample:
    """Mirror left and right."""
    boxes = flip_boxes(sample.boxes, sample.image.shape[1])
    return Sample(cv2.flip(sample.image, 1), boxes, sample.labels)


# -- colour ----------------------------------------------------------------------------------------------------------

_HUES = 180  # OpenCV stores the hue of uint8 images in steps of two degrees.
_CUT = -0.5 + 2**-12  # Added to a number that is then rounded, this cuts it, up to its last 1/4096.


def _change_hsv(image: np.ndarray, gains: Sequence[float], terms: Sequence[float]) -> np.ndarray:
    """Hue (modulo 180), saturation and value (clipped to 0..255) become gain x level + term, cut to whole numbers.

    A linear map of the whole image takes a quarter of the time of three tables. The hue needs a table where it could
    leave 0..255; up to there OpenCV takes it as a turn more.
    """
    (hue_gain, saturation_gain, value_gain), (hue, saturation, value) = gains, terms
    hsv = cv2.cvtColor(image, cv2.COLOR_BGR2HSV)
    if min(hue, hue + hue_gain * (_HUES - 1)) < 0 or max(hue, hue + hue_gain * (_HUES - 1)) > 255:
        table = ((np.arange(256) * hue_gain + hue) % _HUES).astype(np.uint8)
        cv2.insertChannel(cv2.LUT(cv2.extractChannel(hsv, 0), table), hsv, 0)
        hue_gain, hue = 1.0, 0.0
    linear = np.diag([hue_gain, saturation_gain, value_gain])
    hsv = cv2.transform(hsv, np.column_stack([linear, np.array([hue, saturation, value]) + _CUT]))
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR)


def hsv_gain(image: np.ndarray, hue: float, saturation: float, value: float) -> np.ndarray:
    """Multiply hue (modulo 180), saturation and value (clipped to 255) by gains around 1, as in the released models."""
    return _change_hsv(image, (hue, saturation, value), (0.0, 0.0, 0.0))


def hsv_shift(image: np.ndarray, hue: int, saturation: int, value: int) -> np.ndarray:
    """Add to hue (modulo 180), saturation and value (clipped to 0..255), as in official YOLOX.

    Three zeros, one draw in six there, return the image itself.
    """
    if hue == saturation == value == 0:
        return image
    return _change_hsv(image, (1.0, 1.0, 1.0), (hue, saturation, value))


# -- affine map ------------------------------------------------------------------------------------------------------


def affine_matrix(
    angle: float,
    scale: float,
    shear: tuple[float, float],
    translation: tuple[float, float],
    centre: tuple[float, float] = (0.0, 0.0),
) -> np.ndarray:
    """The float64 matrix [2, 3] of M = T S R C, from source to target pixels (x, y).

    C moves `centre` (x, y) to the origin, R rotates by `angle` degrees (counter-clockwise on the screen) and scales,
    S shears: x grows by tan(shear[0]) y and y by tan(shear[1]) x, T adds `translation` (x, y) in pixels.
    The released models turn about the centre of the canvas; official YOLOX about its top-left corner, centre (0, 0).
    """
    cosine, sine = scale * math.cos(math.radians(angle)), scale * math.sin(math.radians(angle))
    rotation = np.array([[cosine, sine], [-sine, cosine]])
    shearing = np.array([[1.0, math.tan(math.radians(shear[0]))], [math.tan(math.radians(shear[1])), 1.0]])
    linear = shearing @ rotation
    offset = np.asarray(translation, dtype=np.float64) - linear @ np.asarray(centre, dtype=np.float64)
    return np.concatenate([linear, offset[:, None]], axis=1)


def clip_boxes(boxes: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Clip boxes [G, 4] to [0, width] x [0, height] of an image of `size` (height, width)."""
    return np.clip(boxes, 0, np.array([size[1], size[0], size[1], size[0]], dtype=boxes.dtype))


def warp_boxes(boxes: np.ndarray, matrix: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Float32 boxes [G, 4]: the axis-aligned hulls of the four warped corners, clipped to `size` (height, width)."""
    corners = boxes[:, [0, 1, 2, 1, 2, 3, 0, 3]].reshape(-1, 4, 2)  # [G, 8] -> [G, corner, xy]
    points = corners @ matrix[:, :2].T + matrix[:, 2]  # [G, corner, xy]
    hulls = np.concatenate([points.min(axis=1), points.max(axis=1)], axis=1)  # [G, 4]
    return clip_boxes(hulls, size).astype(np.float32)


# -- which boxes stay ------------------------------------------------------------------------------------------------

MIN_AREA_KEPT = 0.2
MAX_ASPECT = 20.0


def surviving(before: np.ndarray, after: np.ndarray, scale: float, min_side: float) -> np.ndarray:
    """Bool [G]: which boxes stay after a geometric change, as in the released models.

    before, after: the boxes [G, 4] before and after; scale: the scale factor of the change. A box stays if both sides
    are longer than `min_side` pixels, its area is more than a fifth of area before x scale^2, and its longer side is
    less than 20 times the shorter one.
    """
    old = before[:, 2:].astype(np.float64) - before[:, :2]
    new = after[:, 2:].astype(np.float64) - after[:, :2]
    large = (new > min_side).all(axis=1)
    visible = new.prod(axis=1) > MIN_AREA_KEPT * scale * scale * old.prod(axis=1)
    compact = new.max(axis=1) < MAX_ASPECT * new.min(axis=1)
    return large & visible & compact


def larger_than(boxes: np.ndarray, min_side: float) -> np.ndarray:
    """Bool [G]: which boxes are wider and higher than `min_side` pixels."""
    return (boxes[:, 2:] - boxes[:, :2] > min_side).all(axis=1)
