"""Intervals: weights against copies of the images scored by the evaluator itself, cases worked by hand."""

from __future__ import annotations

import numpy as np
import pytest

from tests.evaluate.cases import random_case
from yolox_lt.data.annotations.index import AnnotationIndex
from yolox_lt.errors import UserError
from yolox_lt.evaluate import evaluate_lvis
from yolox_lt.evaluate.bootstrap import Matched, bootstrap, interval_table, intervals, resamples
from yolox_lt.evaluate.coco import evaluate_coco


def distinct(results):
    """Scores that no two detections share; their order stays that of the old scores."""
    return [{**entry, "score": entry["score"] + 1e-6 * k} for k, entry in enumerate(results)]


def copies(truth, results, weights):
    """The data set in which image i (by ascending id) occurs weights[i] times."""
    ids = sorted(image["id"] for image in truth["images"])
    new = {old: [1000 * old + k for k in range(w)] for old, w in zip(ids, weights.tolist())}
    images = [{**image, "id": i} for image in truth["images"] for i in new[image["id"]]]
    boxes = [{**box, "image_id": i} for box in truth["annotations"] for i in new[box["image_id"]]]
    boxes = [{**box, "id": k + 1} for k, box in enumerate(boxes)]
    found = [{**entry, "image_id": i} for entry in results for i in new[entry["image_id"]]]
    return {**truth, "images": images, "annotations": boxes}, found


@pytest.mark.parametrize("federated", [True, False])
@pytest.mark.parametrize("seed", range(4))
def test_metrics__equal_those_of_a_set_with_copies(federated, seed):
    truth, results = random_case(seed, federated, crowd=not federated)
    results = distinct(results)
    matched = Matched.of(AnnotationIndex.load(truth), results)
    score = evaluate_lvis if federated else evaluate_coco
    weights = [np.ones(12, np.int64), *resamples(12, 6, seed)]
    weights.append(np.arange(12) % 2)  # one half
    for weight in weights:
        want = score(*copies(truth, results, weight)).metrics
        found = matched.metrics(weight)
        assert found == pytest.approx([want[name] for name in ("AP", "APr", "APc", "APf")], abs=1e-9, nan_ok=True)


def by_hand():
    """Image 1: one box, found. Image 2: one box, missed, and a false positive that scores higher."""
    box = [0, 0, 20, 20]
    truth = {
        "images": [{"id": i, "width": 50, "height": 50} for i in (1, 2)],
        "categories": [{"id": 1, "name": "a", "frequency": "r"}],
        "annotations": [{"id": i, "image_id": i, "category_id": 1, "bbox": box, "area": 400} for i in (1, 2)],
    }
    one = {"image_id": 1, "category_id": 1, "bbox": box, "score": 0.5}
    return truth, [one, {"image_id": 2, "category_id": 1, "bbox": [30, 30, 9, 9], "score": 0.9}]


def test_metrics__by_hand():
    """Both images: precision 1/2 up to recall 1/2, 51 of 101 points. Twice the first: 1; twice the second: 0."""
    matched = Matched.of(AnnotationIndex.load(by_hand()[0]), by_hand()[1])
    assert matched.metrics(np.array([1, 1]))[0] == pytest.approx(0.5 * 51 / 101)
    assert matched.metrics(np.array([2, 0])) == pytest.approx([1, 1, np.nan, np.nan], nan_ok=True)
    assert matched.metrics(np.array([0, 2]))[0] == 0
    # two of three: precision 2/3 up to recall 2/3: points 0.00 to 0.66
    assert matched.metrics(np.array([2, 1]))[0] == pytest.approx(2 / 3 * 67 / 101)
    assert np.isnan(matched.metrics(np.array([0, 0]))).all()
    nothing = Matched.of(AnnotationIndex.load(by_hand()[0]), [])
    assert nothing.metrics(np.array([1, 1]))[0] == 0


def test_bootstrap__results_share_their_resamples():
    truth, results = random_case(1)
    index = AnnotationIndex.load(truth)
    first = Matched.of(index, results)
    same, weaker = bootstrap([first, first], 20), bootstrap([first, Matched.of(index, results[::2])], 20)
    assert np.array_equal(same[0], same[1], equal_nan=True)
    assert np.array_equal(same[0], weaker[0], equal_nan=True)
    assert not np.array_equal(weaker[0], weaker[1], equal_nan=True)
    assert (resamples(7, 5).sum(axis=1) == 7).all()
    assert np.array_equal(resamples(7, 5, 3), resamples(7, 5, 3))


def test_intervals__percentiles():
    samples = np.stack([np.arange(101) / 100, np.full(101, np.nan)], axis=1)
    assert intervals(samples) == pytest.approx(np.array([[0.025, np.nan], [0.975, np.nan]]), nan_ok=True)
    values = np.array([0.5, 0.5, np.nan, 0.5])
    text = interval_table(values, np.stack([samples[:, 0]] * 4, axis=1), "title")
    assert "AP   50.00  [2.50, 97.50]" in text
    assert "101 resamples" in text


def test_matched__open_images_is_refused(golden):
    index = AnnotationIndex.load(by_hand()[0])
    index.open_images = True
    with pytest.raises(UserError, match="not for Open Images"):
        Matched.of(index, [])
