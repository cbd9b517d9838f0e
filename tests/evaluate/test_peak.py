"""Memory of an evaluation, in matrices of logits of one batch."""

from __future__ import annotations

import platform

import numpy as np
import pytest
import torch

from benchmarks.paired import peak_of
from tests.processes import context
from yolox_lt.evaluate.collect import collect_detections
from yolox_lt.exp import YOLOXStarExp
from yolox_lt.types import Batch

SIDE, IMAGES = 640, 2


def measure() -> tuple[float, int]:
    """(highest memory of an evaluation in MiB, bytes of the logits of one batch)."""
    exp = YOLOXStarExp()
    exp.num_classes, exp.depth, exp.width = 1203, 0.33, 0.125
    model, predictor, preprocess = exp.get_model().eval(), exp.get_predictor(), exp.get_preprocessor()
    sizes = torch.tensor([[SIDE, SIDE]] * IMAGES)
    pixels = torch.full((IMAGES, 3, SIDE, SIDE), 114, dtype=torch.uint8)
    batch = Batch(pixels, [], [], torch.arange(IMAGES), sizes, sizes, torch.ones(IMAGES, 2), ())
    made: list[int] = []
    model.register_forward_hook(lambda module, given, out: made.append(out[0].cls_logits.nbytes))

    def evaluate() -> None:
        collect_detections(model, predictor, preprocess, [batch] * 2, np.arange(1203), torch.device("cpu"))

    evaluate()
    return peak_of(evaluate), made[0]


@pytest.mark.skipif(platform.system() != "Linux", reason="peaks are measured on Linux alone")
def test_peak__of_an_evaluation_is_about_one_and_a_half_matrices_of_logits():
    """The network gives one, written once; the predictor takes a share of it; none of the batch before is kept.

    In a process of its own: what other tests have left in the allocator would count.
    """
    with context().Pool(1) as pool:
        peak, logits = pool.apply(measure)
    assert logits == IMAGES * 2 * (80**2 + 40**2 + 20**2) * 1203 * 4
    assert peak * 2**20 < 1.65 * logits  # 1.36 to 1.50 in four runs
