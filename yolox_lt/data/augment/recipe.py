"""The two training recipes: they draw the random numbers and chain the pure functions of augment.py and mosaic.py.

Strong: mosaic, affine map, mixup, colour, flip, letterbox. Weak (the last epochs): colour, flip, letterbox.
OFFICIAL_RECIPE is that of official YOLOX, RELEASED_RECIPE that of the authors' released YOLOX-S/M models with EFL.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import partial

import numpy as np

from yolox_lt.data.augment.mosaic import Scene, mixup, mixup_slack, mosaic, render_scene
from yolox_lt.data.augment.transforms import (
    Sample,
    affine_matrix,
    flip,
    hsv_gain,
    hsv_shift,
    larger_than,
    letterbox_sample,
    pad,
    surviving,
)
from yolox_lt.errors import UserError

Colour = Callable[[np.ndarray], np.ndarray]
"""A change of colour: uint8 [H, W, 3] -> uint8 [H, W, 3]."""

Range = float | tuple[float, float] | list[float]
"""A pair (low, high), or one number v meaning centre - v to centre + v."""

STRIDE = 32
"""Training sizes are multiples of the coarsest stride of the network."""

MIN_SIDE = 1.0
"""Boxes at most this many output pixels wide or high are dropped at the end, in both recipes."""

AFFINE_MIN_SIDE = 2.0
"""Shortest side in pixels of a box that survives the affine map in the released models (exclusive)."""


def value_range(name: str, value: Range, centre: float) -> tuple[float, float]:
    """(low, high) of the attribute `name`: a pair is taken as it is, a number v means centre - v to centre + v."""
    if isinstance(value, (int, float)):
        return centre - value, centre + value
    if isinstance(value, (tuple, list)) and len(value) == 2:
        return float(value[0]), float(value[1])
    raise UserError(f"{name} = {value!r} is not a range; give one number or a pair (low, high).")


@dataclass(frozen=True)
class AugmentRecipe:
    """Every parameter of a recipe. The defaults are official YOLOX (as for YOLOX-S to X); the first ten fields carry
    the names of its experiment attributes. A value out of range raises UserError.
    """

    # probability of a mosaic, and with it of affine map and mixup, for a use_mosaic sample
    mosaic_prob: float = 1.0
    # probability of mixup after a mosaic, if enable_mixup
    mixup_prob: float = 1.0
    # probability of the colour change
    hsv_prob: float = 1.0
    # probability of the final left-right flip
    flip_prob: float = 0.5
    # rotation of the affine map in degrees, around 0
    degrees: Range = 10.0
    # translation of the affine map as a fraction of the input size, around 0 (around 0.5 if `centred`)
    translate: Range = 0.1
    # scale of the affine map, around 1
    mosaic_scale: Range = (0.1, 2.0)
    # no mixup at all if False
    enable_mixup: bool = True
    # scale of the mixup partner, around 1
    mixup_scale: Range = (0.5, 1.5)
    # shear of the affine map in degrees, x and y drawn separately, around 0
    shear: Range = 2.0
    # grey level 0..255 of everything outside the images
    fill: int = 114
    # probability that the mixup partner is mirrored
    mixup_flip_prob: float = 0.5
    # "shift": hue, saturation, value change by up to +-hsv_strength, each switched on with probability 1/2;
    # "gain": they are multiplied by 1 +- hsv_strength
    hsv_kind: str = "shift"
    hsv_strength: tuple[float, float, float] = (5.0, 30.0, 30.0)
    # rotate and scale about the centre of the mosaic, not about its top-left corner
    centred: bool = False
    # drop boxes that the affine map or mixup made too small, too thin or mostly invisible (`surviving`)
    filter_boxes: bool = False
    # cut the letterboxed sides to whole pixels (True) or round them (False), see `fit`
    truncate: bool = True
    # where the final rule leaves no box, fall back to the image before colour and flip with all its boxes (True), or
    # keep the image as background (False)
    keep_last_boxes: bool = True
    # side of the output drawn for every image, input size +- this x 32 pixels; None: always the input size
    image_multiscale: int | None = None

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name.endswith("_prob") and not 0 <= value <= 1:
                raise UserError(f"{field.name} = {value} is not a probability; choose a number from 0 to 1.")
        for name in ("degrees", "translate", "shear", "mosaic_scale", "mixup_scale"):
            is_scale = name.endswith("_scale")
            low, high = value_range(name, getattr(self, name), centre=float(is_scale))
            if is_scale and low <= 0:
                raise UserError(f"{name} = {getattr(self, name)} reaches down to {low}; scales must be above 0.")
            if low > high:
                raise UserError(f"{name} = {getattr(self, name)} is empty; give the lower end first.")
        if self.hsv_kind not in ("shift", "gain"):
            raise UserError(f'hsv_kind = "{self.hsv_kind}" is unknown; choose "shift" or "gain".')
        if not 0 <= self.fill <= 255:
            raise UserError(f"fill = {self.fill} is not a grey level; choose a number from 0 to 255.")


OFFICIAL_RECIPE = AugmentRecipe()
"""As in official YOLOX. Its multi-scale training resizes whole batches, which is not the recipe's business."""

RELEASED_RECIPE = AugmentRecipe(
    mixup_scale=(0.8, 1.6),
    fill=0,
    mixup_flip_prob=0.0,
    hsv_kind="gain",
    hsv_strength=(0.015, 0.7, 0.4),
    centred=True,
    filter_boxes=True,
    truncate=False,
    keep_last_boxes=False,
    image_multiscale=5,
)
"""As in the released models: black fill, no flip in mixup, every image drawn at its own size."""


def draw_size(input_size: tuple[int, int], steps: int, rng: np.random.Generator) -> tuple[int, int]:
    """A uniformly drawn training size (height, width): input size +- `steps` x 32 in height, the width in proportion.

    640 x 640 and 5 steps: the sides 480, 512 ... 800. One draw.
    """
    base = input_size[0] // STRIDE
    rows = int(rng.integers(base - steps, base + steps + 1))
    return STRIDE * rows, STRIDE * int(rows * input_size[1] / input_size[0])


def finish(
    original: Sample, changed: Sample, size: tuple[int, int], fill: int, truncate: bool, keep_last_boxes: bool
) -> Sample:
    """Letterbox `changed` (colour, flip) to `size` (height, width) and drop boxes of at most 1 px.

    If no box stays: keep_last_boxes=True, as in official YOLOX, returns the letterboxed `original` with all of its
    boxes (an image without objects thus stays as it is); False, as in the released models, returns a background image.
    """
    sample = letterbox_sample(changed, size, fill, truncate)
    sample = sample.select(larger_than(sample.boxes, MIN_SIDE))
    if keep_last_boxes and len(sample.boxes) == 0:
        return letterbox_sample(original, size, fill, truncate)
    return sample


def finish_scene(
    scene: Scene,
    colour: Colour | None,
    flipped: bool,
    size: tuple[int, int],
    fill: int,
    truncate: bool,
    keep_last_boxes: bool,
) -> Sample:
    """`finish` of a scene, which is drawn only now: at its final size, its final resize and flip in the warp."""
    final = (scene.flipped() if flipped else scene).fitted(size, truncate)
    final = final.select(larger_than(final.boxes, MIN_SIDE))
    if keep_last_boxes and len(final.boxes) == 0:
        final, colour = scene.fitted(size, truncate), None
    image = render_scene(final, fill)
    if colour is not None:
        image = colour(image)
    if final.size != size:
        image = pad(image, size, fill)
    return Sample(image, final.boxes, final.labels)


class Augment:
    """Turns an image index into a training sample by a recipe.

    Draws from `rng`, in this order (a number in brackets: draws):
    1. use_mosaic only: mosaic gate (1). If it opens: centre y, x (2), the three other tiles (3, by `partner`), angle,
       scale, shear x, y, translation x, y (6). If enable_mixup: mixup gate (1); if it opens: partner (by `partner`),
       scale, flip gate, offset y, x (4).
    2. Colour gate (1); if it opens: three strengths, and for "shift" three switches (6 or 3). Flip gate (1).
    3. With image_multiscale: the size (1).
    The same state of `rng` gives the same sample; the class holds no state of its own.
    """

    def __init__(self, recipe: AugmentRecipe, input_size: tuple[int, int]) -> None:
        """input_size: (height, width) in pixels. Raises UserError if it is too small for recipe.image_multiscale."""
        height, width = input_size
        if recipe.image_multiscale is not None:
            smallest = height // STRIDE - recipe.image_multiscale
            if smallest < 1 or int(smallest * width / height) < 1:
                raise UserError(
                    f"multiscale_range {recipe.image_multiscale} shrinks input_size {height} x {width} below "
                    f"{STRIDE} pixels; choose a smaller range or a larger input size."
                )
        self.recipe = recipe
        self.input_size = (int(height), int(width))

    def __call__(
        self,
        index: int,
        rng: np.random.Generator,
        use_mosaic: bool,
        read: Callable[[int], Sample],
        partner: Callable[[np.random.Generator], int],
    ) -> Sample:
        """One training sample: uint8 [H, W, 3] contiguous, float32 boxes in its pixels.

        read: index -> Sample, never changed here; partner: draws the index of another image for mosaic and mixup.
        """
        recipe = self.recipe
        sample = read(index)
        scene = None
        if use_mosaic and rng.random() < recipe.mosaic_prob:
            scene = self._mosaic(sample, rng, read, partner)
            if recipe.enable_mixup and rng.random() < recipe.mixup_prob:
                scene = self._mixup(scene, rng, read, partner)
            # The fall-back at the end must not bring back boxes without area.
            scene = scene.select(larger_than(scene.boxes, 0.0))

        colour = self._colour(rng) if rng.random() < recipe.hsv_prob else None
        flipped = bool(rng.random() < recipe.flip_prob)
        size = self.input_size
        if recipe.image_multiscale is not None:
            size = draw_size(size, recipe.image_multiscale, rng)
        end = size, recipe.fill, recipe.truncate, recipe.keep_last_boxes
        if scene is not None:
            return finish_scene(scene, colour, flipped, *end)
        changed = replace(sample, image=colour(sample.image)) if colour else sample
        return finish(sample, flip(changed) if flipped else changed, *end)

    def _draw(self, name: str, centre: float, rng: np.random.Generator) -> float:
        """One draw from the range of the recipe's field `name`."""
        low, high = value_range(name, getattr(self.recipe, name), centre)
        return float(rng.uniform(low, high))

    def _mosaic(
        self,
        first: Sample,
        rng: np.random.Generator,
        read: Callable[[int], Sample],
        partner: Callable[[np.random.Generator], int],
    ) -> Scene:
        """Mosaic of `first` (top-left) and three others, warped to the input size."""
        recipe, (height, width) = self.recipe, self.input_size
        centre_y = int(rng.uniform(0.5 * height, 1.5 * height))
        centre_x = int(rng.uniform(0.5 * width, 1.5 * width))
        others = [partner(rng) for _ in range(3)]
        canvas = mosaic([first, *(read(i) for i in others)], (centre_x, centre_y), self.input_size)
        # An object beyond the canvas is now a line on its border, and turned it would become a box around nothing.
        # Neither official YOLOX nor the released models remove it here; we do.
        canvas = canvas.select(larger_than(canvas.boxes, MIN_SIDE))

        angle, scale = self._draw("degrees", 0.0, rng), self._draw("mosaic_scale", 1.0, rng)
        shear = self._draw("shear", 0.0, rng), self._draw("shear", 0.0, rng)
        middle = 0.5 if recipe.centred else 0.0
        translation = self._draw("translate", middle, rng) * width, self._draw("translate", middle, rng) * height
        pivot = (float(width), float(height)) if recipe.centred else (0.0, 0.0)  # x, y; the canvas is twice the input
        matrix = affine_matrix(angle, scale, shear, translation, pivot)
        warped = canvas.warped(matrix, self.input_size)
        if not recipe.filter_boxes:
            return warped
        return warped.select(surviving(canvas.boxes, warped.boxes, scale, AFFINE_MIN_SIDE))

    def _mixup(
        self,
        base: Scene,
        rng: np.random.Generator,
        read: Callable[[int], Sample],
        partner: Callable[[np.random.Generator], int],
    ) -> Scene:
        """Mixup of `base` with one other image."""
        recipe = self.recipe
        other = partner(rng)
        scale = self._draw("mixup_scale", 1.0, rng)
        flipped = bool(rng.random() < recipe.mixup_flip_prob)
        slack_y, slack_x = mixup_slack(self.input_size, scale)
        offset = int(rng.random() * slack_y), int(rng.random() * slack_x)
        return mixup(base, read(other), scale, flipped, offset, recipe.filter_boxes)

    def _colour(self, rng: np.random.Generator) -> Colour:
        """Hue, saturation and value changed at random."""
        strength = rng.uniform(-1.0, 1.0, 3) * np.array(self.recipe.hsv_strength)
        if self.recipe.hsv_kind == "gain":
            hue, saturation, value = (1.0 + strength).tolist()
            return partial(hsv_gain, hue=hue, saturation=saturation, value=value)
        shifts = (strength * rng.integers(0, 2, 3)).astype(int).tolist()  # cut towards zero, as in official YOLOX
        return partial(hsv_shift, hue=shifts[0], saturation=shifts[1], value=shifts[2])
