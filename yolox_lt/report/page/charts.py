"""The charts of a report, each from plain arrays of C categories; NaN is left out of every mean and median.

Groups are an array of "r", "c", "f" or "" [C]; where no group is known there is one line for all categories.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from yolox_lt.data.columns import Floats, Ints
from yolox_lt.report.analysis.thresholds import THRESHOLDS
from yolox_lt.report.analysis.tide import KINDS
from yolox_lt.report.page.chart import (
    Chart,
    Series,
    column_means,
    group_name,
    members,
    running_median,
    thinned,
)

RECALLS = np.linspace(0, 1, 101)
LOGITS = np.linspace(-5, 5, 201)
"""x_t of the loss curves: the logit of a positive, minus the logit of a negative."""

METRICS = {"AP": "all", "APr": "r", "APc": "c", "APf": "f"}


def losses_chart(columns: Mapping[str, Sequence[float]], x: Sequence[float], x_label: str) -> Chart:
    """Every loss over x (epochs or iterations), from columns of metrics.csv or metrics.jsonl, "loss" being the sum."""
    skipped = {"epoch", "iteration", "lr", "images/s", "memory_MB"}
    names = list(columns)
    names = [n for n in (names[: names.index("lr")] if "lr" in names else names) if n not in skipped]
    series = []
    for i, name in enumerate(sorted(names, key=lambda n: n != "loss")):
        xs, ys = thinned(np.array(x, np.float64), np.array(columns[name], np.float64))
        label = "sum" if name == "loss" else name
        series.append(Series(label, "all" if name == "loss" else str((i - 1) % 6), xs, ys))
    return Chart("losses", "Losses", x_label, "loss", series)


def rate_chart(rate: Sequence[float], x: Sequence[float], x_label: str) -> Chart:
    """Learning rate over x."""
    xs, ys = thinned(np.array(x, np.float64), np.array(rate, np.float64))
    return Chart("rate", "Learning rate", x_label, "learning rate", [Series("lr", "0", xs, ys)])


def ap_chart(columns: Mapping[str, Sequence[float]], epochs: Sequence[float]) -> Chart:
    """AP of all categories and of the groups, in percent, at the epochs that were evaluated."""
    series = []
    for name, color in METRICS.items():
        y = 100 * np.array(columns.get(name, []), np.float64)
        there = np.isfinite(y)
        alone = name != "AP" and "AP" in columns and np.array_equal(y, 100 * np.array(columns["AP"]), equal_nan=True)
        if there.any() and not alone:  # a group that holds all categories has their line
            series.append(Series(name, color, np.array(epochs, np.float64)[there], y[there]))
    return Chart("ap", "AP", "epoch", "AP, percent", series)


def balance_chart(epochs: Ints, ratio: np.ndarray, groups: np.ndarray) -> Chart:
    """Median and quartiles of g [E, C] over the categories of each group, epoch by epoch."""
    masks = members(groups if len(groups) else np.full(ratio.shape[1], ""), everything=False)
    series = []
    for group, mask in masks.items():
        low, middle, high = np.quantile(ratio[:, mask].astype(np.float64), [0.25, 0.5, 0.75], axis=1)
        series.append(Series(group_name(group), group, epochs.astype(np.float64), middle, low=low, high=high))
    note = "Line: median over the categories of a group; band: the middle half of them. g = 1 is balanced."
    return Chart("balance", "Balance g over epochs", "epoch", "g", series, note, **_axis_of_ratio(ratio))


def balance_by_images_chart(ratio: np.ndarray, images: Ints, groups: np.ndarray) -> Chart:
    """Final g [C] of every category against its training images [C]."""
    series = []
    for group, mask in members(groups, everything=False).items():
        at = np.flatnonzero(mask)
        y = ratio[at].astype(np.float64)
        series.append(Series(group_name(group), group, images[at].astype(np.float64), y, "points", items=at))
    note = (
        "One point is one category, those without training images left out. The loss lifts categories with a small g."
    )
    title = "Balance g and training images"
    axis = _axis_of_ratio(ratio)
    return Chart("balance_images", title, "training images", "g", series, note, x_log=True, **axis)


def precision_chart(precision: np.ndarray, groups: np.ndarray) -> Chart:
    """Mean precision over categories at IoU 0.5 for every recall; precision [C, 101]."""
    series = [Series(group_name(g), g, RECALLS, column_means(precision[mask])) for g, mask in members(groups).items()]
    note = "Mean over categories, IoU 0.5."
    return Chart("pr", "Precision and recall", "recall", "precision", series, note, y_range=(0, 1.02))


def f1_chart(f1: np.ndarray, groups: np.ndarray) -> Chart:
    """Mean F1 over categories for every score threshold; f1 [C, 101]."""
    series = [Series(group_name(g), g, THRESHOLDS, column_means(f1[mask])) for g, mask in members(groups).items()]
    note = "Mean over categories, IoU 0.5. Peaks at different thresholds: one threshold does not suit all groups."
    return Chart("f1", "F1 and score threshold", "score threshold", "F1", series, note, y_range=(0, 1.02))


def gradient_ratio_chart(pos_grad: np.ndarray, neg_grad: np.ndarray, order: Ints, groups: np.ndarray) -> Chart:
    """Log10 of the ratio of summed positive to negative gradients [C], the categories in the order `order` [C].

    A category with no gradients of one kind has no point.

    After Figure 2 of the EFL paper, which shows the ratio of the numbers of samples before training.
    """
    positive, negative = pos_grad.astype(np.float64), neg_grad.astype(np.float64)
    both = (positive > 0) & (negative > 0)
    ratio = np.log10(np.divide(positive, negative, out=np.ones(len(positive)), where=both))
    ratio[~both] = np.nan
    place = places_of(order)
    series = []
    for group, mask in members(groups, everything=False).items():
        at = np.flatnonzero(mask)
        series.append(Series(group_name(group), group, place[at], ratio[at], "points", items=at))
    note = (
        "Sums of absolute gradients over the whole run; 0: equal, -1: a tenth is positive. Figure 2 of the EFL paper."
    )
    title = "Positive to negative gradients"
    return Chart("ratio", title, "category", "log10 (positive / negative)", series, note)


def loss_charts(gamma: Mapping[str, float], weight: Mapping[str, float]) -> list[Chart]:
    """The loss over x_t by group, without and with the weighting factor (EFL paper, Figure 3; alpha_t left out).

    gamma, weight: of each group, group key -> median over its categories.
    """
    log_p, log_q = -np.logaddexp(0, -LOGITS), -np.logaddexp(0, LOGITS)  # ln p_t, ln (1 - p_t)
    plain = {group: np.exp(value * log_q) * -log_p for group, value in gamma.items()}
    note = "Median focusing factor and weight of each group; hard samples left, easy ones right. Figure 3 of the paper."
    return [
        Chart(key, title, "x_t = (2y - 1) x", "loss", _shape_series(curves, gamma, weight), note)
        for key, title, curves in (
            ("loss_plain", "Loss without weight", plain),
            ("loss", "Loss with weight", {group: weight[group] * y for group, y in plain.items()}),
        )
    ]


def derivative_chart(gamma: Mapping[str, float], weight: Mapping[str, float]) -> Chart:
    """w (1 - p_t)^gamma (gamma p_t ln p_t + p_t - 1) over x_t by group (EFL paper, Eq. 6 with y = 1, and Figure 5)."""
    log_p, log_q = -np.logaddexp(0, -LOGITS), -np.logaddexp(0, LOGITS)  # ln p_t, ln (1 - p_t)
    p = np.exp(log_p)
    curves = {g: weight[g] * np.exp(value * log_q) * (value * p * log_p + p - 1) for g, value in gamma.items()}
    note = "How strongly a sample pulls; median focusing factor and weight of each group. Figure 5 of the EFL paper."
    title = "Derivative of the loss"
    return Chart("derivative", title, "x_t = (2y - 1) x", "derivative", _shape_series(curves, gamma, weight), note)


def margin_chart(margins: Mapping[str, Floats], order: Ints, groups: np.ndarray | None = None) -> Chart:
    """Score margins [C] of one or more runs (name -> margins) by category (EFL paper, Figure 4).

    With `groups` points are coloured by group, for one run; else by run.
    """
    place = places_of(order)
    window = max(len(order) // 20, 1) | 1
    series = []
    for i, (name, margin) in enumerate(margins.items()):
        color = str(i % 6)
        masks = {color: np.ones(len(margin), bool)} if groups is None else members(groups, everything=False)
        for key, mask in masks.items():
            at = np.flatnonzero(mask)
            label = name if groups is None else group_name(key)
            series.append(Series(label, key, place[at], margin[at], "points", items=at))
        if window >= 5:
            middle = running_median(margin[order], window)
            line = color if len(margins) > 1 else "all"
            series.append(Series(f"{name}, median of {window}", line, place[order], middle))
    note = (
        "Mean score of true positives less that of false positives; larger: easier to distinguish. No point: one of "
        "the two is missing. Figure 4 of the EFL paper."
    )
    return Chart("margin", "Score margin", "category", "margin", series, note)


def error_chart(errors: Ints, groups: np.ndarray) -> Chart:
    """Share of every kind of error [C, 6] in each group."""
    masks = members(groups)
    totals = np.array([errors[mask].sum(axis=0) for mask in masks.values()], np.float64)  # [groups, kinds]
    sums = totals.sum(axis=1, keepdims=True)
    shares = np.divide(totals, sums, out=np.zeros_like(totals), where=sums > 0)
    x = np.arange(len(masks), dtype=np.float64)
    series = [Series(kind, str(k), x, shares[:, k]) for k, kind in enumerate(KINDS)]
    names = [f"{group_name(g)} ({int(n):,})" for g, n in zip(masks, sums[:, 0])]
    note = (
        "Errors at each category's best F1 threshold, counted as TIDE sorts them: false positives, and missed objects. "
        "In brackets their number."
    )
    return Chart("errors", "Kinds of errors", "", "share of errors", series, note, rows=names)


def medians_by_group(values: np.ndarray, groups: np.ndarray) -> dict[str, float]:
    """Median of values [C] in each group that has categories."""
    return {g: float(np.median(values[mask])) for g, mask in members(groups, everything=False).items()}


def places_of(order: Ints) -> Floats:
    """Place of every category, from 1, float64 [C]; order [C] lists the categories."""
    place = np.empty(len(order), np.float64)
    place[order] = np.arange(len(order)) + 1.0
    return place


def _axis_of_ratio(ratio: np.ndarray) -> dict[str, Any]:
    """g is at most 1 in EFL and EQFL; in EQLv2 it starts at 100."""
    return {"y_range": (0, 1.02)} if ratio.max(initial=0) <= 1 else {"y_log": True}


def _shape_series(
    curves: Mapping[str, Floats], gamma: Mapping[str, float], weight: Mapping[str, float]
) -> list[Series]:
    """A line per group, named with its focusing factor and weight."""
    return [
        Series(f"{group_name(g)}: gamma {gamma[g]:.2f}, w {weight[g]:.2f}", g, LOGITS, curve)
        for g, curve in curves.items()
    ]
