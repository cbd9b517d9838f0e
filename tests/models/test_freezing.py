"""Which parameters a name of `freeze` means, and that frozen parts stay as they are."""

from __future__ import annotations

import pytest
import torch

from yolox_lt.errors import UserError
from yolox_lt.exp import TwoStageExp
from yolox_lt.models import build_resnet, build_yolox
from yolox_lt.models.freezing import freeze, matching

NAMES = ["backbone.backbone.stem.conv.weight", "backbone.reduce_conv1.bn.bias", "head.stems.0.bn.bias", "head.x.bias"]


@pytest.mark.parametrize(
    ("patterns", "found"),
    [
        (("backbone",), [0]),
        (("neck",), [1]),
        (("head",), [2, 3]),
        (("head.stems", "backbone"), [0, 2]),
        (("*.bn.*",), [1, 2]),
        (("head.x.bias",), [3]),
    ],
)
def test_pattern__means(patterns, found):
    assert matching(NAMES, patterns) == [NAMES[i] for i in found]


def test_pattern__of_nothing_is_refused_with_the_nearest():
    with pytest.raises(UserError, match=r"freeze 'head.stem' means no parameter .* the nearest are head\.stems"):
        matching(NAMES, ("backbone", "head.stem"))
    with pytest.raises(UserError, match="freeze 'neck' means no parameter"):  # a body of one's own
        matching(["backbone.a.weight", "head.b.weight"], ("neck",))


@pytest.mark.parametrize(
    ("build", "body"),
    [(lambda: build_yolox(3, 0.33, 0.125), "backbone"), (lambda: build_resnet(3, 18, 32, freeze_bn=False), "resnet")],
)
def test_frozen_body__keeps_weights_and_statistics_in_training(build, body):
    torch.manual_seed(0)
    model = build()
    freeze(model, matching((name for name, _ in model.named_parameters()), ("backbone",)))
    model.train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    predictions, _ = model(torch.rand(2, 3, 64, 64))
    sum(output.sum() for output in predictions.outputs()).backward()
    torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1).step()
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert not [name for name in changed if name.startswith(f"backbone.{body}.")]
    assert any(name.startswith("backbone.") for name in changed)  # the neck
    assert any(name.startswith("head.") for name in changed)


def test_everything_frozen__is_refused():
    model = build_yolox(3, 0.33, 0.125)
    with pytest.raises(UserError, match="freeze leaves nothing to train"):
        freeze(model, matching((name for name, _ in model.named_parameters()), ("backbone", "neck", "head")))


def test_second_training__freezes_by_the_same_means():
    exp = TwoStageExp()
    small = {"num_classes": 3, "resnet_depth": 18, "fpn_channels": 32, "head_width": 8}
    for name, value in {**small, "classifier_only": True, "freeze_bn": False, "trainable_layers": 5}.items():
        setattr(exp, name, value)
    model = exp.get_model().train()
    assert {name for name, p in model.named_parameters() if p.requires_grad} == {
        "head.cls_pred.weight",
        "head.cls_pred.bias",
    }
    assert not any(m.training for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d))
