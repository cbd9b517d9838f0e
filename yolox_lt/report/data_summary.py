"""What a training set looks like before anyone trains on it: frequencies, repeats, epoch length, problems."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from yolox_lt.data.dataset import ImageStore
from yolox_lt.data.frequency import image_category_pairs
from yolox_lt.data.index import COMMON_IMAGES, RARE_IMAGES, AnnotationIndex
from yolox_lt.data.sampler import iterations_per_epoch
from yolox_lt.report.draw import draw_boxes

GROUP_NAMES = {"r": "rare", "c": "common", "f": "frequent"}


@dataclass
class DataSummary:
    """Figures of a training set of I used images and C categories.

    images, boxes: used images and their usable boxes. boxes_per_image: mean.
    image_counts, instance_counts: int64 [C] over the used images. groups: "r", "c", "f" [C].
    draws: float64 [C], expected images with the category in one pass over the repeated list (partners of mosaic and
        mixup not
    counted). repeated_images: length of that list. iterations: per epoch.
    problems: what the reader found, name -> count. unused: names of categories without a usable box.
    """

    path: str
    images: int
    boxes: int
    boxes_per_image: float
    names: tuple[str, ...]
    category_ids: np.ndarray
    image_counts: np.ndarray
    instance_counts: np.ndarray
    groups: np.ndarray
    draws: np.ndarray
    repeated_images: float
    max_factor: float
    iterations: int
    problems: dict[str, int]
    unused: list[str]


def summarize(
    index: AnnotationIndex, positions: np.ndarray, factors: np.ndarray, epoch_images: int, batch_size: int
) -> DataSummary:
    """Figures of the images at `positions` with repeat factors `factors` (both [I])."""
    image, category, _ = image_category_pairs(index, positions)
    num_categories = len(index.category_ids)
    image_counts = np.bincount(category, minlength=num_categories)
    box_image = np.repeat(np.arange(len(index)), np.diff(index.box_offsets))
    used = np.asarray(index.usable) & np.isin(box_image, positions)
    instance_counts = np.bincount(np.asarray(index.labels)[used], minlength=num_categories)
    groups = index.groups(image_counts)
    assert groups is not None  # image counts were given
    return DataSummary(
        path=str(index.path),
        images=len(positions),
        boxes=int(used.sum()),
        boxes_per_image=float(used.sum() / max(len(positions), 1)),
        names=index.category_names,
        category_ids=np.asarray(index.category_ids),
        image_counts=image_counts,
        instance_counts=instance_counts,
        groups=groups,
        draws=np.bincount(category, weights=factors[image].astype(float), minlength=num_categories),
        repeated_images=float(factors.sum()),
        max_factor=float(factors.max()),
        iterations=iterations_per_epoch(epoch_images, 1, batch_size),
        problems={k: v for k, v in index.problems.items() if v},
        unused=[name for name, count in zip(index.category_names, image_counts) if count == 0],
    )


def group_rows(summary: DataSummary) -> list[list[str]]:
    """Table: one row per frequency group."""
    rows = [["group", "train images", "categories", "images", "boxes", "draws per pass"]]
    rules = {"r": f"1-{RARE_IMAGES}", "c": f"{RARE_IMAGES + 1}-{COMMON_IMAGES}", "f": f"over {COMMON_IMAGES}"}
    for group, name in GROUP_NAMES.items():
        mask = summary.groups == group
        rows.append(
            [
                name,
                rules[group],
                f"{mask.sum():,}",
                f"{summary.image_counts[mask].sum():,}",
                f"{summary.instance_counts[mask].sum():,}",
                f"{summary.draws[mask].sum():,.0f}",
            ]
        )
    return rows


def category_rows(summary: DataSummary, most: int = 20) -> list[list[str]]:
    """Table: the rarest and the most frequent categories, at most `most` rows (0: all)."""
    order = np.argsort(summary.image_counts, kind="stable")
    if most and len(order) > most:
        order = np.concatenate([order[: most // 2], order[-(most - most // 2) :]])
    rows = [["id", "name", "group", "images", "boxes", "draws per pass"]]
    for c in order.tolist():
        rows.append(
            [
                str(summary.category_ids[c]),
                summary.names[c],
                str(summary.groups[c]),
                f"{summary.image_counts[c]:,}",
                f"{summary.instance_counts[c]:,}",
                f"{summary.draws[c]:,.1f}",
            ]
        )
    return rows


def format_rows(rows: list[list[str]]) -> str:
    """Aligned text: the first two columns to the left, numbers to the right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [c.ljust(w) if i < 2 else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths))]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def plot_counts(summary: DataSummary, path: Path) -> None:
    """Picture: images and expected draws of every category, most frequent first."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    order = np.argsort(-summary.image_counts, kind="stable")
    ranks = np.arange(len(order))
    colors = {"r": "#d1495b", "c": "#edae49", "f": "#00798c"}
    for group, name in GROUP_NAMES.items():
        mask = summary.groups[order] == group
        axes.bar(
            ranks[mask], summary.image_counts[order][mask], width=1.0, color=colors[group], label=f"{name}: images"
        )
    axes.step(ranks, summary.draws[order], where="mid", color="black", linewidth=1, label="draws in one pass")
    axes.set_yscale("log")
    axes.set_xlabel("category, most frequent first")
    axes.set_ylabel("images")
    axes.legend()
    figure.savefig(path, dpi=120)


def draw_samples(store: ImageStore, positions: np.ndarray, folder: Path, count: int, seed: int = 0) -> list[Path]:
    """Pictures of `count` random training images with their boxes and names."""
    chosen = np.random.default_rng(seed).permutation(positions)[:count]
    paths = []
    for p in chosen.tolist():
        labels = store.index.labels_of(p)
        texts = [store.index.category_names[label] for label in labels]
        path = folder / f"labels_{int(store.index.image_ids[p])}.jpg"
        cv2.imwrite(str(path), draw_boxes(store.read(p), store.index.boxes_of(p), labels, texts))
        paths.append(path)
    return paths
