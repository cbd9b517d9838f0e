"""Precision-recall curves of many area ranges and IoU thresholds at once, interpolated at 101 recalls.

Precision is highest where a detection has just been found right, so a curve needs its values at true positives only:
everything below works on the few detections that overlap a box, however many false positives lie between them.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from yolox_lt.data.columns import Bools, Floats, Ints
from yolox_lt.evaluate.matching import MATCHED, UNMATCHED

RECALLS = np.linspace(0, 1, 101)
"""0.00, 0.01 ... 1.00."""


def interpolated_precision(
    counted: Bools, positions: Ints, status: NDArray[np.int8], num_boxes: Ints
) -> tuple[Floats, Floats]:
    """The curves of one category, or of a pool of categories.

    precision(r) is the highest precision at any recall of at least r, 0 beyond the last recall reached.

    Args:
        counted: bool [K, A], detections in descending order of scores: does it count when it matches nothing?
        positions: int64 [R], ascending, which of them overlap a box.
        status: int8 [R, A, T] of these, from `matching.match`.
        num_boxes: int64 [A], boxes to be found per area range.

    Returns:
        precision: float64 [101, A, T], NaN where there is no box to be found.
        recall: float64 [A, T], the last recall reached, NaN likewise.
    """
    hit = status == MATCHED
    found = np.cumsum(hit, axis=0)  # [R, A, T], true positives up to and including this detection
    counts_here = counted[positions][:, :, None]  # [R, A, 1]
    counts_now = hit | ((status == UNMATCHED) & counts_here)
    shift = np.cumsum(counts_now.astype(np.int64) - counts_here, axis=0)
    judged = np.cumsum(counted, axis=0)[positions][:, :, None] + shift  # [R, A, T], true and false positives so far
    best = np.zeros((int(found.max(initial=0)) + 1, *status.shape[1:]))  # row k - 1: precision at the k-th hit
    row, area, threshold = np.nonzero(hit)
    hits = found[row, area, threshold]
    best[hits - 1, area, threshold] = hits / (judged[row, area, threshold] + np.spacing(1))
    best = np.maximum.accumulate(best[::-1], axis=0)[::-1]  # the last row stays 0: more hits than there are
    needed = np.minimum(hits_for_recalls(num_boxes), len(best))  # [101, A]
    precision = best[needed - 1, np.arange(len(num_boxes))]  # [101, A, T]
    last = hit.sum(axis=0)  # [A, T]
    nothing = num_boxes == 0
    precision[:, nothing] = np.nan
    recall = np.where(nothing[:, None], np.nan, last / np.maximum(num_boxes, 1)[:, None])
    return precision, recall


def hits_for_recalls(num_boxes: Ints) -> Ints:
    """int64 [101, A]: the fewest hits whose share of `num_boxes` [A] reaches each recall, at least 1."""
    columns = [np.searchsorted(np.arange(n + 1) / max(n, 1), RECALLS).clip(min=1) for n in num_boxes.tolist()]
    return np.stack(columns, axis=1)
