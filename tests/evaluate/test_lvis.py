"""evaluate_lvis against stored results of the LVIS API and of the authors of AP-pool, and against hand-worked cases."""

from __future__ import annotations

import copy
import inspect
import itertools
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.evaluate.cases import random_case
from yolox_lt.data.annotations.index import AnnotationIndex
from yolox_lt.errors import UserError
from yolox_lt.evaluate import DetectionArrays, Report, evaluate_lvis, matching
from yolox_lt.evaluate.metrics import DROPPED, TRUE_POSITIVE

GOLDEN = Path(__file__).parents[1] / "golden"
CASES = {case["name"]: case for case in json.loads((GOLDEN / "lvis_eval_case.json").read_text())["cases"]}
POOL_NAMES = {"AP-pooled-all": "AP", "AP-pooled-r": "APr", "AP-pooled-c": "APc", "AP-pooled-f": "APf"}


def assert_values(ours: dict[str, float], expected: dict[str, float]) -> None:
    """Equal to 1e-9; -1 in the stored values stands for nothing to average."""
    for key, value in expected.items():
        name = POOL_NAMES.get(key, key.partition("@")[0])
        assert ours[name] == pytest.approx(math.nan if value == -1 else value, abs=1e-9, nan_ok=True), key


def assert_categories(report: Report, expected: dict[str, dict[str, float]]) -> None:
    label_of = {category_id: c for c, category_id in enumerate(report.category_ids.tolist())}
    for category_id, values in expected.items():
        c = label_of[int(category_id)]
        assert_values({name: float(column[c]) for name, column in report.per_category.items()}, values)


def assert_equal_reports(a: Report, b: Report) -> None:
    np.testing.assert_equal(a.metrics, b.metrics)
    np.testing.assert_equal(a.per_category, b.per_category)
    np.testing.assert_array_equal(a.precision, b.precision)


@pytest.mark.parametrize("name", CASES)
def test_evaluate_lvis__golden(name: str) -> None:
    case, expected = CASES[name], CASES[name]["expected"]
    report = evaluate_lvis(case["gt"], case["dt"])
    assert " ".join(report.metrics) == "AP AP50 AP75 APs APm APl APr APc APf AR ARs ARm ARl"
    assert_values(report.metrics, expected["results"])
    assert_categories(report, expected["per_category"])
    status = {str(d): outcome for d, outcome in enumerate(report.status_names()) if outcome != "dropped"}
    assert status == expected["detection_status_iou50_area_all"]
    for category_id, precision in expected.get("precision_iou50_area_all", {}).items():
        c = report.category_ids.tolist().index(int(category_id))
        expected_curve = np.where(np.array(precision) == -1, np.nan, precision)
        np.testing.assert_allclose(report.precision[c, 0], expected_curve, rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", ["cap_300_per_image", "mixed_random_no_ignore"])
def test_evaluate_lvis__golden_fixed_and_pool(name: str) -> None:
    case = CASES[name]
    for protocol in ("fixed", "pool"):
        for item in case["expected"][f"ap_{protocol}"]:
            count = item["dets_per_category"]
            report = evaluate_lvis(case["gt"], case["dt"], protocol=protocol, dets_per_category=count)
            assert_values(report.metrics, item["results"])
            assert f"{count} detections per category" in report.table()


def test_evaluate_lvis__golden_real_annotations() -> None:
    expected = json.loads((GOLDEN / "lvis_val_100_expected.json").read_text())
    index = AnnotationIndex.load(GOLDEN / "lvis_val_100.json", cache=False)
    report = evaluate_lvis(index, GOLDEN / "lvis_val_100_pseudo_results.json")
    assert_values(report.metrics, expected["results"])
    assert_categories(report, expected["per_category"])
    assert np.count_nonzero(report.box_counts) == len(expected["per_category"]) == 190
    assert len(report.status) == expected["n_detections"]


def test_evaluate_lvis__arrays_equal_dicts() -> None:
    gt, dt = CASES["mixed_random"]["gt"], CASES["mixed_random"]["dt"]
    arrays = DetectionArrays(*(np.array([d[key] for d in dt]) for key in ("image_id", "category_id", "bbox", "score")))
    assert_equal_reports(evaluate_lvis(gt, dt), evaluate_lvis(AnnotationIndex.load(gt), arrays))


@pytest.mark.parametrize("protocol", ["default", "pool"])
def test_evaluate_lvis__order_of_images_does_not_matter(protocol: Any) -> None:
    """As it would come from ranks that split the images between them: only the order inside an image is kept."""
    gt, dt = random_case(3, num_images=20)
    expected = evaluate_lvis(gt, dt, max_dets=8, protocol=protocol)
    by_image = {i: [d for d in dt if d["image_id"] == i] for i in {d["image_id"] for d in dt}}
    for seed in range(5):
        keys = np.random.default_rng(seed).permutation(list(by_image)).tolist()
        shuffled = list(itertools.chain.from_iterable(by_image[key] for key in keys))
        assert shuffled != dt
        assert_equal_reports(evaluate_lvis(gt, shuffled, max_dets=8, protocol=protocol), expected)


def test_evaluate_lvis__order_of_ranks_does_not_matter_at_the_cap_per_category() -> None:
    gt, dt = random_case(3, num_images=20)
    parts = []
    for i in sorted({d["image_id"] for d in dt}):
        columns = zip(*((i, d["category_id"], d["bbox"], d["score"]) for d in dt if d["image_id"] == i))
        parts.append(DetectionArrays(*(np.array(column) for column in columns)))
    a, b = DetectionArrays.concatenate(parts), DetectionArrays.concatenate(parts[::-1])
    options: dict[str, Any] = {"protocol": "fixed", "dets_per_category": 7}
    assert_equal_reports(evaluate_lvis(gt, a, **options), evaluate_lvis(gt, b, **options))


def test_evaluate_lvis__order_does_not_matter_without_ties() -> None:
    gt, dt = random_case(5)
    for k, entry in enumerate(dt):
        entry["score"] += k * 1e-6
    expected = evaluate_lvis(gt, dt)
    assert_equal_reports(evaluate_lvis(gt, dt[::-1]), expected)
    gt["images"].reverse()
    gt["categories"].reverse()
    assert_equal_reports(evaluate_lvis(gt, dt), expected)


def test_evaluate_lvis__block_size_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    gt, dt = random_case(7, num_images=30)
    expected = evaluate_lvis(gt, dt)
    monkeypatch.setattr(matching, "_PAIRS_AT_ONCE", 3)
    monkeypatch.setattr(matching, "_MATCHES_AT_ONCE", 2)
    assert_equal_reports(evaluate_lvis(gt, dt), expected)


def example(federated: bool = True) -> dict[str, Any]:
    """Image 0 holds one box of category 0 (annotation id 0), image 7 two of category 30; category 12 has no boxes."""
    lists = {"neg_category_ids": [12], "not_exhaustive_category_ids": []} if federated else {}
    return {
        "images": [{"id": 7, "width": 200, "height": 200, **lists}, {"id": 0, "width": 200, "height": 200, **lists}],
        "categories": [{"id": 30, "name": "last"}, {"id": 0, "name": "first"}, {"id": 12, "name": "none"}],
        "annotations": [
            {"id": 0, "image_id": 0, "category_id": 0, "bbox": [0, 0, 40, 40], "area": 1600},
            {"id": 1, "image_id": 7, "category_id": 30, "bbox": [0, 0, 10, 10], "area": 100},
            {"id": 2, "image_id": 7, "category_id": 30, "bbox": [50, 50, 100, 100], "area": 10000},
        ],
    }


def found(image_id: int, category_id: int, bbox: list[float], score: float) -> dict[str, Any]:
    return {"image_id": image_id, "category_id": category_id, "bbox": bbox, "score": score}


def test_evaluate_lvis__worked_by_hand() -> None:
    detections = [
        found(7, 30, [50, 50, 100, 81], 0.9),  # IoU 0.81: found at 0.50 ... 0.80, 7 of 10 thresholds
        found(7, 30, [150, 0, 10, 10], 0.8),  # misses
        found(7, 12, [0, 0, 9, 9], 0.7),  # verified absent, but no category with boxes
        found(0, 30, [0, 0, 9, 9], 0.99),  # unverified there: dropped
        found(0, 0, [0, 0, 40, 40], 0.2),
    ]
    report = evaluate_lvis(example(), detections, groups=["r", "c", "f"])
    # Category 0: AP 1. Category 30: half of the boxes are found first, precision 1 at recalls 0 ... 0.5: 51 of 101.
    ap = [1.0, math.nan, 51 / 101 * 0.7]
    assert report.per_category["AP"].tolist() == pytest.approx(ap, nan_ok=True)
    assert report.per_category["AP50"].tolist() == pytest.approx([1, math.nan, 51 / 101], nan_ok=True)
    assert report.per_category["AR"].tolist() == pytest.approx([1, math.nan, 0.35], nan_ok=True)
    # Small: the box of 10 x 10 alone, not found. Large: the other alone, found first.
    assert report.per_category["APs"].tolist() == pytest.approx([math.nan, math.nan, 0], nan_ok=True)
    assert report.per_category["APl"].tolist() == pytest.approx([math.nan, math.nan, 0.7], nan_ok=True)
    assert report.metrics["AP"] == pytest.approx((ap[0] + ap[2]) / 2)
    assert report.metrics["APr"] == pytest.approx(1)
    assert math.isnan(report.metrics["APc"])
    assert report.metrics["APf"] == pytest.approx(ap[2])
    assert report.status_names() == ["tp", "fp", "dropped", "dropped", "tp"]
    assert report.box_counts.tolist() == [1, 0, 2]
    assert report.detection_counts.tolist() == [1, 1, 2]


@pytest.mark.parametrize(("second", "outcome"), [([0, 0, 10, 10], "tp"), ([4, 0, 10, 10], "fp")])
def test_evaluate_lvis__later_box_of_equal_overlap_is_taken(second: list[float], outcome: str) -> None:
    """The first detection overlaps both boxes by 8 / 12 and takes the later one; the second overlaps one by 1."""
    gt = example()
    gt["annotations"][1]["bbox"], gt["annotations"][2]["bbox"] = [0, 0, 10, 10], [4, 0, 10, 10]
    report = evaluate_lvis(gt, [found(7, 30, [2, 0, 10, 10], 0.9), found(7, 30, second, 0.8)])
    assert report.status_names() == ["tp", outcome]


def test_evaluate_lvis__complete_file_judges_every_category_everywhere() -> None:
    detections = [found(0, 0, [0, 0, 40, 40], 0.5), found(7, 0, [0, 0, 40, 40], 0.9)]
    federated, complete = (evaluate_lvis(example(value), detections) for value in (True, False))
    assert federated.status_names() == ["tp", "dropped"]
    assert complete.status_names() == ["tp", "fp"]
    assert complete.per_category["AP"][0] == pytest.approx(0.5)
    assert "every category verified in every image" in complete.table()
    assert "verified" not in federated.table()


@pytest.mark.parametrize("protocol", ["default", "fixed", "pool"])
def test_evaluate_lvis__no_detections(protocol: Any) -> None:
    report = evaluate_lvis(example(), [], protocol=protocol)
    assert report.metrics["AP"] == report.metrics["AR"] == report.metrics["APs"] == 0
    assert math.isnan(report.metrics["APr"])  # the file has no groups
    assert report.per_category["AP"].tolist() == pytest.approx([0, math.nan, 0], nan_ok=True)
    assert report.status.shape == (0,)


def test_evaluate_lvis__no_boxes_to_be_found() -> None:
    gt = example() | {"annotations": []}
    report = evaluate_lvis(gt, [found(0, 12, [0, 0, 5, 5], 0.5)])
    assert all(math.isnan(value) for value in report.metrics.values())
    assert report.status_names() == ["dropped"]
    for image in gt["images"]:
        del image["neg_category_ids"], image["not_exhaustive_category_ids"]
    assert math.isnan(evaluate_lvis(gt, [found(0, 12, [0, 0, 5, 5], 0.5)]).metrics["AP"])


def test_evaluate_lvis__crowd_absorbs_any_number() -> None:
    gt = example()
    gt["annotations"][2]["iscrowd"] = 1
    inside = [found(7, 30, [60 + k, 60, 20, 20], 0.9) for k in range(5)]
    report = evaluate_lvis(gt, [*inside, found(7, 30, [0, 0, 10, 10], 0.1)])
    assert report.status_names() == ["ignored"] * 5 + ["tp"]
    assert report.per_category["AP"][2] == pytest.approx(1)
    assert report.box_counts.tolist() == [1, 0, 1]


def test_evaluate_lvis__box_that_is_not_finite_is_left_out() -> None:
    gt = example()
    gt["annotations"][1]["bbox"][0] = math.nan
    report = evaluate_lvis(gt, [found(7, 30, [50, 50, 100, 100], 0.5)])
    assert report.box_counts.tolist() == [1, 0, 1]
    assert report.per_category["AP"][2] == pytest.approx(1)


def test_evaluate_lvis__pool_ranks_categories_together() -> None:
    """Perfect inside every category; the scores of the second are far lower than a mistake of the first."""
    gt = example(federated=False)
    detections = [
        found(7, 30, [0, 0, 10, 10], 0.9),
        found(7, 30, [50, 50, 100, 100], 0.8),
        found(7, 30, [120, 0, 10, 10], 0.7),
        found(7, 12, [120, 0, 10, 10], 0.6),  # a category without boxes is a mistake in the pool
        found(0, 0, [0, 0, 40, 40], 0.1),
    ]
    assert evaluate_lvis(gt, detections).metrics["AP"] == pytest.approx(1)
    report = evaluate_lvis(gt, detections, protocol="pool", groups=["r", "c", "f"])
    # Recall 1/3 and 2/3 at precision 1 (recalls 0 ... 0.66), recall 1 at precision 3/5 (0.67 ... 1).
    assert report.metrics["AP"] == pytest.approx((67 + 34 * 3 / 5) / 101)
    assert report.metrics["APr"] == pytest.approx(1)
    assert math.isnan(report.metrics["APc"])
    assert report.metrics["APf"] == pytest.approx(1)
    assert report.per_category["AP"].tolist() == pytest.approx([1, math.nan, 1], nan_ok=True)
    assert report.status_names() == ["tp", "tp", "fp", "fp", "tp"]


def test_evaluate_lvis__groups_override_the_file() -> None:
    gt, dt = random_case(11, num_categories=3)
    gt["annotations"] = [entry for entry in gt["annotations"] if not entry["iscrowd"]]
    own = evaluate_lvis(gt, dt)
    assert own.groups.tolist() == ["r", "c", "f"]
    given = evaluate_lvis(gt, dt, groups=np.array(["f", "r", "r"]))
    assert given.metrics["APf"] == own.metrics["APr"]
    assert given.metrics["APr"] == pytest.approx(np.nanmean(own.per_category["AP"][1:]))
    with pytest.raises(ValueError, match="3 categories"):
        evaluate_lvis(gt, dt, groups=["r", "x", "f"])


def test_evaluate_lvis__does_not_change_its_inputs() -> None:
    gt, dt = random_case(2)
    before = copy.deepcopy((gt, dt))
    evaluate_lvis(gt, dt, max_dets=3)
    assert (gt, dt) == before


def test_evaluate_lvis__refuses_impossible_requests() -> None:
    with pytest.raises(UserError, match="0 detections per image"):
        evaluate_lvis(example(), [], max_dets=0)
    with pytest.raises(UserError, match="'fast'"):
        evaluate_lvis(example(), [], protocol="fast")  # type: ignore[arg-type]


@pytest.mark.parametrize("pairs", [1, 4, 10])
def test_overlapping_pairs__come_once_whatever_the_block(monkeypatch: pytest.MonkeyPatch, pairs: int) -> None:
    """Five detections of one image and category on three boxes: every one overlaps every box by half or more."""
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 11], [0, 0, 10, 12]], float)
    detections = np.repeat(boxes[:1], 5, axis=0)
    first_box, num_boxes = np.zeros(5, np.int64), np.full(5, 3)
    monkeypatch.setattr(matching, "_PAIRS_AT_ONCE", pairs)
    detection, box, iou = matching.overlapping_pairs(detections, first_box, num_boxes, boxes, np.zeros(3, bool))
    assert detection.tolist() == np.repeat(np.arange(5), 3).tolist()
    assert box.tolist() == [0, 1, 2] * 5
    assert iou.tolist() == pytest.approx([1, 10 / 11, 10 / 12] * 5)


def test_evaluate_lvis__defaults_are_those_of_the_protocols() -> None:
    defaults = {name: p.default for name, p in inspect.signature(evaluate_lvis).parameters.items()}
    assert (defaults["max_dets"], defaults["dets_per_category"], defaults["protocol"]) == (300, 10_000, "default")


def test_evaluate_lvis__one_detection_of_an_image_may_be_all_that_counts() -> None:
    boxes = [found(7, 30, [0, 0, 10, 10], 0.9), found(7, 30, [50, 50, 100, 100], 0.8), found(0, 0, [0, 0, 40, 40], 0.1)]
    report = evaluate_lvis(example(), boxes, max_dets=1)
    assert report.status.tolist() == [TRUE_POSITIVE, DROPPED, TRUE_POSITIVE]


def test_sizes__begin_at_nothing_and_both_ends_belong_to_them() -> None:
    areas = np.array([0.5, 1024, 1025, 9216, 9217])
    assert (~matching.outside_ranges(areas)).tolist() == [
        [True, True, False, False],
        [True, True, True, False],
        [True, False, True, False],
        [True, False, True, True],
        [True, False, False, True],
    ]


def test_iou__of_boxes_narrower_than_a_pixel() -> None:
    thin = np.array([[3, 3, 0.5, 0.25]])
    assert matching._iou(thin, thin, np.zeros(1, bool)).tolist() == [1]
    assert matching._iou(thin, thin + np.array([0.5, 0, 0, 0]), np.zeros(1, bool)).tolist() == [0]
