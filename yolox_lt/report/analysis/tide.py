"""Why detections are wrong and which objects are missed, in the manner of TIDE.

Bolya, Foley, Hays, Hoffman: TIDE: A General Toolbox for Identifying Object Detection Errors, 2020, section 3. The six
kinds, the two IoU thresholds and the precedence of the kinds are TIDE's; it weighs them by the AP that a repair would
win, we count them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from yolox_lt.data.annotations.index import AnnotationIndex
from yolox_lt.data.columns import Bools, Floats, Ints, offsets_of, run_positions

FOREGROUND = 0.5
"""IoU from which a box counts as found."""

BACKGROUND = 0.1
"""IoU below which a detection has nothing to do with a box."""

KINDS = ("classification", "localisation", "both", "duplicate", "background", "missed")
"""Kinds of errors; the first five are of detections, the last one of objects."""

CLASSIFICATION, LOCALISATION, BOTH, DUPLICATE, BACKGROUND_ERROR, MISSED = range(len(KINDS))

_PAIRS_AT_ONCE = 1 << 18  # bounds the memory whatever the number of detections


@dataclass
class Objects:
    """The G boxes that are to be found, grouped by image, in file order inside an image.

    images: int64 [G], position of the image in the index. labels: int64 [G]. boxes: float64 [G, 4], x y width height.
    offsets: int64 [I + 1], the objects of image i are rows offsets[i] to offsets[i + 1].
    """

    images: Ints
    labels: Ints
    boxes: Floats
    offsets: Ints


@dataclass
class Overlaps:
    """For N detections the nearest object of the own category and the nearest one of any other category.

    own_iou, other_iou: float64 [N], 0 where there is none. own, other: int64 [N], rows of `Objects`, -1 for none.
    """

    own_iou: Floats
    own: Ints
    other_iou: Floats
    other: Ints


def objects_of(index: AnnotationIndex, keep: Bools) -> Objects:
    """The boxes an evaluation asked for; keep: bool [N], its report's `to_find`."""
    images = np.repeat(np.arange(len(index)), np.diff(index.box_offsets))[keep]
    counts = np.bincount(images, minlength=len(index))
    return Objects(images, index.labels[keep], index.boxes[keep], offsets_of(counts))


def overlaps_of(images: Ints, labels: Ints, boxes: Floats, objects: Objects) -> Overlaps:
    """Nearest objects of N detections: image [N], label [N], box [N, 4] x y width height. The first one of equals."""
    count = len(labels)
    found = Overlaps(np.zeros(count), np.full(count, -1), np.zeros(count), np.full(count, -1))
    for detection, row, iou in _pairs(images, boxes, objects):
        own = objects.labels[row] == labels[detection]
        for chosen, best_iou, best in ((own, found.own_iou, found.own), (~own, found.other_iou, found.other)):
            d, r, value = _best_of_run(detection[chosen], row[chosen], iou[chosen])
            best_iou[d] = value
            best[d] = np.where(value > 0, r, -1)
    return found


def kinds_of(overlaps: Overlaps) -> NDArray[np.int8]:
    """Kind of every false positive [N], a position in KINDS.

    In this order, the first that fits: localisation (an object of the category at IoU 0.1 to 0.5), classification
    (an object of another category at 0.5 or more), duplicate (an object of the category at 0.5 or more: a better
    detection has it), background (no object at more than 0.1), else both wrong.
    """
    own, other = overlaps.own_iou, overlaps.other_iou
    conditions = [
        (own >= BACKGROUND) & (own < FOREGROUND),
        other >= FOREGROUND,
        own >= FOREGROUND,
        np.maximum(own, other) <= BACKGROUND,
    ]
    codes = [LOCALISATION, CLASSIFICATION, DUPLICATE, BACKGROUND_ERROR]
    return np.select(conditions, codes, BOTH).astype(np.int8)


def claimed_objects(images: Ints, labels: Ints, boxes: Floats, objects: Objects) -> Ints:
    """Object that each of M true positives found, int64 [M]; -1 for one that overlaps no free object by 0.5.

    Args:
        images, labels, boxes: of the true positives, [M], [M], [M, 4] x y width height; inside an image and category
            in the order in which the evaluation visited them, the best first.
    """
    code = images * (labels.max(initial=0) + 1) + labels
    order = np.argsort(code, kind="stable")
    starts = np.flatnonzero(np.diff(code[order], prepend=-1))
    turn = np.empty(len(code), np.int64)
    turn[order] = run_positions(np.diff(np.append(starts, len(code))))
    parts = []
    for d, r, iou in _pairs(images, boxes, objects):
        fits = (iou >= FOREGROUND) & (objects.labels[r] == labels[d])
        parts.append((d[fits], r[fits], iou[fits]))
    chosen = np.full(len(code), -1)
    if not parts:
        return chosen
    detection, row, overlap = (np.concatenate(column) for column in zip(*parts))
    # One turn takes the r-th detection of every image and category: no two of them can want the same object. The last
    # free pair of a detection is its choice: largest IoU, the later object of equals, as the evaluation chooses.
    order = np.lexsort((row, overlap, detection, turn[detection]))
    detection, row = detection[order], row[order]
    taken = np.zeros(len(objects.labels), bool)
    bounds = np.flatnonzero(np.diff(turn[detection], prepend=-1, append=-1))
    for start, end in pairwise(bounds.tolist()):
        free = start + np.flatnonzero(~taken[row[start:end]])
        last = free[np.append(detection[free[1:]] != detection[free[:-1]], True)[: len(free)]]
        chosen[detection[last]] = row[last]
        taken[row[last]] = True
    return chosen


def missed_objects(objects: Objects, claimed: Ints, localisation: Ints, classification: Ints) -> Bools:
    """bool [G]: objects that no detection has found and that no localisation or classification error lies on (TIDE).

    Args:
        claimed: objects of the true positives that count, -1 for none. localisation, classification: objects that the
            errors of this kind lie on.
    """
    missed = np.ones(len(objects.labels), bool)
    missed[claimed[claimed >= 0]] = False
    missed[localisation] = False
    missed[classification] = False
    return missed


def confused_pairs(true: Ints, predicted: Ints, num_categories: int, most: int = 50) -> Ints:
    """int64 [K, 3], (true label, predicted label, how often), most frequent first, at most `most` of them."""
    codes, counts = np.unique(true * num_categories + predicted, return_counts=True)
    order = np.argsort(-counts, kind="stable")[:most]
    return np.column_stack([codes[order] // num_categories, codes[order] % num_categories, counts[order]])


def iou_of_pairs(a: Floats, b: Floats) -> Floats:
    """IoU [M] of boxes [M, 4] and boxes [M, 4] in x y width height.

    Terms in the order of the evaluation: an IoU of exactly 0.5 must come out alike.
    """
    size = np.minimum(a[:, :2] + a[:, 2:], b[:, :2] + b[:, 2:]) - np.maximum(a[:, :2], b[:, :2])
    inter = size[:, 0] * size[:, 1]
    union = a[:, 2] * a[:, 3] + b[:, 2] * b[:, 3] - inter
    return np.divide(inter, union, out=np.zeros(len(a)), where=(size > 0).all(axis=1))


def _pairs(images: Ints, boxes: Floats, objects: Objects) -> Iterator[tuple[Ints, Ints, Floats]]:
    """(detection, object, IoU) of all pairs of one image, in parts of whole detections, ordered by detection."""
    first, counts = objects.offsets[images], np.diff(objects.offsets)[images]
    offsets = offsets_of(counts)
    bounds = np.searchsorted(offsets, np.arange(0, offsets[-1], _PAIRS_AT_ONCE))
    for start, end in zip(bounds.tolist(), [*bounds[1:].tolist(), len(images)]):
        part = counts[start:end]
        detection = np.repeat(np.arange(start, end), part)
        row = np.repeat(first[start:end], part) + run_positions(part)
        yield detection, row, iou_of_pairs(boxes[detection], objects.boxes[row])


def _best_of_run(group: Ints, row: Ints, value: Floats) -> tuple[Ints, Ints, Floats]:
    """(group, row, value) of the first largest value in every run of equal `group`."""
    if len(group) == 0:
        return group, row, value
    starts = np.flatnonzero(np.diff(group, prepend=-1))
    best = np.repeat(np.maximum.reduceat(value, starts), np.diff(np.append(starts, len(group))))
    at = np.flatnonzero(value == best)
    at = at[np.diff(group[at], prepend=-1) != 0]
    return group[at], row[at], value[at]
