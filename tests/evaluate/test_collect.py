"""What is kept of the detections of a whole set."""

from __future__ import annotations

import copy
import json

import cv2
import numpy as np
import pytest
import torch

from tests.export.detectors import random_detector
from tests.tiny import tiny_data, tiny_exp
from yolox_lt.data.loader import same_size_batches
from yolox_lt.evaluate import DetectionArrays, collect
from yolox_lt.evaluate.collect import Limits, best_of_images, within


def arrays(rows):
    """(image, category, score) of every detection."""
    image, category, score = zip(*rows)
    return DetectionArrays(
        np.array(image), np.array(category), np.tile([0.0, 0, 1, 1], (len(rows), 1)), np.array(score)
    )


def test_within__keeps_the_best_of_an_image_and_the_best_of_a_category():
    found = arrays([(1, 5, 0.2), (1, 5, 0.9), (1, 6, 0.3), (2, 5, 0.8), (2, 6, 0.3), (2, 5, 0.7)])
    # Best of each image: 0.9 and 0.8. Best two of category 5: 0.9, 0.8; of category 6: 0.3 twice.
    assert within(found, Limits(1, 2)).scores.tolist() == [0.9, 0.3, 0.8, 0.3]
    # Of two equal scores of category 6 the earlier one.
    assert within(found, Limits(1, 1)).image_ids.tolist() == [1, 1, 2]
    assert best_of_images(found, 2).scores.tolist() == [0.9, 0.3, 0.8, 0.7]
    assert len(within(found, Limits(9, 1))) == len(found)
    empty = DetectionArrays.concatenate([])
    assert len(within(empty, Limits(1, 1))) == len(best_of_images(empty, 1)) == 0


@pytest.mark.parametrize("limits", [Limits(3, 40), Limits(20, 5)])
def test_collect__drops_on_the_way_what_it_would_drop_at_the_end(tmp_path_factory, tmp_path, monkeypatch, limits):
    exp = tiny_exp(tiny_data(tmp_path_factory), tmp_path)
    torch.manual_seed(0)
    model, evaluator = exp.get_model(), exp.get_evaluator(2)
    everything = evaluator.detect(model, torch.device("cpu"))
    wanted = within(everything, limits)
    assert len(wanted) < len(everything)
    monkeypatch.setattr(collect, "ROOM", 100)
    kept = evaluator.detect(model, torch.device("cpu"), limits=limits)
    for name in ("image_ids", "category_ids", "boxes", "scores"):
        np.testing.assert_array_equal(getattr(kept, name), getattr(wanted, name))


def test_resnet__detections_and_ap_do_not_depend_on_the_batch(tmp_path):
    """Images of five shapes; GroupNorm and convolutions would see the padding that a larger neighbour asks for.

    The truth is every third detection of batches of one image, moved by two pixels: AP is neither 0 nor 1.
    """
    rng = np.random.default_rng(0)
    shapes = [(40, 60), (60, 40), (33, 90), (64, 64), (40, 60), (50, 61), (60, 40)]
    content = {"images": [], "annotations": [], "categories": [{"id": c, "name": f"c{c}"} for c in range(1, 6)]}
    pixels = [rng.integers(0, 255, (*shape, 3), np.uint8) for shape in shapes]
    for number, image in enumerate(pixels, 1):
        cv2.imwrite(str(tmp_path / f"{number}.png"), image)
        height, width, _ = image.shape
        content["images"].append({"id": number, "file_name": f"{number}.png", "height": height, "width": width})
    detector = random_detector("resnet", pixels)
    detector.exp.update(
        {
            **{"data_dir": str(tmp_path), "train_ann": "val.json", "val_ann": "val.json", "val_images": None},
            **{"train_images": None, "test_size": (64, 128), "data_num_workers": 0, "max_detections": 20},
        }
    )

    def found(batch: int, world: int = 1) -> DetectionArrays:
        exp = copy.copy(detector.exp)
        parts = [exp.get_evaluator(batch, rank, world) for rank in range(world)]
        return DetectionArrays.concatenate([part.detect(detector.model, torch.device("cpu")) for part in parts])

    (tmp_path / "val.json").write_text(json.dumps(content))
    one = found(1)
    for row in range(0, len(one), 3):
        x, y, width, height = one.boxes[row].tolist()
        box = {"image_id": int(one.image_ids[row]), "category_id": int(one.category_ids[row])}
        content["annotations"].append({"id": row + 1, **box, "bbox": [x + 2, y, width, height]})
    (tmp_path / "val.json").write_text(json.dumps(content))
    score = copy.copy(detector.exp).get_evaluator(1).score
    wanted = score(one)
    assert 0.1 < wanted.metrics["AP"] < 0.9
    for batch, world in ((2, 1), (8, 1), (1, 2), (8, 2)):
        other = found(batch, world)
        order, wanted_order = (np.lexsort((-f.scores, f.image_ids)) for f in (other, one))
        np.testing.assert_array_equal(other.image_ids[order], one.image_ids[wanted_order])
        np.testing.assert_allclose(other.scores[order], one.scores[wanted_order], rtol=0, atol=1e-5)
        np.testing.assert_equal(score(other).metrics, wanted.metrics)


def test_batches__of_one_size_in_order():
    sizes = np.array([[64, 64], [64, 128], [64, 64], [64, 64], [64, 128]])
    assert same_size_batches(np.arange(5), sizes, 2) == [[0, 2], [3], [1, 4]]
    assert same_size_batches(np.array([1, 3]), sizes, 2) == [[3], [1]]
    assert same_size_batches(np.arange(0), sizes, 2) == []
