"""Settings chosen from a user's own data, each with its reason: pure functions of a few facts about the images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from yolox_lt.data.annotations.index import AnnotationIndex
from yolox_lt.data.dataset import ImageStore
from yolox_lt.data.image_file import BadImageError

LEGIBLE = 20.0
"""Pixels of the network's input that the median object should have (square root of its area). Our choice: 109 music
symbols with a median of 13 pixels gained 9.5 AP from an input 1.5 times larger (900 steps of batch 8, one seed)."""

SMALL = 32.0
"""Median side in input pixels below which mosaic is off. Our choice: at 13 pixels it cost 4.8 AP on the same data."""

FEW_PASSES = 10.0
"""Passes over the images below which mosaic is off. Our choice: in 7 passes over 1,000 images of 60 glyphs it cost 1.7
to 3.0 AP (three seeds, two inputs); in 12 over 205 and 20 over 242 images the difference was -1.2 to +0.7."""

PRETRAINED_SIDE = 416.0
"""Pixels of the input's longer side at least, up to twice the image: what YOLOX-Nano's weights were trained with.
Glyphs in images of 192 pixels gained 10 AP from an input of 384 (600 steps of batch 8, one seed), in three times the
time."""

LONGEST_SIDE = 960
"""Pixels of the input's longer side at most: the time of a step grows with the area. Our choice."""

PASSES = 30
FEWEST, MOST = 1500, 30_000
"""Without a budget: `PASSES` over the training images, but at least `FEWEST` and at most `MOST` iterations."""

RARE_SHARE = 0.05
"""Share of the images below which a category is repeated."""

LOOKED_AT = 20
WHITE = 224
PAGE = 0.5
"""Images whose pixels are looked at, lowest level of a white pixel in all three channels, and the share of white pixels
from which images are taken for pages (text, music, drawings), whose symbols are others when mirrored. MUSCIMA++ has
0.88, photographs of COCO 0.03; without flips it gained 1.9 AP (300 steps of batch 8, one seed). Shares: our choice."""

FINDABLE = 8.0
"""Side of the median object in input pixels below which the user is told to cut the images into tiles: one cell of the
finest level. Our choice."""

EPOCHS = 10
EVAL_EVERY = 3
SHORTEST_AVERAGE = 100.0
"""The run is cut into ten epochs whatever their number of images, with evaluations after epochs 3, 6, 9 and 10; weights
are averaged over at least this many iterations. Our choices."""

MODELS: dict[str, dict[str, Any]] = {
    "yolox-nano": {"depth": 0.33, "width": 0.25, "depthwise": True},
    "yolox-tiny": {"depth": 0.33, "width": 0.375, "depthwise": False},
    "yolox-s": {"depth": 0.33, "width": 0.5, "depthwise": False},
    "yolox-m": {"depth": 0.67, "width": 0.75, "depthwise": False},
    "yolox-l": {"depth": 1.0, "width": 1.0, "depthwise": False},
    "yolox-x": {"depth": 1.33, "width": 1.25, "depthwise": False},
}


class Choice(NamedTuple):
    """A setting, its value, and why: one short sentence with the figures it rests on."""

    name: str
    value: Any
    reason: str

    def __str__(self) -> str:
        return f"{self.name} {self.value!r} ({self.reason})"


@dataclass(frozen=True)
class DataFacts:
    """What the choices rest on, of the training images.

    images, categories, boxes: numbers; boxes are the usable ones. empty: images without a box. height, width: median
    size of the images in pixels. object_side: median of the square root of a box's area in pixels of the image.
    rare: categories in fewer than `RARE_SHARE` of the images. fewest: images of the rarest category with any. white:
    median share of white pixels in some of the images.
    """

    images: int
    categories: int
    boxes: int
    empty: int
    height: float
    width: float
    object_side: float
    rare: int
    fewest: int
    white: float = 0.0


def white_share(store: ImageStore, skip_bad_images: bool = False) -> float:
    """Median share of white pixels in some of the images, 0..1.

    Raises:
        BadImageError: an image that cannot be read, unless those are to be skipped.
    """
    shares = []
    for position in np.unique(np.linspace(0, len(store.index) - 1, LOOKED_AT).astype(int)).tolist():
        try:
            shares.append(float((store.read(position).min(axis=2) >= WHITE).mean()))
        except BadImageError:
            if not skip_bad_images:
                raise
    return float(np.median(shares)) if shares else 0.0


def data_facts(index: AnnotationIndex, white: float = 0.0) -> DataFacts:
    """The facts of a training index and of its images' `white_share`."""
    boxes = index.boxes[index.usable]
    holders = np.repeat(np.arange(len(index)), np.diff(index.box_offsets))[index.usable]
    height, width = np.median(index.sizes, axis=0)
    present = index.image_counts[index.image_counts > 0]
    return DataFacts(
        images=len(index),
        categories=len(index.category_ids),
        boxes=len(boxes),
        empty=len(index) - len(np.unique(holders)),
        height=float(height),
        width=float(width),
        object_side=float(np.median(np.sqrt(boxes[:, 2] * boxes[:, 3]))) if len(boxes) else 0.0,
        rare=int((index.image_counts < RARE_SHARE * len(index)).sum()),
        fewest=int(present.min()) if len(present) else 0,
        white=white,
    )


def default_iterations(facts: DataFacts, batch: int) -> Choice:
    """Length of a run without a budget."""
    wanted = round(PASSES * facts.images / batch)
    found = min(max(wanted, FEWEST), MOST)
    return Choice(
        "iterations",
        found,
        f"{found * batch / max(facts.images, 1):.0f} passes over {facts.images:,} images (no --budget)",
    )


def input_size(facts: DataFacts) -> Choice:
    """(height, width), multiples of 32, in the images' aspect ratio."""
    longest = max(facts.height, facts.width)
    wanted = longest * LEGIBLE / max(facts.object_side, 1.0)
    side = min(max(wanted, PRETRAINED_SIDE), LONGEST_SIDE, 2 * longest)
    scale = side / longest
    size = tuple(max(32, 32 * round(scale * length / 32)) for length in (facts.height, facts.width))
    seen = facts.object_side * scale
    return Choice(
        "input_size",
        size,
        f"the median object has {facts.object_side:.0f} pixels in images of {facts.width:.0f} x {facts.height:.0f} "
        f"(width x height) and gets {seen:.0f}",
    )


def object_side_seen(facts: DataFacts, size: Sequence[int]) -> float:
    """Side of the median object in pixels of an input of (height, width)."""
    return facts.object_side * min(size[0] / facts.height, size[1] / facts.width)


def with_size_note(size: Choice, facts: DataFacts) -> Choice:
    """The choice of an input, whose reason says where most objects are too small in it."""
    seen = object_side_seen(facts, size.value)
    if seen >= FINDABLE:
        return size
    note = f"{seen:.0f} is less than a cell of {FINDABLE:.0f} pixels: cut the images into tiles, or give a larger one"
    return size._replace(reason=f"{size.reason}; {note}")


def choose(
    facts: DataFacts, iterations: Choice, batch: int, model: str, given: tuple[int, int] | None = None
) -> list[Choice]:
    """Every setting of the run, in the order in which it is printed.

    Args:
        iterations: of the whole run. batch: images of a step. model: a key of `MODELS`.
        given: input (height, width) in pixels that the user sets; what depends on it follows.
    """
    size = input_size(facts)
    if given is not None:
        size = Choice("input_size", given, f"given on the command line; chosen was {size.value!r}")
    size = with_size_note(size, facts)
    seen = object_side_seen(facts, size.value)
    steps = int(iterations.value)
    epochs = min(EPOCHS, steps)
    each = max(steps // epochs, 1)
    horizon = max(steps / 5, SHORTEST_AVERAGE)
    share = "a fifth of the run" if horizon > SHORTEST_AVERAGE else "the least"
    rate = 0.004 * math.sqrt(batch / 8) / batch
    return [
        *(Choice(name, value, f"{model}") for name, value in MODELS[model].items()),
        Choice("start_from", model, "weights trained on COCO, of the same structure"),
        size,
        Choice("test_size", size.value, "as in training"),
        Choice("multiscale_range", 0, "one size: the objects keep theirs"),
        Choice("epoch_iters", each, f"{epochs * each:,} iterations in {epochs} epochs: {iterations.reason}"),
        Choice("max_epoch", epochs, f"an epoch is {each * batch / max(facts.images, 1):.1f} passes over the images"),
        Choice("warmup_epochs", 0.5, f"{0.5 / epochs:.0%} of the run"),
        Choice("no_aug_epochs", 1, "the last epoch has whole images only"),
        Choice("eval_interval", EVAL_EVERY, f"evaluations after each {EVAL_EVERY} epochs and at the end"),
        Choice("optimizer", "adamw", "AP 8.3 after 900 steps where SGD reached 3.7 (109 music symbols, one seed)"),
        Choice(
            "basic_lr_per_img",
            float(f"{rate:.3g}"),
            f"{rate * batch:.2g} a step of {batch}: 0.004 at 8, times the root",
        ),
        Choice("ema_decay", round(1 - 1 / horizon, 5), f"averages over {horizon:.0f} iterations, {share}"),
        Choice("ema_ramp", float(round(horizon)), "the average follows quickly at first"),
        Choice("prior_prob", 0.01, "AP 8.9 after 600 steps where 0.001 reached 3.4 (640 glyphs, one seed)"),
        Choice("fresh_std", 0.001, "the scores of a new classifier start at prior_prob"),
        sampling(facts),
        Choice("repeat_thresh", RARE_SHARE, f"a category in fewer than {RARE_SHARE:.0%} of the images is repeated"),
        Choice(
            "keep_empty", True, f"{facts.empty:,} of {facts.images:,} images have no object: they teach what is none"
        ),
        mosaic(seen, epochs * each * batch / max(facts.images, 1)),
        Choice("mosaic_scale", (0.8, 1.5), "objects keep about their size"),
        Choice("enable_mixup", False, "off, as in the official small models"),
        flips(facts),
        Choice("cls_loss", "qfl", "EQFL did not differ on 1,193 images of 109 categories, where its g was 1"),
    ]


def sampling(facts: DataFacts) -> Choice:
    """Repeat-factor sampling where it repeats something."""
    if facts.rare == 0:
        return Choice(
            "sampler",
            "uniform",
            f"every category is in {RARE_SHARE:.0%} of the images or more: nothing would be repeated",
        )
    return Choice(
        "sampler",
        "repeat_factor",
        f"{facts.rare} of {facts.categories} categories are in fewer than {RARE_SHARE:.0%} of the images, the rarest "
        f"in {facts.fewest}",
    )


def mosaic(seen: float, passes: float) -> Choice:
    """Mosaic where objects stay large enough and the images are seen often.

    Args:
        seen: side of the median object in input pixels. passes: over the images in the whole run.
    """
    size = f"the median object has {seen:.0f} input pixels"
    if seen < SMALL:
        return Choice("mosaic_prob", 0.0, f"{size}; off below {SMALL:.0f} (it cost 4.8 AP at 13)")
    if passes < FEW_PASSES:
        return Choice(
            "mosaic_prob", 0.0, f"{passes:.1f} passes over the images; off below {FEW_PASSES:.0f} (it cost 1.7 AP in 7)"
        )
    return Choice(
        "mosaic_prob",
        0.5,
        f"{size} and each image is seen {passes:.0f} times; off below {SMALL:.0f} pixels or {FEW_PASSES:.0f} times",
    )


def flips(facts: DataFacts) -> Choice:
    """Mirrored images, but for pages."""
    white = f"the median image is {facts.white:.0%} white"
    if facts.white < PAGE:
        return Choice("flip_prob", 0.5, f"{white}; no flips from {PAGE:.0%} on: pages, whose symbols have a direction")
    return Choice("flip_prob", 0.0, f"{white}, so it is taken for a page, whose symbols are others when mirrored")
