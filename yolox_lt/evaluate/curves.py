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
        precision: float64 [A, T, 101], NaN where there is no box to be found.
        recall: float64 [A, T], the last recall reached, NaN likewise.
    """
    status = np.ascontiguousarray(status.transpose(1, 2, 0))  # [R, A, T] -> [A, T, R], for sums along whole rows
    counts_here = counted[positions].T[:, None]  # [A, 1, R]
    hit = status == MATCHED
    counts_now = hit | ((status == UNMATCHED) & counts_here)
    found = np.cumsum(hit, axis=-1, dtype=np.int32)  # [A, T, R], hits up to and including this detection
    shift = np.cumsum(counts_now.astype(np.int8) - counts_here, axis=-1, dtype=np.int32)
    judged = np.cumsum(counted, axis=0, dtype=np.int32)[positions].T[:, None] + shift  # [A, T, R], hits and misses
    best = np.zeros((*hit.shape[:2], int(found.max(initial=0)) + 1))  # entry k - 1: precision at the k-th hit
    hits = found[hit]
    area, threshold, _ = np.nonzero(hit)
    best[area, threshold, hits - 1] = hits / (judged[hit] + np.spacing(1))
    best = np.maximum.accumulate(best[..., ::-1], axis=-1)[..., ::-1]  # the last entry stays 0: more hits than exist
    needed = np.minimum(hits_for_recalls(num_boxes), best.shape[-1])  # [A, 101]
    precision = np.take_along_axis(best, needed[:, None] - 1, axis=-1)  # [A, T, 101]
    missing = num_boxes == 0
    precision[missing] = np.nan
    recall = np.where(missing[:, None], np.nan, hit.sum(axis=-1) / np.maximum(num_boxes, 1)[:, None])
    return precision, recall


def hits_for_recalls(num_boxes: Ints) -> Ints:
    """int64 [A, 101]: the fewest hits whose share of `num_boxes` [A] reaches each recall, at least 1."""
    return np.stack([np.searchsorted(np.arange(n + 1) / max(n, 1), RECALLS).clip(min=1) for n in num_boxes.tolist()])
