"""Images made of several: mosaic of four, mixup of two. Pure functions, no random numbers (see recipe.py).

Mosaic: four images, each fitted into the input size, meet at one point of a canvas twice that size.
Mixup: a second image is laid over the first, half and half, and brings its objects.
Both as in official YOLOX and in the released models, which differ in fill, flip and in the boxes they keep.

A `Scene` says where every image goes; `render_scene` then makes the image, each source sampled once. The released order
(resize, paste, warp, resize, blend) has the same geometry, but samples every source two to four times.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np

from yolox_lt.data.augment.transforms import Sample, clip_boxes, fitting, flip_boxes, surviving, warp_boxes
from yolox_lt.data.augment.warp import Affine, Edge, Edges, Rectangle, nearest_pixels, paste, stretch

MIXUP_MIN_SIDE = 5.0
"""Shortest side in pixels of a partner's box that survives mixup in the released models (exclusive)."""

TILE_EDGES: tuple[Edges, ...] = (
    (Edge.FILL, Edge.FILL, Edge.REPEATED, Edge.REPEATED),
    (Edge.BARE, Edge.FILL, Edge.FILL, Edge.REPEATED),
    (Edge.FILL, Edge.BARE, Edge.REPEATED, Edge.FILL),
    (Edge.BARE, Edge.BARE, Edge.FILL, Edge.FILL),
)
"""Of the four tiles of a mosaic, in the order in which they are pasted."""

WARPED_DIRECTLY = (0.4, 2.0)
"""Factors between image and tile within which an image is not resized first. Below, the resize reads less of the image
than the warp would; above, a pixel of the image is too large to cut it along the border of the canvas.
"""


@dataclass(frozen=True, eq=False)
class Tile:
    """One image of a mosaic.

    image: uint8 [H, W, 3]; to_canvas: from its coordinates to those of the image; edges: see `paste`.
    """

    image: np.ndarray
    to_image: Affine
    edges: Edges


@dataclass(frozen=True, eq=False)
class Overlay:
    """The second image of a mixup.

    image: uint8 [H, W, 3]; to_canvas: from its coordinates to those of the image, scales, flips and shifts; canvas:
    the rectangle in the image of its letterboxed canvas, whose rest is fill.
    """

    image: np.ndarray
    to_image: Affine
    canvas: Rectangle


@dataclass(frozen=True, eq=False)
class Scene:
    """An image before a pixel is drawn, with its objects.

    size: (height, width) in pixels; tiles: in the order in which they are drawn; overlay: of the mixup, if any;
    boxes: float32 [G, 4], x1 y1 x2 y2 in pixels of the image; labels: int64 [G], 0..C-1.
    """

    size: tuple[int, int]
    tiles: tuple[Tile, ...]
    overlay: Overlay | None
    boxes: np.ndarray
    labels: np.ndarray

    def select(self, mask: np.ndarray) -> Scene:
        """The same scene with the objects where `mask` (bool [G]) is True."""
        return replace(self, boxes=self.boxes[mask], labels=self.labels[mask])

    def mapped(self, change: Affine, size: tuple[int, int], boxes: np.ndarray) -> Scene:
        """The scene after a map, with new size and boxes. With an overlay, it may only scale, flip and shift."""
        tiles = tuple(Tile(tile.image, tile.to_image.then(change), tile.edges) for tile in self.tiles)
        overlay = self.overlay
        if overlay is not None:
            overlay = Overlay(overlay.image, overlay.to_image.then(change), change.hull(overlay.canvas))
        return Scene(size, tiles, overlay, boxes, self.labels)

    def warped(self, matrix: np.ndarray, size: tuple[int, int]) -> Scene:
        """A mosaic seen through an affine `matrix` [2, 3] in a window of `size` (height, width).

        The matrix counts pixels by their numbers for the images and continuously for the boxes, as official YOLOX and
        the released models do. Boxes are hulls and clipped, none is dropped: one that left the window lies on its
        border without area.
        """
        return self.mapped(Affine.from_pixel_numbers(matrix), size, warp_boxes(self.boxes, matrix, size))

    def flipped(self) -> Scene:
        """Mirrored left and right."""
        width = self.size[1]
        return self.mapped(Affine.scaling(-1, 1, width, 0), self.size, flip_boxes(self.boxes, width))

    def fitted(self, size: tuple[int, int], truncate: bool) -> Scene:
        """Resized so that it just fits into `size` (height, width), see `fit`."""
        how = fitting(self.size, size, truncate)
        if how.size == self.size and how.ratio == (1.0, 1.0):
            return self
        return self.mapped(Affine.scaling(*how.ratio), how.size, (self.boxes * how.scale).astype(np.float32))


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


def mosaic_tile(
    image: np.ndarray,
    tile_size: tuple[int, int],
    visible: tuple[int, int, int, int],
    shift: tuple[int, int],
    edges: Edges,
) -> Tile:
    """An image stretched to `tile_size` (height, width) and shifted by (x, y), of which only the rectangle `visible`,
    in pixels of the tile, is shown.

    The visible part is cut along whole pixels of the image, so that all pixels of its rectangle show the image alone.
    At the border of the canvas the tile may be larger than its rectangle, by less than 1.5 image pixels.
    """
    height, width = tile_size
    least, most = WARPED_DIRECTLY
    if not (least <= height / image.shape[0] <= most and least <= width / image.shape[1] <= most):
        image = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
    x, y = width / image.shape[1], height / image.shape[0]
    x1, x2 = cut_pixels(visible[0], visible[2], x, image.shape[1])
    y1, y2 = cut_pixels(visible[1], visible[3], y, image.shape[0])
    return Tile(image[y1:y2, x1:x2], Affine.scaling(x, y, shift[0] + x * x1, shift[1] + y * y1), edges)


def cut_pixels(first: int, last: int, scale: float, length: int) -> tuple[int, int]:
    """The pixels of an image axis of `length` that an axis of a tile needs for its pixels from `first` to `last`, of
    which an image pixel covers `scale`: the fewest for which the outermost tile pixels do not fade into what is beyond.
    """
    # An image fades over the half pixel at either side of its end; the centre of the tile's pixel lies half of one in.
    margin = min(0.5, 0.5 / scale - 0.5)
    return max(math.floor(first / scale + margin), 0), min(math.ceil(last / scale - margin), length)


def mosaic(samples: Sequence[Sample], centre: tuple[int, int], input_size: tuple[int, int]) -> Scene:
    """Four samples on one canvas of twice `input_size` (height, width), meeting at `centre` (x, y).

    Order: top-left, top-right, bottom-left, bottom-right. Every image is fitted into the input size; its boxes are
    scaled by the size it really got, shifted and clipped to the canvas, none is dropped.
    """
    canvas_size = (2 * input_size[0], 2 * input_size[1])
    tiles, boxes = [], []
    for quadrant, sample in enumerate(samples):
        fitted = fitting(sample.image.shape[:2], input_size)
        target, source = tile_placement(quadrant, centre, fitted.size, input_size)
        shift_x, shift_y = target[0] - source[0], target[1] - source[1]
        tiles.append(mosaic_tile(sample.image, fitted.size, source, (shift_x, shift_y), TILE_EDGES[quadrant]))
        boxes.append(sample.boxes * np.array(2 * fitted.ratio) + np.array([shift_x, shift_y, shift_x, shift_y]))
    return Scene(
        canvas_size,
        tuple(tiles),
        None,
        clip_boxes(np.concatenate(boxes), canvas_size).astype(np.float32),
        np.concatenate([sample.labels for sample in samples]),
    )


def mixup_slack(input_size: tuple[int, int], scale: float) -> tuple[int, int]:
    """How many pixels (y, x) the partner's canvas, resized by `scale`, is larger than the input; 0 if it is not."""
    return max(int(input_size[0] * scale) - input_size[0], 0), max(int(input_size[1] * scale) - input_size[1], 0)


def mixup(
    base: Scene, partner: Sample, scale: float, flipped: bool, offset: tuple[int, int], filter_boxes: bool
) -> Scene:
    """Lay `partner` over `base`: the mean of both images, and the objects of both.

    The partner is letterboxed to the size of `base`; that canvas is resized by `scale`, mirrored if `flipped`, cut at
    `offset` (y, x pixels) where it is larger than `base` and filled up with zeros where smaller.
    filter_boxes: True as in the released models, a partner's box stays by the rule of `surviving` with sides above
    5 px; False as in official YOLOX, all stay, clipped (the final rule of the recipe drops those without extent).
    Without a partner's box that stays, `base` itself comes back.
    """
    height, width = size = base.size
    fitted = fitting(partner.image.shape[:2], size)
    canvas_height, canvas_width = canvas_size = max(1, int(height * scale)), max(1, int(width * scale))
    boxes = clip_boxes((partner.boxes * fitted.scale).astype(np.float32) * np.float32(scale), canvas_size)
    y, x = offset
    to_image = Affine.scaling(canvas_width / width, canvas_height / height, -x, -y)
    if flipped:
        boxes = flip_boxes(boxes, canvas_width)
        to_image = Affine.scaling(-canvas_width / width, canvas_height / height, canvas_width - x, -y)

    before = boxes - np.array([x, y, x, y], dtype=np.float32)
    after = clip_boxes(before, size)
    keep = surviving(before, after, 1.0, MIXUP_MIN_SIDE) if filter_boxes else np.ones(len(after), dtype=bool)
    if not keep.any():
        return base
    return replace(
        base,
        overlay=Overlay(
            partner.image, Affine.scaling(*fitted.ratio).then(to_image), to_image.hull((0, 0, width, height))
        ),
        boxes=np.concatenate([base.boxes, after[keep]]),
        labels=np.concatenate([base.labels, partner.labels[keep]]),
    )


def render_scene(scene: Scene, fill: int) -> np.ndarray:
    """The image, uint8 [height, width, 3].

    fill: grey level 0..255 of everything outside the images (zero outside the canvas of a mixup's partner).
    """
    canvas = np.full((*scene.size, 4), fill, dtype=np.uint8)
    for tile in scene.tiles:
        paste(canvas, tile.image, tile.to_image, tile.edges, fill)
    base = cv2.cvtColor(canvas, cv2.COLOR_BGRA2BGR)
    if scene.overlay is None:
        return base
    other = render_overlay(scene.overlay, scene.size, fill)
    # Half grey levels must be cut, not rounded to even: a quarter below them, rounding always goes down.
    return cv2.addWeighted(base, 0.5, other, 0.5, -0.25, dst=base)


def render_overlay(overlay: Overlay, size: tuple[int, int], fill: int) -> np.ndarray:
    """The partner of a mixup alone, uint8 [height, width, 3]; borders lie between whole pixels."""
    canvas = np.zeros((*size, 3), dtype=np.uint8)
    if fill:
        x1, y1, x2, y2 = nearest_pixels(overlay.canvas, size)
        canvas[y1:y2, x1:x2] = fill
    stretch(canvas, overlay.image, overlay.to_image)
    return canvas
