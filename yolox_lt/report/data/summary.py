"""What a training set looks like before anyone trains on it: frequencies, sizes, and how often a category is drawn."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from yolox_lt.data.annotations.index import COMMON_IMAGES, RARE_IMAGES, AnnotationIndex
from yolox_lt.data.augment.recipe import Augment
from yolox_lt.data.augment.short_side import ShortSideAugment
from yolox_lt.data.dataset import Recipe
from yolox_lt.data.frequency import image_category_pairs
from yolox_lt.report.group_names import GROUP_NAMES

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class TrainingSettings(Protocol):
    """What the figures of a training set need of an experiment, see `DataExp`."""

    sampler: str
    epoch_length: str
    max_epoch: int
    no_aug_epochs: int

    def train_positions(self, index: AnnotationIndex) -> np.ndarray:
        """Images that are trained on."""
        ...

    def get_factors(self, index: AnnotationIndex, positions: np.ndarray) -> np.ndarray:
        """Their repeat factors."""
        ...

    def partner_factors(self, index: AnnotationIndex, positions: np.ndarray) -> np.ndarray | None:
        """Factors by which partners are drawn, None for uniformly."""
        ...

    def iterations_per_epoch(self, factors: np.ndarray, batch_size: int, world: int) -> int:
        """Optimiser steps of an epoch."""
        ...

    def get_augment(self) -> Recipe:
        """The augmentation."""
        ...


GROUP_COLORS = {"r": "#d1495b", "c": "#edae49", "f": "#00798c"}
GROUP_RULES = {"r": f"1-{RARE_IMAGES}", "c": f"{RARE_IMAGES + 1}-{COMMON_IMAGES}", "f": f"over {COMMON_IMAGES}"}

GREY = "#6c757d"
MOST_NAMES = 60
"""Categories up to which the image names them and writes their numbers."""

FEW_NAMES = 8
"""Categories up to which the names stand upright."""

SIZE_NAMES = ("small", "medium", "large")
SIZE_LIMITS = (32**2, 96**2)
"""Areas in pixels of the original image from which a box is medium, and large (COCO)."""


@dataclass(frozen=True)
class Sampling:
    """How one epoch is drawn.

    factors: int64 or float64 [I], repeat factor of each used image.
    iterations: of one epoch. batch_size: images of one step over all ranks.
    partners: images that mosaic and mixup add to a sample on average, see `partners_of`; None where unknown.
    same_partners: they are drawn in proportion to the factors as well, not uniformly.
    """

    factors: np.ndarray
    iterations: int
    batch_size: int
    partners: float | None
    same_partners: bool = False

    @property
    def samples(self) -> int:
        """Training samples of one epoch."""
        return self.iterations * self.batch_size


@dataclass(frozen=True)
class DataSummary:
    """Figures of a training set: I used images of the `listed` ones, N usable boxes in them, C categories.

    groups: "r", "c", "f" [C]. image_counts, instance_counts: int64 [C] over the used images.
    sizes: int64 [C, 3], small, medium and large boxes by the file's "area". areas: float64 [N].
    boxes_per_image: int64 [I].
    repeats: float64 [C], mean repeat factor of the images with the category.
    draws: float64 [C], expected images with the category in one epoch, partners of mosaic and mixup included.
    closing_draws: the same for an epoch without mosaic and mixup.
    gain: float64 [C], `draws` over what uniform sampling with as many partners would draw.
    repeats and gain are NaN for a category without a box.
    """

    path: str
    listed: int
    names: tuple[str, ...]
    category_ids: np.ndarray
    groups: np.ndarray
    image_counts: np.ndarray
    instance_counts: np.ndarray
    sizes: np.ndarray
    areas: np.ndarray
    boxes_per_image: np.ndarray
    sampling: Sampling
    repeats: np.ndarray
    draws: np.ndarray
    closing_draws: np.ndarray
    gain: np.ndarray

    def select(self, group: str | None) -> np.ndarray:
        """bool [C]: the categories of a group, None for all."""
        return np.ones(len(self.groups), bool) if group is None else self.groups == group

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain values for json, NaN as None."""
        sampling, per_image = self.sampling, self.boxes_per_image
        return {
            "annotations": self.path,
            "images_listed": self.listed,
            "images": len(per_image),
            "boxes": int(per_image.sum()),
            "boxes_per_image": {
                "mean": float(per_image.mean()),
                "median": float(np.median(per_image)),
                "max": int(per_image.max()),
                "images_without": int((per_image == 0).sum()),
            },
            "sizes": dict(zip(SIZE_NAMES, self.sizes.sum(axis=0).tolist())),
            "epoch": {
                "iterations": sampling.iterations,
                "batch_size": sampling.batch_size,
                "repeated_list": float(sampling.factors.sum()),
                "largest_repeat_factor": float(sampling.factors.max()),
                "partners_per_sample": sampling.partners,
                "partners_as_the_sampler_draws": sampling.same_partners,
            },
            "groups": [self.group_dict(group) for group in GROUP_NAMES],
            "categories": [self.category_dict(c) for c in range(len(self.names))],
        }

    def group_dict(self, group: str) -> dict[str, Any]:
        """Figures of a frequency group, for json."""
        of = self.select(group)
        return {
            "group": group,
            "categories": int(of.sum()),
            "images": int(self.image_counts[of].sum()),
            "boxes": int(self.instance_counts[of].sum()),
            **dict(zip(SIZE_NAMES, self.sizes[of].sum(axis=0).tolist())),
            "draws_per_epoch": float(self.draws[of].sum()),
            "gain_over_uniform": number(self.group_gain(group)),
        }

    def group_gain(self, group: str | None) -> float:
        """`gain` of the categories of a group together, NaN for a group without boxes."""
        of = self.select(group) & (self.image_counts > 0)
        uniform = (self.draws[of] / self.gain[of]).sum()
        return float(self.draws[of].sum() / uniform) if uniform > 0 else math.nan

    def category_dict(self, c: int) -> dict[str, Any]:
        """Figures of a category, for json."""
        return {
            "id": int(self.category_ids[c]),
            "name": self.names[c],
            "group": str(self.groups[c]),
            "images": int(self.image_counts[c]),
            "boxes": int(self.instance_counts[c]),
            **dict(zip(SIZE_NAMES, self.sizes[c].tolist())),
            "repeat_factor": number(self.repeats[c]),
            "draws_per_epoch": float(self.draws[c]),
            "draws_per_closing_epoch": float(self.closing_draws[c]),
            "gain_over_uniform": number(self.gain[c]),
        }


def number(value: float) -> float | None:
    """json has no NaN."""
    return None if math.isnan(value) else float(value)


def partners_of(augment: Recipe) -> float | None:
    """Images that mosaic and mixup add to the first one of a strong sample on average; None for an unknown recipe.

    A mosaic adds three, mixup one more, and mixup only follows a mosaic: mosaic_prob * (3 + mixup_prob).
    """
    if isinstance(augment, Augment):
        recipe = augment.recipe
        return recipe.mosaic_prob * (3 + (recipe.mixup_prob if recipe.enable_mixup else 0.0))
    return 0.0 if isinstance(augment, ShortSideAugment) else None


def expected_draws(
    image: np.ndarray,
    category: np.ndarray,
    num_categories: int,
    factors: np.ndarray,
    samples: int,
    partners: float,
    same_partners: bool = False,
) -> np.ndarray:
    """Expected images with each category float64 [C] among those drawn for `samples` training samples.

        draws_c = samples * (sum of r_i over the images with c / sum of all r_i + partners * n_c / I)

    The first image of a sample is drawn in proportion to its repeat factor r_i. Partners are uniform over the I
    images, n_c of which hold the category, so they dilute what the sampler does (as in the released models); with
    `same_partners` they are drawn as the first image is. An image counts as often as it is drawn, before the mosaic's
    canvas cuts parts of it away.

    Args:
        image, category: int64 [M], the distinct pairs of `image_category_pairs`.
        factors: [I], repeat factors.
    """
    first = np.bincount(category, weights=factors[image].astype(float), minlength=num_categories) / factors.sum()
    uniform = np.bincount(category, minlength=num_categories) / len(factors)
    return samples * (first + partners * (first if same_partners else uniform))


def summarize(index: AnnotationIndex, positions: np.ndarray, sampling: Sampling) -> DataSummary:
    """Figures of the images at `positions` int64 [I] of the index."""
    num_categories, num_images = len(index.category_ids), len(positions)
    image, category, _ = image_category_pairs(index, positions)
    image_counts = np.bincount(category, minlength=num_categories)
    place = np.full(len(index), -1)
    place[positions] = np.arange(num_images)
    box_image = place[np.repeat(np.arange(len(index)), np.diff(index.box_offsets))]  # -1: image not used
    used = np.asarray(index.usable) & (box_image >= 0)
    labels, areas = np.asarray(index.labels)[used], np.asarray(index.areas)[used]
    size = np.searchsorted(SIZE_LIMITS, areas, side="right")
    groups = index.groups(image_counts)
    assert groups is not None  # image counts were given
    factors, samples, partners = sampling.factors, sampling.samples, sampling.partners or 0.0
    draws = expected_draws(image, category, num_categories, factors, samples, partners, sampling.same_partners)
    ones = np.ones(num_images)
    uniform = expected_draws(image, category, num_categories, ones, samples, partners)
    repeated = np.bincount(category, weights=factors[image].astype(float), minlength=num_categories)
    with np.errstate(invalid="ignore"):  # 0 / 0 for a category without a box
        repeats, gain = repeated / image_counts, draws / uniform
    return DataSummary(
        path=str(index.path),
        listed=len(index),
        names=index.category_names,
        category_ids=np.asarray(index.category_ids),
        groups=groups,
        image_counts=image_counts,
        instance_counts=np.bincount(labels, minlength=num_categories),
        # (category, size) -> category * 3 + size -> [C, 3]
        sizes=np.bincount(labels * 3 + size, minlength=3 * num_categories).reshape(num_categories, 3),
        areas=areas,
        boxes_per_image=np.bincount(box_image[used], minlength=num_images),
        sampling=sampling,
        repeats=repeats,
        draws=draws,
        closing_draws=expected_draws(image, category, num_categories, factors, samples, 0.0),
        gain=gain,
    )


def summarize_training(exp: TrainingSettings, index: AnnotationIndex, batch_size: int) -> DataSummary:
    """Figures of an experiment's training images, one process, `batch_size` images a step."""
    positions = exp.train_positions(index)
    factors = exp.get_factors(index, positions)
    iterations, partners = exp.iterations_per_epoch(factors, batch_size, 1), partners_of(exp.get_augment())
    same_partners = exp.partner_factors(index, positions) is not None
    return summarize(index, positions, Sampling(factors, iterations, batch_size, partners, same_partners))


def plot_summary(summary: DataSummary, path: Path) -> None:
    """Plot: images and draws of every category, boxes of an image, sizes of boxes, repeat factors."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(11, 8), layout="constrained")
    FigureCanvasAgg(figure)
    top, per_image, sides, factors = figure.subplot_mosaic(
        [["a", "a", "a"], ["b", "c", "d"]], height_ratios=(1.5, 1)
    ).values()
    plot_categories(top, summary)
    counts = np.bincount(summary.boxes_per_image)
    per_image.bar(np.arange(len(counts)), counts, width=1.0, color=GREY)
    per_image.set(xlabel="boxes of an image", ylabel="images")
    plot_sides(sides, summary.areas)
    values = summary.sampling.factors
    edges = np.arange(0.5 if values.min() >= 0.5 else -0.5, max(math.ceil(values.max()), 3) + 1)
    factors.hist(values, edges.tolist(), color=GREY)
    factors.set(yscale="log", ylim=(0.5, None), xlabel="repeat factor of an image", ylabel="images")
    factors.xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.savefig(path, dpi=120)


def plot_categories(axes: Axes, summary: DataSummary) -> None:
    """Bars of images in the colours of the groups, and a line of draws; names where there is room."""
    order = np.argsort(-summary.image_counts, kind="stable")
    edges = np.arange(len(order) + 1) - 0.5
    for group, name in GROUP_NAMES.items():
        mask = summary.groups[order] == group
        if mask.any():  # other groups' steps have no height; one outline a group is drawn faster than 1203 bars
            heights = np.where(mask, np.maximum(summary.image_counts[order], 0.5), 0.5)
            color, label = GROUP_COLORS[group], f"{name}: images"
            axes.stairs(heights, edges, baseline=0.5, fill=True, color=color, label=label)
    axes.stairs(summary.draws[order], edges, baseline=None, color="black", label="images drawn in one epoch")
    # A category without images has no bar and no line.
    most = 2 * max(summary.image_counts.max(), summary.draws.max())
    # Few categories leave room for the legend beside them.
    axes.set(yscale="log", ylim=(0.5, most), xlim=(-0.5, max(len(order), FEW_NAMES) - 0.5), ylabel="images")
    axes.set_title(f"{Path(summary.path).name}: {len(order):,} categories, most frequent first")
    if len(order) <= MOST_NAMES:
        names = [summary.names[c][:28] for c in order]
        axes.set_xticks(np.arange(len(order)), names, rotation=90 if len(order) > FEW_NAMES else 0)
        for place, count in enumerate(summary.image_counts[order].tolist()):
            axes.text(place, max(count, 0.5), f"{count:,}", ha="center", va="bottom", fontsize=7)
    axes.legend(loc="upper right")


def plot_sides(axes: Axes, areas: np.ndarray) -> None:
    """Histogram of the square roots of areas, with the limits of small, medium and large."""
    sides = np.sqrt(np.maximum(areas, 1.0))
    if len(sides):
        edges = np.geomspace(sides.min(), max(sides.max(), 1.1 * sides.min()), 41)
        axes.hist(sides, edges.tolist(), color=GREY)
    for limit in SIZE_LIMITS:
        axes.axvline(math.sqrt(limit), color="black", linewidth=1, linestyle=":")
    axes.set(xscale="log", xlabel="side of a box in pixels (root of its area)", ylabel="boxes")
    low, high = axes.get_xlim()
    ticks = [side for side in (1, 2, 4, 8, 16, 32, 96, 256, 512, 1024, 2048) if low <= side <= high]
    axes.set_xticks(ticks, [str(side) for side in ticks])
    axes.set_xticks([], minor=True)
