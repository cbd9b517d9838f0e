"""Images drawn straight into an image: each source is sampled once, whatever chain of maps leads to the image.

Coordinates are continuous, as those of boxes: pixel i covers i to i + 1, so a resize is a pure scaling and a flip
x -> width - x. Pure functions, but for `paste` and `stretch`, which draw into the image they are given.
"""

from __future__ import annotations

import math
from enum import Enum
from typing import NamedTuple

import cv2
import numpy as np

Rectangle = tuple[float, float, float, float]
"""x1 y1 x2 y2."""


class Edge(Enum):
    """What lies beyond a side of an image that is pasted into an image: half a pixel of it is mixed with the last one.

    FILL: nothing but fill. REPEATED: an image pasted later; until then the last pixels continue. BARE: what the image
    shows already; OpenCV before 5 leaves the last half pixel out.
    """

    FILL = 0
    REPEATED = 1
    BARE = 2


Edges = tuple[Edge, Edge, Edge, Edge]
"""Left, top, right, bottom."""

ALONE: Edges = (Edge.FILL, Edge.FILL, Edge.FILL, Edge.FILL)


class Affine(NamedTuple):
    """The map (x, y) -> (xx * x + xy * y + x0, yx * x + yy * y + y0)."""

    xx: float
    xy: float
    x0: float
    yx: float
    yy: float
    y0: float

    @staticmethod
    def scaling(x: float, y: float, x0: float = 0.0, y0: float = 0.0) -> Affine:
        """x and y scaled, then shifted by (x0, y0)."""
        return Affine(x, 0.0, x0, 0.0, y, y0)

    @staticmethod
    def from_pixel_numbers(matrix: np.ndarray) -> Affine:
        """The map that a matrix [2, 3] describes for pixel numbers, where pixel i lies at i instead of i + 1/2."""
        return Affine(*matrix.ravel().tolist()).between((-0.5, -0.5), (-0.5, -0.5))

    def to_pixel_numbers(self) -> np.ndarray:
        """The float64 matrix [2, 3] of this map for pixel numbers, as OpenCV counts."""
        return np.array(self.between((0.5, 0.5), (0.5, 0.5))).reshape(2, 3)  # [xx xy x0 yx yy y0] -> [2, 3]

    def between(self, own: tuple[float, float], other: tuple[float, float]) -> Affine:
        """The same map, for coordinates that count from the point `own` (x, y) on this side and `other` on that one."""
        x0 = self.xx * own[0] + self.xy * own[1] + self.x0 - other[0]
        y0 = self.yx * own[0] + self.yy * own[1] + self.y0 - other[1]
        return Affine(self.xx, self.xy, x0, self.yx, self.yy, y0)

    def then(self, other: Affine) -> Affine:
        """This map, followed by another one."""
        return Affine(
            other.xx * self.xx + other.xy * self.yx,
            other.xx * self.xy + other.xy * self.yy,
            other.xx * self.x0 + other.xy * self.y0 + other.x0,
            other.yx * self.xx + other.yy * self.yx,
            other.yx * self.xy + other.yy * self.yy,
            other.yx * self.x0 + other.yy * self.y0 + other.y0,
        )

    def inverse(self) -> Affine:
        """The way back."""
        area = self.xx * self.yy - self.xy * self.yx
        xx, xy, yx, yy = self.yy / area, -self.xy / area, -self.yx / area, self.xx / area
        return Affine(xx, xy, -(xx * self.x0 + xy * self.y0), yx, yy, -(yx * self.x0 + yy * self.y0))

    def hull(self, rectangle: Rectangle) -> Rectangle:
        """The axis-aligned rectangle around the image of a rectangle."""
        x1, y1, x2, y2 = rectangle
        half_width, half_height = (x2 - x1) / 2, (y2 - y1) / 2
        x = self.xx * (x1 + half_width) + self.xy * (y1 + half_height) + self.x0
        y = self.yx * (x1 + half_width) + self.yy * (y1 + half_height) + self.y0
        reach_x = abs(self.xx) * half_width + abs(self.xy) * half_height
        reach_y = abs(self.yx) * half_width + abs(self.yy) * half_height
        return x - reach_x, y - reach_y, x + reach_x, y + reach_y


def nearest_pixels(rectangle: Rectangle, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """The whole-pixel rectangle nearest to one, cut to an image of `size` (height, width); it may be empty."""
    x1, y1, x2, y2 = (math.floor(value + 0.5) for value in rectangle)
    return max(x1, 0), max(y1, 0), min(x2, size[1]), min(y2, size[0])


def touched_pixels(rectangle: Rectangle, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """All pixels that a rectangle touches, cut to an image of `size` (height, width); it may be empty."""
    x1, y1, x2, y2 = rectangle
    return max(math.floor(x1), 0), max(math.floor(y1), 0), min(math.ceil(x2), size[1]), min(math.ceil(y2), size[0])


def paste(canvas: np.ndarray, image: np.ndarray, to_canvas: Affine, edges: Edges, fill: int) -> None:
    """Warp an image, uint8 [h, w, 3], into an image, uint8 [H, W, 4], bilinearly; pixels around it stay as they are.

    fill: grey level 0..255 into which the image fades at sides of the kind FILL.
    """
    height, width = image.shape[:2]
    x1, y1, x2, y2 = touched_pixels(to_canvas.hull((-1, -1, width + 1, height + 1)), canvas.shape[:2])
    if x1 >= x2 or y1 >= y2:
        return
    to_image = to_canvas.inverse()
    left, top, right, bottom = to_image.hull((x1, y1, x2, y2))
    left, top, right, bottom = touched_pixels((left - 1, top - 1, right + 1, bottom + 1), image.shape[:2])
    if left >= right or top >= bottom:
        return
    source, (frame_x, frame_y) = framed(image[top:bottom, left:right], edges, fill)
    cv2.warpAffine(
        source,
        to_image.between((x1, y1), (left - frame_x, top - frame_y)).to_pixel_numbers(),
        (x2 - x1, y2 - y1),
        dst=canvas[y1:y2, x1:x2],
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_TRANSPARENT,
    )


def framed(image: np.ndarray, edges: Edges, fill: int) -> tuple[np.ndarray, tuple[int, int]]:
    """The image, uint8 [h, w, 4], with one pixel more at every side that is not bare, and its corner (x, y) in it.

    The fourth channel has no meaning: OpenCV 5 warps four channels more than twice as fast as three.
    """
    height, width = image.shape[:2]
    left, top, right, bottom = edges
    result = np.empty((height + 2, width + 2, 4), dtype=np.uint8)
    cv2.cvtColor(image, cv2.COLOR_BGR2BGRA, dst=result[1:-1, 1:-1])
    result[0] = result[1] if top is Edge.REPEATED else fill
    result[-1] = result[-2] if bottom is Edge.REPEATED else fill
    result[:, 0] = result[:, 1] if left is Edge.REPEATED else fill
    result[:, -1] = result[:, -2] if right is Edge.REPEATED else fill
    bare_left, bare_top, bare_right, bare_bottom = (edge is Edge.BARE for edge in edges)
    result = result[bare_top : height + 2 - bare_bottom, bare_left : width + 2 - bare_right]
    return result, (1 - bare_left, 1 - bare_top)


SEARCHED_STARTS = 32
"""Pixels before the visible part of an image among which `stretch` looks for a start on the grid of the image."""


def stretch(canvas: np.ndarray, image: np.ndarray, to_canvas: Affine) -> None:
    """Resize an image, uint8 [h, w, 3], into an image, uint8 [H, W, 3], bilinearly; the map may scale, flip and shift.

    A resize begins at a border between pixels, of the image and of the image; the map rarely lets two such borders
    meet. The resize begins where they nearly do: the image lies a fraction of a pixel off (0.03 in the mean, in a
    fiftieth of the samples more than a quarter, never more than a half).
    """
    (height, width), image_width = image.shape[:2], canvas.shape[1]
    mirrored = to_canvas.xx < 0
    if mirrored:  # resized into the mirror image of the image
        to_canvas = to_canvas.then(Affine.scaling(-1, 1, image_width, 0))
    x1, y1, x2, y2 = nearest_pixels(to_canvas.hull((0, 0, width, height)), canvas.shape[:2])
    if x1 >= x2 or y1 >= y2:
        return
    left, first_x, right = resize_span(to_canvas.xx, to_canvas.x0, x1, x2, width)
    top, first_y, bottom = resize_span(to_canvas.yy, to_canvas.y0, y1, y2, height)
    if min(round((right - left) * to_canvas.xx), round((bottom - top) * to_canvas.yy)) < 1:
        return
    source = image[top:bottom, left:right]
    resized = cv2.resize(source, None, fx=to_canvas.xx, fy=to_canvas.yy, interpolation=cv2.INTER_LINEAR)
    y1, x1 = max(y1, first_y), max(x1, first_x)
    visible = resized[y1 - first_y : y2 - first_y, x1 - first_x : x2 - first_x]
    if not visible.size:
        return
    y2, x2 = y1 + visible.shape[0], x1 + visible.shape[1]
    if mirrored:
        cv2.flip(visible, 1, dst=canvas[y1:y2, image_width - x2 : image_width - x1])
    else:
        canvas[y1:y2, x1:x2] = visible


def resize_span(scale: float, shift: float, first: int, last: int, length: int) -> tuple[int, int, int]:
    """Which pixels of an image axis of `length` to resize by `scale` for the image's pixels from `first` to `last`.

    Returns (start, image pixel at which the start comes to lie, end).
    """
    visible = min(max(math.floor((first - shift) / scale) - 1, 0), length - 1)
    end = min(math.ceil((last - shift) / scale) + 1, length)
    starts = range(max(visible - SEARCHED_STARTS, 0), visible + 1)
    start = min(starts, key=lambda i: abs(i * scale + shift - round(i * scale + shift)))
    return start, round(start * scale + shift), end
