"""evaluate_coco against pycocotools."""

from __future__ import annotations

import contextlib
import copy
import io
import math
from typing import Any

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from tests.data.own_data import bccd
from tests.evaluate.cases import random_case
from yolox_lt.evaluate import evaluate_coco, evaluate_lvis


def pycocotools_metrics(gt: dict[str, Any], dt: list[dict[str, Any]], max_dets: int) -> dict[str, float]:
    coco = pytest.importorskip("pycocotools.coco")
    cocoeval = pytest.importorskip("pycocotools.cocoeval")
    with contextlib.redirect_stdout(io.StringIO()):
        truth = coco.COCO()
        truth.dataset = copy.deepcopy(gt)
        truth.createIndex()
        evaluation = cocoeval.COCOeval(truth, truth.loadRes(copy.deepcopy(dt)), "bbox")
        evaluation.params.maxDets = [1, 1, max_dets]
        evaluation.evaluate()
        evaluation.accumulate()
    precision = evaluation.eval["precision"][..., 2]  # [T, 101, C, A]
    recall = evaluation.eval["recall"][..., 2]  # [T, C, A]
    values = {"AP": precision[..., 0], "AP50": precision[0, ..., 0], "AP75": precision[5, ..., 0], "AR": recall[..., 0]}
    for k, size in enumerate("sml", 1):
        values |= {f"AP{size}": precision[..., k], f"AR{size}": recall[..., k]}
    return {name: float(v[v > -1].mean()) if (v > -1).any() else math.nan for name, v in values.items()}


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("max_dets", [2, 100])
def test_evaluate_coco__equals_pycocotools(seed: int, max_dets: int) -> None:
    """With crowd regions, with boxes whose area is not width * height, with more detections than allowed."""
    gt, dt = random_case(seed, federated=seed % 2 == 0, crowd=True)
    for entry in gt["annotations"][::5]:
        entry["ignore"] = 1  # which pycocotools does not heed
    expected = pycocotools_metrics(gt, dt, max_dets)
    report = evaluate_coco(gt, dt, max_dets=max_dets)
    for name, value in expected.items():
        assert report.metrics[name] == pytest.approx(value, abs=1e-9, nan_ok=True), name
    assert f"{max_dets} detections per image and category" in report.table()


def test_evaluate_coco__detections_without_area_are_false_positives() -> None:
    gt, dt = random_case(1, federated=False)
    dt = [{**dt[0], "bbox": [5, 5, 0, 20], "score": 1.0}, *dt]
    expected = pycocotools_metrics(gt, dt, 100)
    assert evaluate_coco(gt, dt).metrics["AP"] == pytest.approx(expected["AP"], abs=1e-9)
    assert evaluate_coco(gt, dt).status_names()[0] == "fp"
    assert evaluate_lvis(gt, dt).status_names()[0] == "dropped"


@pytest.mark.parametrize("seed", range(3))
def test_evaluate_lvis__equals_pycocotools_on_complete_annotations(seed: int) -> None:
    """Nothing unverified, no cap that bites, no empty boxes: then LVIS and COCO measure the same."""
    gt, dt = random_case(seed, federated=False, crowd=True)
    dt = [entry for entry in dt if min(entry["bbox"][2:]) > 0]
    expected = pycocotools_metrics(gt, dt, 100)
    plain = evaluate_lvis(gt, dt)
    present: dict[int, set[int]] = {image["id"]: set() for image in gt["images"]}
    for entry in gt["annotations"]:
        present[entry["image_id"]].add(entry["category_id"])
    for image in gt["images"]:
        absent = {category["id"] for category in gt["categories"]} - present[image["id"]]
        image |= {"neg_category_ids": sorted(absent), "not_exhaustive_category_ids": []}
    listed = evaluate_lvis(gt, dt)
    for name, value in expected.items():
        assert plain.metrics[name] == pytest.approx(value, abs=1e-9, nan_ok=True), name
        assert listed.metrics[name] == pytest.approx(value, abs=1e-9, nan_ok=True), name


def test_evaluate_coco__no_detections() -> None:
    gt, _ = random_case(0, federated=False)
    report = evaluate_coco(gt, [])
    assert report.metrics["AP"] == 0
    assert np.nansum(report.per_category["AR"]) == 0


def official_twelve(gt: dict[str, Any], dt: list[dict[str, Any]]) -> dict[str, float]:
    """The numbers that pycocotools prints, NaN for its -1."""
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = copy.deepcopy(gt)
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(copy.deepcopy(dt)), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    names = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")
    return {name: math.nan if value == -1 else float(value) for name, value in zip(names, evaluation.stats)}


@pytest.mark.parametrize("seed", range(50))
def test_evaluate_coco__twelve_metrics_equal_pycocotools(seed: int) -> None:
    """Crowds, ties of scores and IoUs, a category without boxes, one without detections, an image without either."""
    gt, dt = random_case(100 + seed, federated=False, crowd=True, num_images=8, num_categories=6)
    first, second = sorted(category["id"] for category in gt["categories"])[:2]
    gt["annotations"] = [entry for entry in gt["annotations"] if entry["category_id"] != first]
    dt = [entry for entry in dt if entry["category_id"] != second]
    report = evaluate_coco(gt, dt)
    for name, value in official_twelve(gt, dt).items():
        assert report.metrics[name] == pytest.approx(value, abs=1e-9, nan_ok=True), name
    assert report.metrics["AR"] == report.metrics["AR100"]


def test_evaluate_coco__twelve_metrics_on_bccd() -> None:
    """A real split: 87 images, 1137 boxes; in one image so many detections of a category that the cap of 100 bites."""
    gt = bccd()
    rng = np.random.default_rng(5)
    dt = []
    crowded = np.bincount([entry["image_id"] for entry in gt["annotations"]]).argmax()
    for entry in gt["annotations"]:
        for _ in range(12 if entry["image_id"] == crowded else int(rng.integers(0, 4))):
            moved = (np.array(entry["bbox"]) * rng.normal(1, 0.07, 4)).tolist()
            category = int(rng.integers(1, 4)) if rng.random() < 0.1 else entry["category_id"]
            score = round(float(rng.random()), 2)  # ties
            dt.append({"image_id": entry["image_id"], "category_id": category, "bbox": moved, "score": score})
    assert max(np.unique([d["image_id"] * 10 + d["category_id"] for d in dt], return_counts=True)[1]) > 100
    report = evaluate_coco(gt, dt)
    for name, value in official_twelve(gt, dt).items():
        assert report.metrics[name] == pytest.approx(value, abs=1e-9, nan_ok=True), name
    heads = report.table().splitlines()[3].split()
    assert heads == ["AR1", "AR10", "AR100", "ARs", "ARm", "ARl"]
