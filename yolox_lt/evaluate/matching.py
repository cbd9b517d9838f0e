"""Matching of detections to annotated boxes: greedy by score, for all area ranges and IoU thresholds at once.

Only detections that overlap a box of their own image and category by the lowest threshold are looked at. They are
visited by their rank inside (image, category): one turn takes the r-th best detection of every image and category
together, so the loop has as many turns as one image has detections of one category, not as there are images.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from yolox_lt.data.columns import Bools, Floats, Ints, offsets_of, run_positions

IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)
"""0.50, 0.55 ... 0.95."""

AREA_RANGES = np.array([[0, 1e10], [0, 32**2], [32**2, 96**2], [96**2, 1e10]])
"""all, small, medium, large, in square pixels; both ends belong to the range, so 1024 is small and medium."""

UNMATCHED, MATCHED, MATCHED_IGNORED = np.int8(0), np.int8(1), np.int8(2)

_PAIRS_AT_ONCE = 1 << 17  # of the overlap computation: the working set stays in the processor's cache
_MATCHES_AT_ONCE = 1 << 17  # pairs of one step of the matching: each holds a row of ranges x thresholds


@dataclass
class Truth:
    """The annotated boxes of an evaluation, sorted by code; the order inside a code is that of the file.

    codes: int64 [G], image * C + label.
    boxes: float64 [G, 4], x y width height.
    ignored: bool [G, A], finding the box counts neither for nor against, per area range.
    crowd: bool [G], a region of many objects: it absorbs any number of detections that lie inside it.
    """

    codes: Ints
    boxes: Floats
    ignored: Bools
    crowd: Bools


@dataclass
class Evaluated:
    """Detections that take part, sorted by label, then falling score, then image; K of them.

    source: int64 [K], their positions in the input.
    labels: int64 [K].
    scores: float64 [K].
    codes: int64 [K], image * C + label.
    boxes: float64 [K, 4], x y width height.
    ignore_if_unmatched: bool [K, A], a detection that finds nothing counts as nothing in this area range.
    first_box, num_boxes: int64 [K], the boxes of the same code are rows first_box to first_box + num_boxes of `Truth`.
    """

    source: Ints
    labels: Ints
    scores: Floats
    codes: Ints
    boxes: Floats
    ignore_if_unmatched: Bools
    first_box: Ints
    num_boxes: Ints


def outside_ranges(areas: Floats) -> Bools:
    """bool [N, A]: which of the areas [N] are outside which range."""
    return (areas[:, None] < AREA_RANGES[:, 0]) | (areas[:, None] > AREA_RANGES[:, 1])


def match(detections: Evaluated, truth: Truth) -> tuple[Ints, NDArray[np.int8]]:
    """Match detections to boxes of the same code, the best detection of a code first.

    A detection takes the free, counted box with the largest IoU at or above the threshold, the later one of equals;
    only if there is none, likewise an ignored box. A box is free until its first match, a crowd region always.

    Returns:
        rows: int64 [R], ascending: the detections that reach the lowest threshold with some box.
        status: int8 [R, A, T], UNMATCHED, MATCHED or MATCHED_IGNORED; all other detections are UNMATCHED.
    """
    detection, box, iou = overlapping_pairs(
        detections.boxes, detections.first_box, detections.num_boxes, truth.boxes, truth.crowd
    )
    starts = np.flatnonzero(np.diff(detection, prepend=-1))  # pairs are grouped by detection
    rows = detection[starts]
    row = np.repeat(np.arange(len(rows)), np.diff(np.append(starts, len(detection))))
    turn = rank_inside(detections.codes[rows])[row]
    # The last available pair of a detection is then its choice: largest IoU, later box.
    order = np.lexsort((box, iou, row, turn))
    row, box, iou = row[order], box[order], iou[order]
    shape = (len(AREA_RANGES), len(IOU_THRESHOLDS))
    status = np.zeros((len(rows), *shape), np.int8)
    taken = np.zeros((len(truth.codes), *shape), bool)
    for part in _steps(turn[order], row):
        _match_step(row[part], box[part], iou[part], truth, status, taken)
    return rows, status


def _match_step(row: Ints, box: Ints, iou: Floats, truth: Truth, status: NDArray[np.int8], taken: Bools) -> None:
    """Let each detection of one turn choose; no two of them share a code, hence none a box. Fills status and taken."""
    count = len(row)
    reached = iou[:, None] >= IOU_THRESHOLDS  # [pairs, T]
    available = reached[:, None] & (~taken[box] | truth.crowd[box, None, None])  # [pairs, A, T]
    # Counted boxes rank above all ignored ones; within a kind the later pair wins.
    rank = np.arange(count, dtype=np.int32)[:, None] + np.int32(count) * ~truth.ignored[box]  # [pairs, A]
    starts = np.flatnonzero(np.diff(row, prepend=-1))
    best = np.maximum.reduceat(np.where(available, rank[:, :, None], np.int32(-1)), starts, axis=0)  # [rows, A, T]
    status[row[starts]] = np.where(best >= count, MATCHED, np.where(best >= 0, MATCHED_IGNORED, UNMATCHED))
    cells = best[0].size  # A * T
    found = np.flatnonzero(best >= 0)
    taken.reshape(-1)[box[best.reshape(-1)[found] % count] * cells + found % cells] = True  # [G, A, T] -> [G * A * T]


def _steps(turn: Ints, row: Ints) -> Iterator[slice]:
    """Consecutive parts of the pairs: each within one turn, whole detections, of bounded size."""
    if len(turn) == 0:
        return
    row_starts = np.flatnonzero(np.diff(row, prepend=-1))
    chunk = row_starts // _MATCHES_AT_ONCE
    new = (np.diff(turn[row_starts], prepend=-1) != 0) | (np.diff(chunk, prepend=-1) != 0)
    bounds = np.append(row_starts[new], len(turn))
    for start, end in pairwise(bounds.tolist()):
        yield slice(start, end)


def rank_inside(codes: Ints) -> Ints:
    """How many earlier entries have the same code."""
    order = np.argsort(codes, kind="stable")
    starts = np.flatnonzero(np.diff(codes[order], prepend=-1))
    rank = np.empty(len(codes), np.int64)
    rank[order] = run_positions(np.diff(np.append(starts, len(codes))))
    return rank


def overlapping_pairs(
    detections: Floats, first_box: Ints, num_boxes: Ints, boxes: Floats, crowd: Bools
) -> tuple[Ints, Ints, Floats]:
    """(detection, box, IoU) of all pairs with at least the lowest IoU, ordered by detection, then box.

    Args:
        detections, boxes: float64 [K, 4] and [G, 4], x y width height.
        first_box, num_boxes: int64 [K], detection k is compared with rows first_box[k] to first_box[k] + num_boxes[k].
        crowd: bool [G], the share of the detection that lies inside the box stands for the IoU.
    """
    candidates = np.flatnonzero(num_boxes)
    first, counts = first_box[candidates], num_boxes[candidates]
    offsets = offsets_of(counts)
    bounds = np.searchsorted(offsets, np.arange(0, offsets[-1], _PAIRS_AT_ONCE))
    parts = []
    for start, end in zip(bounds, [*bounds[1:], len(candidates)]):
        detection = np.repeat(candidates[start:end], counts[start:end])
        box = np.repeat(first[start:end], counts[start:end]) + run_positions(counts[start:end])
        iou = _iou(detections[detection], boxes[box], crowd[box])
        keep = iou >= IOU_THRESHOLDS[0]
        parts.append((detection[keep], box[keep], iou[keep]))
    if not parts:
        return np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0)
    columns = [np.concatenate(column) for column in zip(*parts)]
    return columns[0], columns[1], columns[2]


def _iou(a: Floats, b: Floats, crowd: Bools) -> Floats:
    """IoU [M] of detections [M, 4] and boxes [M, 4] in x y width height; for a crowd region the share of `a` inside it.

    Terms in the order of the reference implementation: values that lie exactly on a threshold must come out alike.
    """
    size = np.minimum(a[:, :2] + a[:, 2:], b[:, :2] + b[:, 2:]) - np.maximum(a[:, :2], b[:, :2])
    inter = size[:, 0] * size[:, 1]
    area = a[:, 2] * a[:, 3]
    union = np.where(crowd, area, area + b[:, 2] * b[:, 3] - inter)
    overlap = (size > 0).all(axis=1)
    return np.divide(inter, union, out=np.zeros(len(a)), where=overlap)
