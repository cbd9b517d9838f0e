"""Start values."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from yolox_lt.errors import UserError
from yolox_lt.models import YOLOXHead, build_yolox, init_prior_bias
from yolox_lt.models.init import prior_bias


@pytest.mark.parametrize("probability", [0.001, 0.01, 0.3])
def test_prior_bias__sigmoid_gives_the_probability(probability):
    assert 1 / (1 + math.exp(-prior_bias(probability))) == pytest.approx(probability, rel=1e-12)


def test_prior_bias__released_and_official_values():
    assert prior_bias(0.001) == pytest.approx(-6.906755, abs=1e-6)
    assert prior_bias(0.01) == pytest.approx(-4.595120, abs=1e-6)


@pytest.mark.parametrize("probability", [0.0, 1.0, -0.1, float("nan")])
def test_prior_bias__outside_the_open_interval_is_refused(probability):
    with pytest.raises(UserError, match="between 0 and 1"):
        prior_bias(probability)


def test_init_prior_bias__classification_and_quality_on_every_level_and_nothing_else():
    head = YOLOXHead(5, 0.125, num_anchors=2)
    before = {name: tensor.clone() for name, tensor in head.state_dict().items()}
    init_prior_bias(head, 0.001, 0.3)
    changed = {name for name, tensor in head.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed == {f"{kind}_preds.{level}.bias" for kind in ("cls", "obj") for level in range(3)}
    for level in range(3):
        torch.testing.assert_close(head.cls_preds[level].bias.sigmoid(), torch.full((10,), 0.001))
        torch.testing.assert_close(head.obj_preds[level].bias.sigmoid(), torch.full((2,), 0.3))


def test_build__batch_norm_and_biases_everywhere():
    model = build_yolox(5, 0.33, 0.125, depthwise=True)
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    assert len(norms) == 104  # nano: 642 state tensors, 18 of them predictions, the rest 6 per block
    assert {(norm.eps, norm.momentum) for norm in norms} == {(1e-3, 0.03)}
    for conv in (*model.head.cls_preds, *model.head.obj_preds):
        torch.testing.assert_close(conv.bias.sigmoid(), torch.full_like(conv.bias, 0.01))
