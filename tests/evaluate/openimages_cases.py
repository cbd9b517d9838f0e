"""Random annotations with hierarchy, groups and verified labels, and the protocol of Open Images in plain loops."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np

from tests.evaluate.cases import random_case


def random_openimages(seed: int, lists: bool = True) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Seven categories, some with two parents; a third of the boxes around groups; detections without area too."""
    rng = np.random.default_rng(seed)
    content, detections = random_case(seed, federated=lists, num_images=8, num_categories=7)
    ids = [category["id"] for category in content["categories"]]
    for k, category in enumerate(content["categories"]):
        # Parents come later in a random order of the categories, so there are no circles.
        above = rng.permutation(ids[k + 1 :]).tolist()
        category["parent_ids"] = above[: int(rng.integers(0, 3))]
    for annotation in content["annotations"]:
        annotation["is_group_of"] = int(rng.random() < 0.3)
    for image in content["images"] if lists else ():
        del image["not_exhaustive_category_ids"]
        image["pos_category_ids"] = rng.choice(ids, int(rng.integers(0, 3)), replace=False).tolist()
    for detection in detections[::17]:
        detection["bbox"] = [*detection["bbox"][:3], 0]
    return content, detections


def ancestors(content: dict[str, Any]) -> dict[int, set[int]]:
    """Category id -> ids of itself and everything above it."""
    parents = {category["id"]: category.get("parent_ids", []) for category in content["categories"]}

    def above(category: int) -> set[int]:
        return {category}.union(*(above(parent) for parent in parents[category]))

    return {category: above(category) for category in parents}


def plain_openimages(
    content: dict[str, Any], detections: list[dict[str, Any]], expand: bool = False
) -> tuple[dict[int, float], list[str]]:
    """AP of every category id (NaN without boxes), and the outcome of every detection for its own category."""
    above = ancestors(content)
    lists = any("neg_category_ids" in image or "pos_category_ids" in image for image in content["images"])
    found: dict[int, list[tuple[float, int, int, bool]]] = {
        category: [] for category in above
    }  # score, image, turn, hit
    total = dict.fromkeys(above, 0)
    outcome = ["dropped"] * len(detections)
    for image in sorted(content["images"], key=lambda entry: entry["id"]):
        boxes = [a for a in content["annotations"] if a["image_id"] == image["id"]]
        verified = {c for a in boxes for c in above[a["category_id"]]}
        verified |= {c for positive in image.get("pos_category_ids", []) for c in above[positive]}
        verified |= {c for c in above for negative in image.get("neg_category_ids", []) if negative in above[c]}
        for category in above:
            own = [a for a in boxes if category in above[a["category_id"]]]
            total[category] += len(own)
            if lists and category not in verified:
                continue
            seen = []
            for d, detection in enumerate(detections):
                fits = category in above[detection["category_id"]] if expand else category == detection["category_id"]
                if detection["image_id"] == image["id"] and fits and min(detection["bbox"][2:]) > 0:
                    seen.append((d, detection))
            seen.sort(key=lambda pair: -pair[1]["score"])
            fates = judge([detection for _, detection in seen], own)
            for turn, ((d, detection), what) in enumerate(zip(seen, fates)):
                if what != "ignored":
                    found[category].append((-detection["score"], image["id"], turn, what == "tp"))
                if detection["category_id"] == category:
                    outcome[d] = what
    for d, detection in enumerate(detections):
        if total[detection["category_id"]] == 0:
            outcome[d] = "dropped"
    return {c: area([hit for *_, hit in sorted(found[c])], total[c]) for c in above}, outcome


def judge(detections: list[dict[str, Any]], boxes: list[dict[str, Any]]) -> list[str]:
    """Fates of the detections of one image and category, the best first."""
    single = [a["bbox"] for a in boxes if not a.get("is_group_of")]
    groups = [a["bbox"] for a in boxes if a.get("is_group_of")]
    taken, found, fates = set(), set(), []
    for detection in detections:
        box = detection["bbox"]
        best = max(range(len(single)), key=lambda k: overlap(box, single[k], True), default=None)
        if best is not None and overlap(box, single[best], True) >= 0.5 and best not in taken:
            taken.add(best)
            fates.append("tp")
            continue
        best = max(range(len(groups)), key=lambda k: overlap(box, groups[k], False), default=None)
        if best is not None and overlap(box, groups[best], False) >= 0.5:
            fates.append("ignored" if best in found else "tp")
            found.add(best)
        else:
            fates.append("fp")
    return fates


def overlap(a: list[float], b: list[float], union: bool) -> float:
    """Intersection of two boxes x y width height over their union, or over the first one's area."""
    width = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    height = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    inter = width * height
    return inter / (a[2] * a[3] + b[2] * b[3] - inter) if union else inter / (a[2] * a[3])


def area(hits: list[bool], boxes: int) -> float:
    """Area under the curve of VOC 2010: at every change of recall the largest precision from there on."""
    if boxes == 0:
        return math.nan
    points = [(sum(hits[:n]) / boxes, sum(hits[:n]) / n) for n in range(1, len(hits) + 1)]  # recall, precision
    recalls = sorted({0.0, *(recall for recall, _ in points)})
    best = [max(precision for recall, precision in points if recall >= b) for b in recalls[1:]]
    return sum((b - a) * height for (a, b), height in zip(pairwise(recalls), best))
