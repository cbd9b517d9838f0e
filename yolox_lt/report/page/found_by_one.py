"""Rare objects that one run finds and another misses, among those that both have an image of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from yolox_lt.report.analysis.tide import FOREGROUND, iou_of_pairs
from yolox_lt.report.page.category_images import SCORE_DIGITS
from yolox_lt.report.page.run_files import Run

MOST_EXAMPLES = 3
"""Of objects that one of two runs alone has found."""


def found_by_one(runs: Sequence[Run], k: int) -> list[dict[str, Any]]:
    """Examples for the first run and run k: found and missed (positions of the runs), label, file of the image.

    Up to MOST_EXAMPLES each way. Empty for runs of other categories, or without evaluations or groups.
    """
    first, other = runs[0].analysis, runs[k].analysis
    if first is None or other is None or first.names != other.names:
        return []
    rare = set(np.flatnonzero(runs[0].groups == "r").tolist())
    made = []
    for found, missed, by, than in ((0, k, first, other), (k, 0, other, first)):
        entries = matches(by.examples, than.examples, {label: float(by.threshold[label]) for label in rare})
        made += [
            {"found": found, "missed": missed, "label": e["label"], "file": e["file"]} for e in entries[:MOST_EXAMPLES]
        ]
    return made


def matches(
    found: Sequence[Mapping[str, Any]], missed: Sequence[Mapping[str, Any]], thresholds: Mapping[int, float]
) -> list[Mapping[str, Any]]:
    """Images of true positives among `found` on an object among `missed`: the best of every label, highest score first.

    The entries are those of `category_images.write_images`; those of older files have no box and match nothing. The
    same object: of one label and image, IoU with the detection at least 0.5.

    Args:
        thresholds: label -> score in [0, 1] from which on its detections count, for the labels to look at.
    """
    objects: dict[tuple[int, int], list[Sequence[float]]] = {}
    for entry in missed:
        if entry["kind"] == "missed" and entry["label"] in thresholds and "box" in entry:
            objects.setdefault((entry["label"], entry["image"]), []).append(entry["box"])
    best: dict[int, Mapping[str, Any]] = {}
    for entry in found:
        boxes = objects.get((entry["label"], entry["image"]), [])
        if entry["kind"] != "tp" or "box" not in entry or not boxes:
            continue
        if not entry["score"] >= round(thresholds[entry["label"]], SCORE_DIGITS):
            continue
        known = np.array(boxes, np.float64)  # [K, 4]
        overlap = iou_of_pairs(np.tile(np.array(entry["box"], np.float64), (len(known), 1)), known)
        current = best.get(entry["label"])
        if overlap.max() >= FOREGROUND and (current is None or entry["score"] > current["score"]):
            best[entry["label"]] = entry
    return sorted(best.values(), key=lambda entry: -entry["score"])
