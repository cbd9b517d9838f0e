"""The built-in weights: detections and AP on three photographs are those of official YOLOX's own code."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

import yolox_lt
from tests.conftest import GOLDEN
from yolox_lt.boxes import pairwise_iou
from yolox_lt.evaluate import evaluate_coco

pytestmark = pytest.mark.xdist_group("real")

PHOTOS = GOLDEN / "coco_images"


@pytest.fixture(scope="module")
def found():
    """Image id -> our detections."""
    detector = yolox_lt.load("yolox-nano")
    images = json.loads((PHOTOS / "instances.json").read_text())["images"]
    return {image["id"]: detector(str(PHOTOS / image["file_name"]), conf=0.01) for image in images}


def test_detections__equal_the_official_ones(found, golden):
    theirs = golden("yolox_nano_real.npz")
    compared = 0
    for number, own in found.items():
        boxes, scores, labels = (theirs[f"{number}_{part}"] for part in ("boxes", "scores", "labels"))
        iou = pairwise_iou(torch.as_tensor(own.boxes), torch.tensor(boxes)).numpy()
        own_labels, own_scores = own.labels.numpy(), own.scores.numpy()
        same = (own_labels[:, None] == labels[None]) & (iou > 0.97) & (abs(own_scores[:, None] - scores[None]) < 0.004)
        assert same.any(0)[scores > 0.05].all()
        assert same.any(1)[own_scores > 0.05].all()
        compared += int((scores > 0.05).sum())
    assert compared > 20


def test_scores__equal_the_official_ones(found, golden):
    theirs = golden("yolox_nano_real.npz")
    truth = json.loads((PHOTOS / "instances.json").read_text())
    ids = [category["id"] for category in truth["categories"]]

    def rows(detections):
        return [
            {"image_id": n, "category_id": ids[label], "bbox": [x, y, r - x, b - y], "score": score}
            for n, boxes, scores, labels in detections
            for (x, y, r, b), score, label in zip(boxes.tolist(), scores.tolist(), labels.tolist())
        ]

    own = evaluate_coco(truth, rows((n, d.boxes, d.scores, d.labels) for n, d in found.items()))
    other = evaluate_coco(
        truth, rows((n, *(theirs[f"{n}_{part}"] for part in ("boxes", "scores", "labels"))) for n in found)
    )
    assert other.metrics["AP"] > 0.3
    for metric in ("AP", "AP50", "AP75", "AR"):
        assert own.metrics[metric] == pytest.approx(other.metrics[metric], abs=0.01), metric
    assert np.isfinite(own.metrics["AP"])
