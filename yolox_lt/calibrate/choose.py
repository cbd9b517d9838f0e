"""A score threshold for every category, from the true and false positives of an evaluation. Plain arrays."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]

PRIOR_BOXES = 10.0
"""Boxes that the threshold of the group counts as beside those of the category."""

EDGE = 1e-6
"""Thresholds are averaged as logits; scores are kept so far from 0 and 1."""


@dataclass(frozen=True)
class Chosen:
    """A threshold of every category, float64 [C], NaN for none; precision and recall there."""

    conf: Floats
    precision: Floats
    recall: Floats


def best_f1(scores: Floats, hit: Bools, boxes: int, weights: Floats | None = None) -> float:
    """The highest threshold with the largest F1 = 2 TP / (detections + boxes); NaN where no threshold finds anything.

    A detection counts from its own score on: score >= threshold.

    Args:
        scores: float64 [K], falling. hit: bool [K], true positive. boxes: to be found. weights: float64 [K], for how
            many detections each counts; None for one.
    """
    last = last_of_equals(scores)
    f1 = 2 * np.cumsum(hit)[last] / (shown_until(last, weights) + boxes)
    return float(scores[last[np.argmax(f1)]]) if f1.any() else float("nan")


def reaching(precision: float) -> Callable[[Floats, Bools, int, Floats | None], float]:
    """The rule: the lowest threshold whose precision is at least this, NaN where none has; arguments as `best_f1`."""

    def rule(scores: Floats, hit: Bools, boxes: int, weights: Floats | None = None) -> float:
        last = last_of_equals(scores)
        enough = np.flatnonzero(np.cumsum(hit)[last] >= precision * shown_until(last, weights) - 1e-9)
        return float(scores[last[enough[-1]]]) if len(enough) and boxes else float("nan")

    return rule


def last_of_equals(scores: Floats) -> Ints:
    """Positions of the last of each run of equal scores: equal scores pass a threshold together."""
    return np.flatnonzero(np.append(scores[1:] != scores[:-1], True)[: len(scores)])


def shown_until(last: Ints, weights: Floats | None) -> Floats:
    """For how many detections the rows up to each of `last` count."""
    counted: Floats = (last + 1).astype(np.float64) if weights is None else np.cumsum(weights)[last]
    return counted


def shrunk(own: float, boxes: float, group: float) -> float:
    """The threshold of a category with few boxes, drawn towards that of its group.

    logit t = (n logit t_own + k logit t_group) / (n + k), n boxes of the category and k = PRIOR_BOXES: the mean after n
    observations of one variance with a prior worth k of them. The group's where the category has none of its own.
    """
    if np.isnan(own) or np.isnan(group):
        return group if np.isnan(own) else own
    a, b = (np.log(t / (1 - t)) for t in (np.clip(own, EDGE, 1 - EDGE), np.clip(group, EDGE, 1 - EDGE)))
    mean = (boxes * a + PRIOR_BOXES * b) / (boxes + PRIOR_BOXES)
    return float(1 / (1 + np.exp(-mean)))


def choose(
    labels: Ints,
    scores: Floats,
    hit: Bools,
    boxes: Ints,
    groups: NDArray[np.str_] | None = None,
    precision: float | None = None,
    weights: Floats | None = None,
) -> Chosen:
    """Thresholds of all categories.

    Best F1, shrunk towards the group's, which is the best of all its detections in one list; a category of which
    nothing is ever found, or that has no boxes, takes the group's, and a group without one that of all categories. With
    `precision`: the lowest threshold of each category that reaches it, by itself; NaN where none does.

    Args:
        labels: int64 [K], ascending. scores: float64 [K], falling inside a label. hit: bool [K], true positives; others
            are false positives. boxes: int64 [C], to be found. groups: [C] letters, None for one group.
        weights: float64 [K], for how many detections each counts where precision is meant; None for one.
    """
    count = len(boxes)
    bounds = np.searchsorted(labels, np.arange(count + 1))
    rows = [slice(bounds[c], bounds[c + 1]) for c in range(count)]
    rule = best_f1 if precision is None else reaching(precision)
    weights = np.ones(len(scores)) if weights is None else weights
    conf = np.array([rule(scores[part], hit[part], int(n), weights[part]) for part, n in zip(rows, boxes)], np.float64)
    if precision is None:
        letters = np.full(count, "") if groups is None else np.asarray(groups)
        everything = pooled(np.ones(count, bool), labels, scores, hit, boxes, weights)
        for letter in np.unique(letters):
            members = letters == letter
            own = pooled(members, labels, scores, hit, boxes, weights)
            common = everything if np.isnan(own) else own
            for c in np.flatnonzero(members).tolist():
                conf[c] = shrunk(conf[c], float(boxes[c]), common)
    # float32 is what detectors compare: a threshold must not lie above the score it was taken from.
    conf = np.where(conf.astype(np.float32) > conf, np.nextafter(conf.astype(np.float32), np.float32(0)), conf)
    return measured(conf.astype(np.float32).astype(np.float64), labels, scores, hit, boxes, weights)


def measured(
    conf: Floats, labels: Ints, scores: Floats, hit: Bools, boxes: Ints, weights: Floats | None = None
) -> Chosen:
    """Precision and recall of every category at the thresholds `conf` [C]; other arguments as `choose`."""
    count = len(boxes)
    passed = scores >= conf[labels]
    found = np.bincount(labels[passed & hit], minlength=count)
    shown = np.bincount(labels[passed], None if weights is None else weights[passed], minlength=count)
    nothing = np.full(count, np.nan)
    return Chosen(
        conf,
        np.divide(found, shown, out=nothing.copy(), where=shown > 0),
        np.divide(found, boxes, out=nothing.copy(), where=boxes > 0),
    )


def pooled(
    members: Bools, labels: Ints, scores: Floats, hit: Bools, boxes: Ints, weights: Floats | None = None
) -> float:
    """`best_f1` of the detections of some categories (bool [C]) in one list."""
    inside = np.flatnonzero(members[labels])
    inside = inside[np.argsort(-scores[inside], kind="stable")]
    own = None if weights is None else weights[inside]
    return best_f1(scores[inside], hit[inside], int(boxes[members].sum()), own)
