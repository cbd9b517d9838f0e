"""Thresholds worked by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from yolox_lt.calibrate import PriorAdjustment
from yolox_lt.calibrate.calibrator_state import Thresholds, calibrator_of, calibrator_state, thresholds_of
from yolox_lt.calibrate.choose import best_f1, choose, measured, reaching, shrunk
from yolox_lt.calibrate.fractal import FRACAL
from yolox_lt.data.annotations.index import AnnotationIndex
from yolox_lt.errors import UserError
from yolox_lt.report.analysis.category_thresholds import image_weights

SCORES, HIT = np.array([0.9, 0.8, 0.8, 0.5, 0.1]), np.array([True, False, True, False, True])


def test_rules__by_hand():
    # boxes 3; F1 at 0.9: 2/4, at 0.8: 4/6, at 0.5: 4/7, at 0.1: 6/8
    assert best_f1(SCORES, HIT, 3) == 0.1
    assert best_f1(SCORES[:4], HIT[:4], 3) == 0.8
    assert np.isnan(best_f1(SCORES[:0], HIT[:0], 3))
    assert np.isnan(best_f1(SCORES, ~HIT & HIT, 3))
    # precision 1 at 0.9, 2/3 at 0.8, 1/2 at 0.5, 3/5 at 0.1: the lowest that reaches it
    assert [reaching(p)(SCORES, HIT, 3) for p in (0.9, 0.65, 0.6, 0.5)] == [0.9, 0.8, 0.1, 0.1]
    assert np.isnan(reaching(0.9)(SCORES, ~HIT & HIT, 3))


def test_shrunk__closed_form():
    # ten boxes of its own weigh as much as the group: the middle of the logits ln 9 and -ln 9
    assert shrunk(0.9, 10, 0.1) == pytest.approx(0.5)
    # 30 of 40: logit = (30 ln 9 - 10 ln 9) / 40 = ln 3
    assert shrunk(0.9, 30, 0.1) == pytest.approx(0.75)
    assert shrunk(0.9, 1e9, 0.1) == pytest.approx(0.9)
    assert shrunk(float("nan"), 4, 0.2) == 0.2
    assert shrunk(0.3, 4, float("nan")) == 0.3


def test_choose__groups_and_categories_without_anything():
    """Category 0 and 1 rare: 1 never fires. 2 frequent without boxes, 3 frequent with many."""
    labels = np.array([0, 0, 3, 3, 3])
    scores = np.array([0.6, 0.2, 0.9, 0.7, 0.3])
    hit = np.array([True, False, True, True, False])
    boxes = np.array([1, 5, 0, 990])
    found = choose(labels, scores, hit, boxes, np.array(["r", "r", "f", "f"]))
    assert found.conf == pytest.approx([0.6, 0.6, 0.7, 0.7], abs=1e-6)
    assert found.precision == pytest.approx([1, np.nan, np.nan, 1], nan_ok=True)
    assert found.recall == pytest.approx([1, 0, np.nan, 2 / 990], nan_ok=True)
    same = measured(np.full(4, 0.3), labels, scores, hit, boxes)
    assert same.precision == pytest.approx([1, np.nan, np.nan, 2 / 3], nan_ok=True)
    assert same.recall == pytest.approx([1, 0, np.nan, 2 / 990], nan_ok=True)
    strict = choose(labels, scores, hit, boxes, None, precision=0.9)
    assert strict.conf == pytest.approx([0.6, np.nan, np.nan, 0.7], nan_ok=True)
    nothing = choose(labels[:0], scores[:0], hit[:0], boxes)
    assert np.isnan(nothing.conf).all()
    assert nothing.recall == pytest.approx([0, 0, np.nan, 0], nan_ok=True)


def test_choose__a_weight_is_so_many_false_positives():
    """As if each false positive stood there as often as its weight says."""
    rng = np.random.default_rng(0)
    labels, hit = np.sort(rng.integers(0, 5, 400)), rng.random(400) < 0.4
    scores = rng.permutation(np.linspace(0.01, 0.99, 400))
    order = np.lexsort((-scores, labels))
    labels, scores, hit = labels[order], scores[order], hit[order]
    weights = np.where(hit, 1, rng.integers(1, 5, 400))
    boxes, groups = rng.integers(20, 90, 5), np.array(list("rrcff"))
    many = [np.repeat(column, weights) for column in (labels, scores, hit)]
    for precision in (None, 0.4):
        found = choose(labels, scores, hit, boxes, groups, precision, weights.astype(float))
        wanted = choose(*many, boxes, groups, precision)
        for name in ("conf", "precision", "recall"):
            assert getattr(found, name) == pytest.approx(getattr(wanted, name), nan_ok=True), (precision, name)
    assert not np.array_equal(found.conf, choose(labels, scores, hit, boxes, groups, 0.4).conf, equal_nan=True)


def test_image_weights__by_hand():
    """Ten images. Category 0 is in two and was not found in four: each of those stands for 8 / 4 of the other images.
    Category 1 is in one, looked for in vain in none; category 2 nowhere, in vain in one.
    """
    images = [
        {"id": i, "width": 9, "height": 9, "neg_category_ids": [], "not_exhaustive_category_ids": []} for i in range(10)
    ]
    for i in (2, 3, 4, 5, 0):  # 0 has a box too, which tells more
        images[i]["neg_category_ids"] = [1]
    images[6]["neg_category_ids"] = [3]
    boxes = [(0, 1), (0, 1), (1, 1), (1, 2)]
    annotations = [
        {"id": k + 1, "image_id": i, "category_id": c, "bbox": [0, 0, 5, 5], "area": 25}
        for k, (i, c) in enumerate(boxes)
    ]
    categories = [{"id": c, "name": str(c)} for c in (1, 2, 3)]
    index = AnnotationIndex.load({"images": images, "annotations": annotations, "categories": categories})
    labels = np.array([0, 0, 0, 1, 1, 2, 2])
    at = np.array([0, 2, 9, 1, 2, 6, 0])
    assert image_weights(index, labels, at).tolist() == [1, 2, 1, 1, 1, 10, 1]


def test_choose__thresholds_keep_the_score_they_were_taken_from():
    score = float(np.float32(0.1)) + 1e-10  # rounds down to float32 and up again
    for value in (score, 0.7, 1 / 3):
        found = choose(np.zeros(1, int), np.array([value]), np.array([True]), np.array([10**9]), None, 0.5)
        assert found.conf[0] <= value
        assert found.precision[0] == 1


def test_state__round_trip_and_other_categories(tmp_path):
    names = ["a", "b", "c"]
    for made in (PriorAdjustment([1, 2, 3], 0.5, "mean"), FRACAL([1, 2, 3], 9, [1, 1, 1.5])):
        file = tmp_path / "state.pth"
        torch.save({"names": names, "calibrator": calibrator_state(made, names)}, file)
        content = torch.load(file, weights_only=True)
        logits = torch.randn(5, 3)
        assert torch.equal(calibrator_of(content, file).scores(logits), made.scores(logits))
    with pytest.raises(UserError, match="number 3 is 'c' there and 'd' in the model"):
        calibrator_of(content | {"names": ["a", "b", "d"]}, file)
    with pytest.raises(UserError, match="number 3 is 'c' there and 'none'"):
        calibrator_of(content | {"names": ["a", "b"]}, file)
    broken = content["calibrator"] | {"tensors": {"counts": torch.ones(2), "dimension": torch.ones(2)}}
    with pytest.raises(UserError, match=r"2\] entries for 3 categories"):
        calibrator_of(content | {"calibrator": broken}, file)
    with pytest.raises(UserError, match="not readable"):
        calibrator_of(content | {"calibrator": content["calibrator"] | {"name": "mean"}}, file)
    column = torch.tensor([0.5, float("nan"), 0.25])
    kept = Thresholds("best F1", column, column, column)
    again = thresholds_of({"names": names, "thresholds": kept.state(names)}, file)
    assert again.rule == "best F1"
    assert torch.equal(again.conf.nan_to_num(9), column.nan_to_num(9))
    assert thresholds_of({"names": names}, file) is None
    with pytest.raises(UserError, match="thresholds are not readable"):
        thresholds_of({"names": names, "thresholds": kept.state(names) | {"conf": torch.ones(2)}}, file)
