"""What is kept of the detections of a whole set."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
import torch

from tests.tiny import tiny_data, tiny_exp
from yolox_lt.data.loader import same_size_batches
from yolox_lt.evaluate import DetectionArrays, collect
from yolox_lt.evaluate.collect import Limits, best_of_images, within
from yolox_lt.exp import ResNetExp


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


@pytest.mark.parametrize("batch", [2, 8])
def test_resnet__detections_do_not_depend_on_the_neighbours_in_a_batch(tmp_path, batch):
    """Images of five shapes; GroupNorm and convolutions would see the padding that a larger neighbour asks for."""
    rng = np.random.default_rng(0)
    shapes = [(40, 60), (60, 40), (33, 90), (64, 64), (40, 60), (50, 61), (60, 40)]
    images = []
    for i, (height, width) in enumerate(shapes, 1):
        cv2.imwrite(str(tmp_path / f"{i}.png"), rng.integers(0, 255, (height, width, 3), np.uint8))
        images.append({"id": i, "file_name": f"{i}.png", "height": height, "width": width})
    boxes = [{"id": i, "image_id": i, "category_id": 1, "bbox": [3, 4, 20, 20]} for i in range(1, 8)]
    categories = [{"id": c, "name": f"c{c}"} for c in (1, 2, 3)]
    (tmp_path / "val.json").write_text(json.dumps({"images": images, "annotations": boxes, "categories": categories}))
    exp = ResNetExp()
    for name, value in {
        **{"num_classes": 3, "resnet_depth": 18, "fpn_channels": 32, "backbone_weights": None, "data_num_workers": 0},
        **{"data_dir": str(tmp_path), "train_ann": "val.json", "val_ann": "val.json", "val_images": None},
        **{"train_images": None, "test_size": (64, 128), "freeze_bn": False, "test_conf": 0.0},
    }.items():
        setattr(exp, name, value)
    torch.manual_seed(0)
    model = exp.get_model().eval()
    found = [exp.get_evaluator(size).detect(model, torch.device("cpu")) for size in (1, batch)]
    assert found[0].image_ids.tolist() == found[1].image_ids.tolist()
    np.testing.assert_allclose(found[1].scores, found[0].scores, rtol=0, atol=1e-5)
    two = [exp.get_evaluator(batch, rank, 2).detect(model, torch.device("cpu")) for rank in (0, 1)]
    together = sorted([*two[0].scores.tolist(), *two[1].scores.tolist()])
    np.testing.assert_allclose(together, np.sort(found[0].scores), rtol=0, atol=1e-5)


def test_batches__of_one_size_in_order():
    sizes = np.array([[64, 64], [64, 128], [64, 64], [64, 64], [64, 128]])
    assert same_size_batches(np.arange(5), sizes, 2) == [[0, 2], [3], [1, 4]]
    assert same_size_batches(np.array([1, 3]), sizes, 2) == [[3], [1]]
    assert same_size_batches(np.arange(0), sizes, 2) == []
