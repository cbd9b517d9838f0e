"""What is kept of the detections of a whole set."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.tiny import tiny_data, tiny_exp
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
