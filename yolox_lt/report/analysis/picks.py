"""Which detections and objects of a category are worth an image."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from yolox_lt.data.columns import Bools, Floats, Ints, run_positions
from yolox_lt.report.analysis.thresholds import ScoredDetections
from yolox_lt.report.analysis.tide import CLASSIFICATION, KINDS, Objects, Overlaps


@dataclass(frozen=True)
class Pick:
    """One image to be made.

    kind: "tp" true positive, "fp" false positive or "missed" object. rank: 0 for the first of its kind and category.
    label: whose image it is. image: position in the index. box: x y width height.
    score: of the detection, None for an object.
    error: kind of a false positive's error, one of `errors.KINDS`, else "".
    other: label of the object that a classification error lies on, else None.
    """

    kind: str
    rank: int
    label: int
    image: int
    box: tuple[float, float, float, float]
    score: float | None = None
    error: str = ""
    other: int | None = None


def ranks_of(labels: Ints) -> Ints:
    """How many earlier entries have the same label; `labels` [N] in runs of equal values."""
    starts = np.flatnonzero(np.diff(labels, prepend=-1))
    return run_positions(np.diff(np.append(starts, len(labels))))


def pick_true(scored: ScoredDetections, rows: Ints) -> list[Pick]:
    """True positives at `rows`, ascending: the best of each category."""
    return [
        Pick("tp", rank, int(scored.labels[k]), int(scored.images[k]), _box(scored.boxes[k]), float(scored.scores[k]))
        for k, rank in zip(rows.tolist(), ranks_of(scored.labels[rows]).tolist())
    ]


def pick_false(
    scored: ScoredDetections, rows: Ints, kinds: NDArray[np.int8], overlaps: Overlaps, objects: Objects, most: int
) -> list[Pick]:
    """The `most` false positives of each category with the highest scores.

    Args:
        rows: ascending, false positives that contain them. kinds, overlaps: of `rows`.
    """
    rank = ranks_of(scored.labels[rows])
    picks = []
    for n in np.flatnonzero(rank < most).tolist():
        k = int(rows[n])
        other = int(objects.labels[overlaps.other[n]]) if kinds[n] == CLASSIFICATION else None
        place = (int(rank[n]), int(scored.labels[k]), int(scored.images[k]), _box(scored.boxes[k]))
        picks.append(Pick("fp", *place, float(scored.scores[k]), KINDS[kinds[n]], other))
    return picks


def pick_missed(objects: Objects, missed: Bools, most: int) -> list[Pick]:
    """The `most` largest missed objects of each category: those that a person sees best (our choice)."""
    rows = np.flatnonzero(missed)
    rows = rows[np.lexsort((-objects.boxes[rows, 2:].prod(axis=1), objects.labels[rows]))]
    rank = ranks_of(objects.labels[rows])
    return [
        Pick("missed", int(rank[n]), int(objects.labels[k]), int(objects.images[k]), _box(objects.boxes[k]))
        for n, k in enumerate(rows.tolist())
        if rank[n] < most
    ]


def _box(box: Floats) -> tuple[float, float, float, float]:
    x, y, width, height = box.tolist()
    return x, y, width, height
