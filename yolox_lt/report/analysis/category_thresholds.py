"""The thresholds of a checkpoint's categories, from the detections of an evaluation."""

from __future__ import annotations

import numpy as np
import torch

from yolox_lt.calibrate.calibrator_state import Thresholds
from yolox_lt.calibrate.choose import choose, measured, pooled
from yolox_lt.data.annotations.index import AnnotationIndex
from yolox_lt.data.columns import Floats, Ints, distinct, look_up
from yolox_lt.evaluate.metrics import Report
from yolox_lt.evaluate.protocols import listed_codes
from yolox_lt.evaluate.results import DetectionArrays
from yolox_lt.report.analysis.thresholds import ScoredDetections
from yolox_lt.report.group_names import GROUP_NAMES


def category_thresholds(
    index: AnnotationIndex,
    detections: DetectionArrays,
    report: Report,
    labels: Ints | None = None,
    precision: float | None = None,
    fixed: float | None = None,
) -> Thresholds:
    """Thresholds of every category of the model at IoU 0.5, see `choose` and `image_weights`.

    Args:
        index: the annotations. detections: as they were scored. report: their score, `status` in their order.
        labels: int64 [C], label of each of the model's categories in `index`, see `Evaluator`; those that the file does
            not list get the best threshold of all categories in one list.
        precision: as for `choose`. fixed: this score for all categories instead.
    """
    scored = ScoredDetections.of(index, detections, report)
    columns = scored.labels, scored.scores, scored.hit, report.box_counts
    weights = image_weights(index, scored.labels, scored.images)
    everything = pooled(np.ones(len(report.box_counts), bool), *columns, weights) if precision is None else float("nan")
    chosen, rule = choose(*columns, report.groups, precision, weights), "best F1"
    if precision is not None:
        rule = f"precision {precision:g}"
    if fixed is not None:
        chosen, everything, rule = (
            measured(np.full(len(report.box_counts), fixed), *columns, weights),
            fixed,
            f"{fixed:g} for all",
        )
    own = np.arange(len(report.box_counts)) if labels is None else labels
    values = [
        np.where(own < 0, other, column[own]).astype(np.float32)
        for column, other in ((chosen.conf, everything), (chosen.precision, np.nan), (chosen.recall, np.nan))
    ]
    return Thresholds(rule, *map(torch.from_numpy, values))


def image_weights(index: AnnotationIndex, labels: Ints, images: Ints) -> Floats:
    """For how many images each detection's one stands, float64 [K]; labels, images: int64 [K], positions in the index.

    With federated lists a category is looked for in P images that have it and N that have not. Those N stand for all
    I - P others, as if the category were in none of them: (I - P) / N each. Every other image stands for itself.
    """
    count = len(index.category_ids)
    boxes = listed_codes(index.box_offsets, index.labels, count)
    listed = listed_codes(index.positive_offsets, index.positive_labels, count)
    present = distinct(np.concatenate([boxes, listed]))
    absent = distinct(listed_codes(index.negative_offsets, index.negative_labels, count))
    absent = absent[~look_up(absent, present)[1]]
    others = len(index) - np.bincount(present % count, minlength=count)
    weights = others / np.bincount(absent % count, minlength=count).clip(min=1)
    return np.where(look_up(images * count + labels, absent)[1], weights[labels], 1.0)


def group_means(thresholds: Thresholds, groups: np.ndarray | None) -> list[tuple[str, int, np.ndarray]]:
    """(group, categories, means float64 [4] of threshold, precision, recall, F1) for all ("") and each frequency group.

    Means are over the categories that have a value; NaN where none has. groups: letters [C] of the model's categories.
    """
    columns = thresholds.conf, thresholds.precision, thresholds.recall
    conf, precision, recall = (column.double().numpy() for column in columns)
    with np.errstate(invalid="ignore"):
        f1 = np.nan_to_num(2 * precision * recall / (precision + recall))
    f1 = np.where(np.isnan(recall), np.nan, f1)
    letters = np.full(len(conf), "") if groups is None else groups
    found = []
    for group in ("", *GROUP_NAMES):
        members = np.ones(len(conf), bool) if group == "" else letters == group
        values = [column[members & ~np.isnan(column)] for column in (conf, precision, recall, f1)]
        if members.any():
            found.append((group, int(members.sum()), np.array([v.mean() if len(v) else np.nan for v in values])))
    return found


def thresholds_text(thresholds: Thresholds, names: tuple[str, ...], groups: np.ndarray | None) -> str:
    """Mean precision, recall and F1 by group at the thresholds, and the categories that reach no precision, by name."""
    lines = [f"thresholds of the categories by {thresholds.rule}, means at IoU 0.5 in percent"]
    lines.append(f"{'':10}{'threshold':>10}{'precision':>10}{'recall':>10}{'F1':>10}")
    for group, _, means in group_means(thresholds, groups):
        cells = "".join(f"{'-' if np.isnan(v) else f'{100 * v:.1f}':>10}" for v in means)
        lines.append(f"{GROUP_NAMES.get(group, 'all'):10}{cells}")
    missing = [name for name, value in zip(names, thresholds.conf.tolist()) if np.isnan(value)]
    if missing:
        lines.append(f"not reachable, so nothing is reported: {', '.join(missing)}")
    return "\n".join(lines)
