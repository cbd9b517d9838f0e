"""Kinds of errors: cases worked by hand, and the same by plain loops over images."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.evaluate.cases import random_case
from yolox_lt.data.annotations.index import AnnotationIndex
from yolox_lt.evaluate import evaluate_lvis
from yolox_lt.evaluate.coco import evaluate_coco
from yolox_lt.evaluate.results import DetectionArrays, load_detections
from yolox_lt.report.analysis.analysis import analyse
from yolox_lt.report.analysis.tide import (
    KINDS,
    MISSED,
    Objects,
    claimed_objects,
    confused_pairs,
    iou_of_pairs,
    kinds_of,
    missed_objects,
    objects_of,
    overlaps_of,
)


def one_image(labels, boxes):
    return Objects(np.zeros(len(labels), int), np.array(labels), np.array(boxes, float), np.array([0, len(labels)]))


def kind(label, box, objects):
    overlaps = overlaps_of(np.array([0]), np.array([label]), np.array([box], float), objects)
    return KINDS[kinds_of(overlaps)[0]]


def test_kinds__each_by_hand():
    # A box of category 0 at x 0 to 10, one of category 1 at x 100 to 110, all 10 high.
    objects = one_image([0, 1], [[0, 0, 10, 10], [100, 0, 10, 10]])
    assert kind(0, [0, 0, 10, 10], objects) == "duplicate"  # a false positive at IoU 1: the box was taken
    assert kind(0, [0, 0, 10, 5], objects) == "duplicate"  # IoU exactly 0.5
    assert kind(0, [0, 0, 10, 4.9], objects) == "localisation"
    assert kind(0, [0, 0, 10, 1], objects) == "localisation"  # IoU exactly 0.1
    assert kind(0, [0, 0, 10, 0.9], objects) == "background"
    assert kind(0, [100, 0, 10, 5], objects) == "classification"
    assert kind(0, [100, 0, 10, 4.9], objects) == "both"
    assert kind(0, [100, 0, 10, 1], objects) == "background"  # IoU exactly 0.1 with another category
    assert kind(0, [50, 0, 10, 10], objects) == "background"
    assert kind(2, [0, 0, 10, 10], objects) == "classification"
    assert kind(0, [0, 0, 10, 10], one_image([], np.zeros((0, 4)))) == "background"


def test_kinds__precedence():
    # The own category at IoU 4/10, another one at 1: localisation. At 1 and 1: classification.
    assert kind(0, [0, 0, 10, 4], one_image([0, 1], [[0, 0, 10, 10], [0, 0, 10, 4]])) == "localisation"
    assert kind(0, [0, 0, 10, 4], one_image([0, 1], [[0, 0, 10, 4], [0, 0, 10, 4]])) == "classification"


def test_missed__neither_found_nor_under_a_localisation_or_classification_error():
    objects = one_image([0, 0, 1, 1, 2], np.arange(20).reshape(5, 4))
    missed = missed_objects(objects, np.array([0, -1]), np.array([1]), np.array([2]))
    assert missed.tolist() == [False, False, False, True, True]


def test_claimed__the_best_detection_takes_its_nearest_box_the_next_what_is_left():
    objects = one_image([0, 0, 1], [[0, 0, 10, 10], [0, 0, 10, 9], [0, 0, 10, 10]])
    same = np.zeros(3, int)
    boxes = np.array([[0, 0, 10, 9], [0, 0, 10, 9], [0, 0, 10, 9]], float)
    assert claimed_objects(same, same, boxes, objects).tolist() == [1, 0, -1]
    equal = one_image([0, 0], [[0, 0, 10, 10], [0, 0, 10, 10]])
    assert claimed_objects(same, same, boxes, equal).tolist() == [1, 0, -1]  # of equals the later first


def test_confused_pairs__by_count_then_label():
    true, predicted = np.array([4, 0, 4, 0, 1, 4]), np.array([1, 3, 1, 3, 0, 1])
    assert confused_pairs(true, predicted, 5).tolist() == [[4, 1, 3], [0, 3, 2], [1, 0, 1]]
    assert confused_pairs(true, predicted, 5, most=1).tolist() == [[4, 1, 3]]
    assert confused_pairs(true[:0], predicted[:0], 5).shape == (0, 3)


def test_iou__by_hand():
    a, b = (
        np.array([[0, 0, 2, 2], [0, 0, 2, 2], [0, 0, 0, 0]], float),
        np.array([[1, 0, 2, 2], [2, 0, 2, 2], [0, 0, 0, 0]]),
    )
    assert iou_of_pairs(a, b.astype(float)).tolist() == [2 / 6, 0, 0]


def iou(a, b):
    width = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    height = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    return width * height / (a[2] * a[3] + b[2] * b[3] - width * height)


def by_loops(
    gt: dict[str, Any], detections: DetectionArrays, status: list[str], threshold: dict[int, float]
) -> tuple[dict[int, list[int]], dict[tuple[int, int], int]]:
    """Errors by category id and kind, confusions by (true, predicted) id, detection by detection."""
    ids = [category["id"] for category in gt["categories"]]
    errors = {category: [0] * len(KINDS) for category in ids}
    confused: dict[tuple[int, int], int] = {}
    for image in gt["images"]:
        boxes = [a for a in gt["annotations"] if a["image_id"] == image["id"] and not a["iscrowd"]]
        rows = [d for d in range(len(detections)) if detections.image_ids[d] == image["id"]]
        rows.sort(key=lambda d: -detections.scores[d])
        taken, covered = set(), set()
        for d in rows:
            category, box = int(detections.category_ids[d]), detections.boxes[d]
            own = [(iou(box, a["bbox"]), k) for k, a in enumerate(boxes) if a["category_id"] == category]
            if status[d] == "tp":
                _, best = max((v, k) for v, k in own if v >= 0.5 and k not in taken)
                taken.add(best)
                if detections.scores[d] >= threshold[category]:
                    covered.add(best)
            if status[d] != "fp" or not detections.scores[d] >= threshold[category]:
                continue
            other = [(iou(box, a["bbox"]), -k) for k, a in enumerate(boxes) if a["category_id"] != category]
            near, far = max(own, default=(0.0, 0))[0], max(other, default=(0.0, 0))
            if 0.1 <= near < 0.5:
                name = "localisation"
                covered.add(min(k for v, k in own if v == near))
            elif far[0] >= 0.5:
                name = "classification"
                covered.add(-far[1])
                pair = (boxes[-far[1]]["category_id"], category)
                confused[pair] = confused.get(pair, 0) + 1
            elif near >= 0.5:
                name = "duplicate"
            else:
                name = "background" if max(near, far[0]) <= 0.1 else "both"
            errors[category][KINDS.index(name)] += 1
        for k, a in enumerate(boxes):
            errors[a["category_id"]][MISSED] += k not in covered
    return errors, confused


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("federated", [True, False])
def test_errors__equal_plain_loops(seed, federated):
    gt, results = random_case(seed, federated=federated, crowd=not federated, num_images=30)
    index, detections = AnnotationIndex.load(gt), load_detections(results)
    report = (evaluate_lvis if federated else evaluate_coco)(index, detections)
    found, _ = analyse(index, detections, report)
    threshold = dict(zip(index.category_ids.tolist(), found.threshold.tolist()))
    errors, confused = by_loops(gt, detections, report.status_names(), threshold)
    assert dict(zip(index.category_ids.tolist(), found.errors.tolist())) == errors
    ids = index.category_ids.tolist()
    assert {(ids[t], ids[p]): n for t, p, n in found.confusion.tolist()} == confused
    assert found.errors[:, :MISSED].sum() > 20  # the case is worth comparing
    assert sum(confused.values()) > 3


def test_objects__crowd_ignored_and_empty_boxes_are_not_asked_for():
    entries = [
        {"bbox": [0, 0, 9, 9]},
        {"bbox": [0, 0, 9, 9], "iscrowd": 1},
        {"bbox": [0, 0, 9, 9], "ignore": 1},
        {"bbox": [0, 0, 9, 9], "area": 0},
    ]
    gt = {
        "images": [{"id": 5, "width": 20, "height": 20, "file_name": "a.jpg"}, {"id": 4, "width": 9, "height": 9}],
        "categories": [{"id": 1, "name": "a"}],
        "annotations": [{"id": k, "image_id": 5, "category_id": 1, **e} for k, e in enumerate(entries, 1)],
    }
    index = AnnotationIndex.load(gt)
    for evaluate, offsets in ((evaluate_lvis, [0, 0, 1]), (evaluate_coco, [0, 0, 3])):
        report = evaluate(index, [])
        objects = objects_of(index, report.to_find)
        assert objects.offsets.tolist() == offsets
        assert len(objects.labels) == report.box_counts.sum()


def test_objects__difficult_ones_of_voc_are_neither_missed_nor_claimed():
    """As in AP: a difficult object that is not found is no miss, one that is found makes no true positive."""
    gt = {
        "images": [{"id": 1, "width": 99, "height": 99, "file_name": "a.jpg"}],
        "categories": [{"id": 1, "name": "a"}],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 9, 9]},
            {"id": 2, "image_id": 1, "category_id": 1, "bbox": [40, 40, 9, 9], "ignore": 1},
        ],
        "heeds_ignore": True,
    }
    index = AnnotationIndex.load(gt)
    found = DetectionArrays(np.array([1]), np.array([1]), np.array([[0.0, 0, 9, 9]]), np.array([0.9]))
    report = evaluate_coco(index, found)
    assert report.metrics["AP50"] == pytest.approx(1)
    assert report.to_find.tolist() == [True, False]
    analysis, _ = analyse(index, found, report)
    assert analysis.errors.sum() == 0
