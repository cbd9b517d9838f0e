"""Fine-tuning: what is taken over from a checkpoint, what is repeated, what is newly initialised; the log says it."""

from __future__ import annotations

import pytest
import torch

from yolox_lt.errors import UserError
from yolox_lt.exp import Exp, ResNetExp, TwoStageExp, YOLOXStarExp
from yolox_lt.models import build_resnet, build_yolox
from yolox_lt.models.category_rows import CategoryRows, same_named
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


@pytest.mark.parametrize(("names", "kept"), [(NAMES, True), (["a", "b", "c"], False)])
def test_classifier__is_kept_for_the_same_categories_alone(names, kept, log):
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


def test_backbone__that_fits_in_part_is_said_with_the_settings_that_help(log):
    """Depthwise weights in a network without: a third of the tensors would start the run as if it were from scratch."""
    source = build_yolox(3, 0.33, 0.125, depthwise=True).state_dict()
    model = official()
    body = [name for name in model.state_dict() if name.startswith("backbone.")]
    lost = [n for n in body if n not in source or source[n].shape != model.state_dict()[n].shape]
    assert 0 < len(lost) < len(body)
    start_from(model, None, {"model": source, "ema": None, "names": NAMES}, NAMES, "w.pth")
    said = f"{len(lost)} of the {len(body)} tensors of the backbone do not fit and start from new weights"
    assert any(said in line and "depth, width and depthwise" in line for line in log)


def test_another_family__is_refused():
    with pytest.raises(UserError, match=r"x\.pth: no tensor fits this model"):
        start_from(
            star(), None, {"model": build_resnet(3, depth=18, channels=32).state_dict(), "ema": None}, NAMES, "x.pth"
        )


def numbered(rows):
    """[rows, 2], row i filled with i."""
    return torch.arange(rows, dtype=torch.float32)[:, None].expand(rows, 2)


def test_rows__move_by_name_in_every_anchor_and_background_last():
    """A, B, C -> C, D, A, worked by hand: row a*C + c; four rows a category for boxes; the background behind."""
    pairs = same_named(["C", "D", "A"], ["A", "B", "C"])
    assert pairs == [(0, 2), (2, 0)]
    anew = torch.full((9, 2), -1.0)
    two_anchors = CategoryRows(blocks=2).moved(numbered(6), anew[:6], pairs)
    assert two_anchors[:, 0].tolist() == [2, -1, 0, 5, -1, 3]
    background = CategoryRows(extra=1).moved(numbered(4), anew[:4], pairs)
    assert background[:, 0].tolist() == [2, -1, 0, 3]
    boxes = CategoryRows(each=4).moved(numbered(12), torch.full((12, 2), -1.0), pairs)
    assert boxes[:, 0].tolist() == [8, 9, 10, 11, -1, -1, -1, -1, 0, 1, 2, 3]
    assert (anew == -1).all()
    assert same_named(["A", "A", "B"], ["B", "A"]) == [(2, 0)]


@pytest.mark.parametrize(
    ("cls", "weight", "per_row"),
    [
        (YOLOXStarExp, "head.cls_preds.1.weight", 2),
        (ResNetExp, "head.cls_pred.bias", 2),
        (TwoStageExp, "head.cls_pred.weight", 1),
        (TwoStageExp, "head.box_pred.bias", 1),
    ],
)
def test_fine_tuning__keeps_the_rows_of_categories_of_the_same_name(cls, weight, per_row, log):
    exp = cls()
    small = {"num_classes": 3, "depth": 0.33, "width": 0.125, "resnet_depth": 18, "fpn_channels": 32, "head_width": 8}
    for name, value in small.items():
        setattr(exp, name, value)
    source = exp.get_model().state_dict()
    exp.num_classes = 4
    model, theirs, ours = exp.get_model(), ["A", "B", "C"], ["C", "D", "A", "E"]
    redrawn = cls is not TwoStageExp and weight.endswith("weight")  # with fresh_std 0
    fresh = model.state_dict()[weight].clone() * (not redrawn)
    content = {"model": source, "ema": None, "names": theirs, "exp": exp.attributes(), "family": exp.family}
    anew = exp.layers_anew(content, "x.pth", ours)
    start_from(model, None, content, ours, "x.pth", anew, 0.0, exp.category_rows(content))
    each = 4 if "box_pred" in weight else 1
    old, new, now = source[weight], fresh, model.state_dict()[weight]
    for anchor in range(per_row):
        for label, name in enumerate(ours):
            rows = slice((anchor * 4 + label) * each, (anchor * 4 + label + 1) * each)
            there = theirs.index(name) if name in theirs else None
            wanted = new[rows] if there is None else old[(anchor * 3 + there) * each : (anchor * 3 + there + 1) * each]
            assert torch.equal(now[rows], wanted), (anchor, name)
    if each == 1 and cls is TwoStageExp:
        assert torch.equal(now[-1], old[-1])  # the background
    assert any(
        "2 of the same name keep their classifier rows; 2 start from new weights: 'D', 'E'" in line for line in log
    )


def test_fine_tuning__scores_beside_an_objectness_are_not_those_of_an_iou_branch():
    content = {"exp": {"quality": "obj"}}
    assert Exp().category_rows(content) == {"head.cls_preds.": CategoryRows(1)}
    assert YOLOXStarExp().category_rows(content) == {}
