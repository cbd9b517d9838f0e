"""Detections as an evaluation scored them at IoU 0.5, and where each category's score threshold is best."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from yolox_lt.data.annotations.index import AnnotationIndex
from yolox_lt.data.columns import Bools, Floats, Ints
from yolox_lt.evaluate.metrics import FALSE_POSITIVE, TRUE_POSITIVE, Report
from yolox_lt.evaluate.results import DetectionArrays, labels_and_images

THRESHOLDS = np.linspace(0, 1, 101)
"""Scores at which the curves of F1 are taken: 0.00, 0.01 ... 1.00."""


@dataclass
class ScoredDetections:
    """The K true and false positives of an evaluation, sorted by label, then falling score, then image.

    labels, images: int64 [K], images as positions in the index. boxes: float64 [K, 4], x y width height.
    scores: float64 [K]. hit: bool [K], true positive.
    bounds: int64 [C + 1], category c has the rows bounds[c] to bounds[c + 1].
    """

    labels: Ints
    images: Ints
    boxes: Floats
    scores: Floats
    hit: Bools
    bounds: Ints

    @classmethod
    def of(cls, index: AnnotationIndex, detections: DetectionArrays, report: Report) -> ScoredDetections:
        """From what was evaluated; detections that were dropped or ignored stay out."""
        labels, images = labels_and_images(detections, index, detections)
        kept = np.flatnonzero((report.status == TRUE_POSITIVE) | (report.status == FALSE_POSITIVE))
        kept = kept[np.lexsort((images[kept], -detections.scores[kept], labels[kept]))]
        return cls(
            labels=labels[kept],
            images=images[kept],
            boxes=detections.boxes[kept],
            scores=detections.scores[kept],
            hit=report.status[kept] == TRUE_POSITIVE,
            bounds=np.searchsorted(labels[kept], np.arange(len(index.category_ids) + 1)),
        )


def best_threshold(scores: Floats, hit: Bools, boxes: int) -> tuple[float, float]:
    """(threshold, F1) of one category where F1 = 2 TP / (detections + boxes) is largest; of equals the highest one.

    A detection counts from its own score on: score >= threshold.

    Args:
        scores: float64 [K], falling. hit: bool [K]. boxes: to be found.

    Returns:
        (NaN, NaN) without boxes; (NaN, 0) if nothing was found at any score.
    """
    if boxes == 0:
        return float("nan"), float("nan")
    last = np.flatnonzero(np.append(scores[1:] != scores[:-1], True)[: len(scores)])  # equal scores pass together
    f1 = 2 * np.cumsum(hit)[last] / (last + 1 + boxes)
    if not f1.any():
        return float("nan"), 0.0
    best = int(np.argmax(f1))
    return float(scores[last[best]]), float(f1[best])


def best_thresholds(scored: ScoredDetections, box_counts: Ints) -> tuple[Floats, Floats]:
    """`best_threshold` of every category: thresholds [C], F1 [C]."""
    pairs = np.full((len(box_counts), 2), np.nan)
    for c in range(len(box_counts)):
        rows = slice(scored.bounds[c], scored.bounds[c + 1])
        pairs[c] = best_threshold(scored.scores[rows], scored.hit[rows], int(box_counts[c]))
    return pairs[:, 0], pairs[:, 1]


def f1_curves(scored: ScoredDetections, box_counts: Ints) -> Floats:
    """F1 at every one of THRESHOLDS, float64 [C, 101]; NaN for categories without boxes."""
    curves = np.full((len(box_counts), len(THRESHOLDS)), np.nan)
    for c in np.flatnonzero(box_counts).tolist():
        rows = slice(scored.bounds[c], scored.bounds[c + 1])
        # Falling scores: so many are at least t.
        passed = np.searchsorted(-scored.scores[rows], -THRESHOLDS, side="right")
        hits = np.append(0, np.cumsum(scored.hit[rows]))[passed]
        curves[c] = 2 * hits / (passed + box_counts[c])
    return curves


def mean_scores(scored: ScoredDetections, chosen: Bools) -> Floats:
    """Mean score of the chosen detections [K] of every category, float64 [C]; NaN where there are none."""
    count = len(scored.bounds) - 1
    sums = np.bincount(scored.labels[chosen], scored.scores[chosen], count)
    numbers = np.bincount(scored.labels[chosen], minlength=count)
    return np.divide(sums, numbers, out=np.full(count, np.nan), where=numbers > 0)
