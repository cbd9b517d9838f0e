"""Fine-tuning: what is taken over from a checkpoint, what is repeated, what is newly initialised; the log says it."""

from __future__ import annotations

import pytest
import torch

from yolox_lt.errors import UserError
from yolox_lt.models import build_resnet, build_yolox
from yolox_lt.optim.ema import ModelEMA
from yolox_lt.train.restore import start_from

NAMES = ["cat", "dog", "owl"]


def official(num_classes=3):
    torch.manual_seed(1)
    return build_yolox(num_classes, 0.33, 0.125)


def star(num_classes=3):
    torch.manual_seed(2)
    return build_yolox(num_classes, 0.33, 0.125, num_anchors=2, anchor_scales=(3, 4), neck_shortcut=True)


def is_fresh(weight, std):
    """Whether weights look as if drawn from Normal(0, std)."""
    return abs(float(weight.detach().mean())) < std / 4 and abs(float(weight.detach().std()) / std - 1) < 0.25


def test_official_yolox__starts_yolox_star_with_objectness_as_both_iou_branches(log):
    source, model = official(), star()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    start_from(model, None, {"model": source.state_dict(), "ema": None, "names": NAMES}, NAMES, "official.pth")
    ours, theirs = model.state_dict(), source.state_dict()
    for name, value in ours.items():
        if name.startswith("head.obj_preds."):
            assert torch.equal(value, torch.cat([theirs[name]] * 2)), name
        elif name.startswith(("head.cls_preds.", "head.reg_preds.")):
            # two anchors against one: other shapes
            assert torch.equal(value, before[name]) if name.endswith("bias") else is_fresh(value, 0.001), name
        else:
            assert torch.equal(value, theirs[name]), name
    assert any("12 are newly initialised (head.cls_preds.0.bias" in line for line in log)
    assert any("third branch repeated for each anchor (head.obj_preds.0.bias" in line for line in log)


@pytest.mark.parametrize(("names", "kept"), [(NAMES, True), (["dog", "cat", "owl"], False), (["a", "b", "c"], False)])
def test_classifier__is_kept_for_the_same_categories_in_the_same_order_alone(names, kept, log):
    source, model = star(), star()
    torch.nn.init.constant_(source.head.cls_preds[2].weight, 3.0)
    torch.nn.init.constant_(source.head.reg_preds[2].weight, 4.0)
    start_from(model, None, {"model": source.state_dict(), "ema": None, "names": NAMES}, names, "x.pth")
    assert bool((model.head.cls_preds[2].weight == 3).all()) == kept
    assert (model.head.reg_preds[2].weight == 4).all()
    assert any("the classifier is newly initialised" in line for line in log) != kept


def test_resnet__other_categories_and_averaged_weights():
    source, model = (build_resnet(c, depth=18, channels=32) for c in (3, 5))
    averaged = {name: torch.full_like(value, 2) for name, value in source.state_dict().items()}
    ema = ModelEMA(model, 0.9, 1)
    before = model.head.cls_pred.bias.clone()
    checkpoint = {"model": source.state_dict(), "ema": {"model": averaged, "next": 9}, "names": NAMES}
    start_from(model, ema, checkpoint, ["a", "b", "c", "d", "e"], "x.pth", fresh_std=0.02)
    assert is_fresh(model.head.cls_pred.weight, 0.02)
    assert torch.equal(model.head.cls_pred.bias, before)
    assert (model.backbone.fpn.lateral[0].weight == 2).all()
    assert (model.head.quality_pred.weight == 2).all()
    assert all(torch.equal(v, ema.model.state_dict()[k]) for k, v in model.state_dict().items())


def test_another_family__is_refused():
    with pytest.raises(UserError, match=r"x\.pth: no tensor fits this model"):
        start_from(
            star(), None, {"model": build_resnet(3, depth=18, channels=32).state_dict(), "ema": None}, NAMES, "x.pth"
        )
