"""Reading detections, and what is refused."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.evaluate.cases import random_case
from yolox_lt.errors import UserError
from yolox_lt.evaluate import DetectionArrays, evaluate_lvis
from yolox_lt.evaluate.results import load_detections

ENTRY = {"image_id": 3, "category_id": 8, "bbox": [1, 2.5, 3, 4], "score": 0.25}


def test_load_detections__file_list_arrays(tmp_path: Path) -> None:
    entries = [ENTRY, {**ENTRY, "image_id": 0, "score": 1, "segmentation": {"size": [1, 1], "counts": "x"}, "id": 4}]
    path = tmp_path / "results.json"
    path.write_text(json.dumps(entries))
    for source in (path, str(path), entries, tuple(entries), load_detections(entries)):
        arrays = load_detections(source)
        assert len(arrays) == 2
        assert arrays.image_ids.tolist() == [3, 0]
        assert arrays.category_ids.tolist() == [8, 8]
        assert arrays.boxes.tolist() == [[1, 2.5, 3, 4]] * 2
        assert arrays.scores.tolist() == [0.25, 1]
        assert (arrays.image_ids.dtype, arrays.boxes.dtype, arrays.scores.dtype) == (np.int64, np.float64, np.float64)


def test_load_detections__numpy_values() -> None:
    entry = {
        "image_id": np.int32(3),
        "category_id": np.int64(8),
        "bbox": np.array([1, 2.5, 3, 4], np.float32),
        "score": np.float32(0.25),
    }
    arrays = load_detections([entry])
    assert arrays.boxes.tolist() == [[1, 2.5, 3, 4]]
    assert arrays.scores.tolist() == [0.25]


def test_load_detections__empty() -> None:
    assert load_detections([]).boxes.shape == (0, 4)
    assert DetectionArrays([], [], [], []).boxes.shape == (0, 4)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"score": float("nan")}, r"detection 1 has score nan"),
        ({"bbox": [0, 0, float("inf"), 3]}, r"detection 1 has score 0\.25 and box \[0\.0, 0\.0, inf, 3\.0\]"),
        ({"score": None}, r"entry \[1\]\.score: Expected `float`, got `null`"),
        ({"bbox": [1, 2, 3]}, r"entry \[1\]\.bbox: .*length 4"),
        ({"image_id": "3"}, r"entry \[1\]\.image_id: Expected `int`, got `str`"),
        ({"category_id": 1.5}, r"entry \[1\]\.category_id: Expected `int`, got `float`"),
    ],
)
def test_load_detections__refuses(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    entries = [ENTRY, {**ENTRY, **change}]
    path = tmp_path / "results.json"
    path.write_text(json.dumps(entries))
    with pytest.raises(UserError, match=rf"results\.json: {message}"):
        load_detections(path)
    with pytest.raises(UserError, match=message):
        load_detections(entries)


def test_load_detections__refuses_other_files(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.json: no such file"):
        load_detections(tmp_path / "none.json")
    path = tmp_path / "object.json"
    path.write_text('{"annotations": []}')
    with pytest.raises(UserError, match=r"object\.json: top level: Expected `array`, got `object`"):
        load_detections(path)
    path.write_text('[{"image_id": 3')
    with pytest.raises(UserError, match=r"object\.json: not a json file"):
        load_detections(path)
    with pytest.raises(UserError, match=r"entry \[0\]: .*`bbox`"):
        load_detections([{"image_id": 3, "category_id": 8, "score": 1}])


def test_load_detections__refuses_nan_in_arrays() -> None:
    arrays = DetectionArrays(np.zeros(2, int), np.zeros(2, int), np.zeros((2, 4)), np.array([0.5, np.nan]))
    with pytest.raises(UserError, match="the given detections: detection 1 has score nan"):
        load_detections(arrays)


def test_evaluate_lvis__refuses_unknown_ids(tmp_path: Path) -> None:
    gt, dt = random_case(0)
    annotations, results = tmp_path / "val.json", tmp_path / "results.json"
    annotations.write_text(json.dumps(gt))
    results.write_text(json.dumps([*dt, {**dt[0], "image_id": 4242}]))
    message = rf"results\.json: detection {len(dt)} has image_id 4242, .*val\.json.* belongs to another annotation file"
    with pytest.raises(UserError, match=message):
        evaluate_lvis(annotations, results)
    results.write_text(json.dumps([{**dt[0], "category_id": 4242}, *dt]))
    with pytest.raises(UserError, match=r"results\.json: detection 0 has category_id 4242, .*val\.json does not list"):
        evaluate_lvis(annotations, results)
    with pytest.raises(UserError, match="the given detections: detection 0 has image_id -1"):
        evaluate_lvis(gt, [{**dt[0], "image_id": -1}])


def test_detection_arrays__refuses_wrong_shapes() -> None:
    with pytest.raises(ValueError, match="shapes"):
        DetectionArrays(np.zeros(2, int), np.zeros(2, int), np.zeros((2, 5)), np.zeros(2))
    with pytest.raises(ValueError, match="shapes"):
        DetectionArrays(np.zeros(2, int), np.zeros(3, int), np.zeros((2, 4)), np.zeros(2))
    with pytest.raises(ValueError, match="category_ids must be whole numbers"):
        DetectionArrays(np.zeros(1, int), np.array([1.5]), np.zeros((1, 4)), np.zeros(1))  # type: ignore[arg-type]


def test_concatenate__by_image_order_inside_kept() -> None:
    def part(image_ids: list[int], scores: list[float]) -> DetectionArrays:
        count = len(scores)
        boxes = np.arange(4.0 * count).reshape(count, 4) + scores[0]
        return DetectionArrays(np.array(image_ids), np.arange(count), boxes, np.array(scores))

    both = DetectionArrays.concatenate([part([5, 5, 2], [0.1, 0.9, 0.5]), part([3, 1], [0.7, 0.2])])
    assert both.image_ids.tolist() == [1, 2, 3, 5, 5]
    assert both.scores.tolist() == [0.2, 0.5, 0.7, 0.1, 0.9]
    assert both.category_ids.tolist() == [1, 2, 0, 0, 1]
    assert both.boxes[:, 0].tolist() == pytest.approx([4.7, 8.1, 0.7, 0.1, 4.1])
    assert len(DetectionArrays.concatenate([])) == 0


def test_detection_arrays__travel_between_ranks_as_arrays() -> None:
    """56 bytes a detection: two ids, four sides, a score; nothing else grows with their number."""

    def size(count: int) -> int:
        ids = np.arange(count)
        return len(pickle.dumps(DetectionArrays(ids, ids, np.ones((count, 4)), np.ones(count))))

    assert size(10_000) - size(5_000) == pytest.approx(56 * 5_000, abs=20)
