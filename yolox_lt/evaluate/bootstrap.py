"""Confidence intervals of AP over resampled images. Detections are matched once; a resample is a weight of every image.

AP of images drawn with repetition is AP of a set in which image i occurs w_i times. Copies of an image have equal
scores, and the envelope of precision is reached behind the last of them, so whole weights give the copies' curve (but
for detections of one category that have equal scores in one image).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from yolox_lt.data.annotations.index import AnnotationIndex
from yolox_lt.data.columns import Bools, Floats, Ints
from yolox_lt.errors import UserError
from yolox_lt.evaluate.curves import RECALLS
from yolox_lt.evaluate.lvis import check_groups
from yolox_lt.evaluate.matching import IOU_THRESHOLDS, MATCHED, MATCHED_IGNORED, match
from yolox_lt.evaluate.protocols import Protocol, select, truth_of
from yolox_lt.evaluate.results import Results, labels_and_images, load_detections

LVIS = Protocol("LVIS AP", "image", 300)
COCO = Protocol("COCO AP", "image and category", 100, lvis=False)
METRICS = ("AP", "APr", "APc", "APf")
LEVEL = 0.95
"""Of the intervals: from the 2.5th to the 97.5th percentile."""


@dataclass(frozen=True)
class Matched:
    """Detections of I images matched to the boxes of C categories, all areas; K detections by label, falling score.

    labels, images: int64 [K]. counted: bool [K], a false positive counts. rows: int64 [R], those that overlap a box.
    hit, dropped: bool [T, R], true positive; neither true nor false. box_labels, box_images: int64 [G], to be found.
    groups: letters [C], None where unknown.
    """

    labels: Ints
    images: Ints
    counted: Bools
    rows: Ints
    hit: Bools
    dropped: Bools
    box_labels: Ints
    box_images: Ints
    groups: NDArray[np.str_] | None
    num_images: int
    num_categories: int

    @classmethod
    def of(
        cls,
        index: AnnotationIndex,
        detections: Results,
        protocol: Protocol | None = None,
        groups: Sequence[str] | NDArray[np.str_] | None = None,
    ) -> Matched:
        """Match once. protocol: LVIS for a file with federated lists, else COCO's, if not given.

        Raises:
            UserError: the annotations have the rules of Open Images, which this does not know.
        """
        if index.open_images:
            raise UserError(f"{index.path}: intervals are made for LVIS and COCO, not for Open Images; leave them out")
        protocol = protocol or (LVIS if index.federated else COCO)
        arrays = load_detections(detections)
        labels, images = labels_and_images(arrays, index, detections)
        truth = truth_of(index, protocol)
        evaluated = select(labels, images, arrays.boxes, arrays.scores, index, truth, protocol)
        rows, status = match(evaluated, truth)
        count = len(index.category_ids)
        found = status[:, 0].T  # [R, A, T] -> [T, R]
        ignored = evaluated.ignore_if_unmatched[:, 0]
        boxes = truth.codes[~truth.ignored[:, 0]]
        return cls(
            labels=evaluated.labels.astype(np.int64),
            images=evaluated.codes // count,
            counted=~ignored,
            rows=rows,
            hit=found == MATCHED,
            dropped=(found == MATCHED_IGNORED) | ((found != MATCHED) & ignored[rows]),
            box_labels=boxes % count,
            box_images=boxes // count,
            groups=check_groups(index, groups),
            num_images=len(index),
            num_categories=count,
        )

    def average_precisions(self, weights: Ints) -> Floats:
        """AP float64 [C] of every category where image i counts weights[i] times; NaN without boxes."""
        boxes = np.bincount(self.box_labels, weights[self.box_images], self.num_categories)
        own = weights[self.images]
        judged_all = np.append(0, np.cumsum(own * self.counted))
        starts = judged_all[np.searchsorted(self.labels, np.arange(self.num_categories))]
        row_labels, row_weights = self.labels[self.rows], own[self.rows]
        row_base = row_weights * self.counted[self.rows]
        row_starts = np.searchsorted(row_labels, np.arange(self.num_categories))
        total = np.zeros(self.num_categories)
        for hit, dropped in zip(self.hit, self.dropped):
            change = np.append(0, np.cumsum(np.where(dropped, 0, row_weights) - row_base))
            at = np.flatnonzero(hit)
            label = row_labels[at]
            judged = judged_all[self.rows[at] + 1] - starts[label] + change[at + 1] - change[row_starts[label]]
            hits = np.cumsum(row_weights[at])
            first = np.flatnonzero(np.diff(label, prepend=-1))  # of each category
            before = np.repeat(np.append(0, hits[:-1])[first], np.diff(np.append(first, len(at))))
            found = hits - before
            precision = found / (judged + np.spacing(1))
            # The highest precision from here on: a later category begins lower by 2, so it never reaches over.
            offset = 2.0 * (self.num_categories - label)
            best = np.maximum.accumulate((precision + offset)[::-1])[::-1] - offset
            with np.errstate(divide="ignore", invalid="ignore"):
                passed = np.searchsorted(RECALLS, found / boxes[label], side="right")  # recalls reached by now
            passed[found == 0] = 0
            previous = np.append(0, passed[:-1])
            previous[first] = 0
            total += np.bincount(label, best * (passed - previous), self.num_categories)
        return np.where(boxes > 0, total / (len(RECALLS) * len(IOU_THRESHOLDS)), np.nan)

    def metrics(self, weights: Ints) -> Floats:
        """AP, AP_r, AP_c, AP_f float64 [4] in [0, 1], NaN where there is nothing to average."""
        values = self.average_precisions(weights)
        known = ~np.isnan(values)
        members = [known] + [known & (np.zeros_like(known) if self.groups is None else self.groups == g) for g in "rcf"]
        return np.array([values[m].mean() if m.any() else np.nan for m in members])


def resamples(num_images: int, count: int, seed: int = 0) -> Ints:
    """How often each image is drawn, int64 [count, I]: as many draws as images, with repetition."""
    rng = np.random.default_rng(seed)
    return np.stack([np.bincount(rng.integers(0, num_images, num_images), minlength=num_images) for _ in range(count)])


def bootstrap(matched: Sequence[Matched], count: int, seed: int = 0) -> Floats:
    """Metrics float64 [results, count, 4] of result files of one annotation file, all from the same resamples."""
    weights = resamples(matched[0].num_images, count, seed)
    return np.array([[each.metrics(w) for w in weights] for each in matched])


def intervals(samples: Floats) -> Floats:
    """(lower, upper) [2, ...] over the first axis of `samples`, NaN where a metric is never defined."""
    edges = [50 * (1 - LEVEL), 50 * (1 + LEVEL)]
    defined = ~np.isnan(samples).all(axis=0)
    made = np.full((2, *samples.shape[1:]), np.nan)
    made[:, defined] = np.nanpercentile(samples[:, defined], edges, axis=0)
    return made


def interval_table(values: Floats, samples: Floats, title: str) -> str:
    """Text: metrics [4] in percent with their intervals from samples [count, 4]."""
    lower, upper = intervals(samples)
    lines = [f"{title}, in percent, {LEVEL:.0%} interval over {len(samples)} resamples of the images"]
    for name, *numbers in zip(METRICS, values, lower, upper):
        value, low, high = ("-" if np.isnan(v) else f"{100 * v:.2f}" for v in numbers)
        lines.append(f"{name:>5}{value:>8}  [{low}, {high}]")
    return "\n".join(lines)
