"""Two-stage checkpoints of mmdetection: every tensor finds its place, told by the names and shapes of such files."""

from __future__ import annotations

import pytest
import torch

import yolox_lt
from tests.models.test_two_stage_golden import NAMES
from yolox_lt.convert import convert
from yolox_lt.convert.mmdetection import our_name
from yolox_lt.errors import UserError
from yolox_lt.models.two_stage import build_two_stage

SHAPES = {
    **{f"neck.lateral_convs.{i}.conv.weight": [256, 256 * 2**i, 1, 1] for i in range(4)},
    **{f"neck.lateral_convs.{i}.conv.bias": [256] for i in range(4)},
    **{f"neck.fpn_convs.{i}.conv.weight": [256, 256, 3, 3] for i in range(4)},
    **{f"neck.fpn_convs.{i}.conv.bias": [256] for i in range(4)},
    **{"rpn_head.rpn_conv.weight": [256, 256, 3, 3], "rpn_head.rpn_conv.bias": [256]},
    **{"rpn_head.rpn_cls.weight": [3, 256, 1, 1], "rpn_head.rpn_cls.bias": [3]},
    **{"rpn_head.rpn_reg.weight": [12, 256, 1, 1], "rpn_head.rpn_reg.bias": [12]},
    **{"roi_head.bbox_head.shared_fcs.0.weight": [1024, 12544], "roi_head.bbox_head.shared_fcs.0.bias": [1024]},
    **{"roi_head.bbox_head.shared_fcs.1.weight": [1024, 1024], "roi_head.bbox_head.shared_fcs.1.bias": [1024]},
    **{"roi_head.bbox_head.fc_cls.weight": [1204, 1024], "roi_head.bbox_head.fc_cls.bias": [1204]},
    **{"roi_head.bbox_head.fc_reg.weight": [4812, 1024], "roi_head.bbox_head.fc_reg.bias": [4812]},
}
"""The key list of the files, LVIS v1 with a softmax on ResNet-50, but for the body, which has torchvision's names."""


def test_names__of_the_published_files():
    with torch.device("meta"):
        own = build_two_stage(1203, 1204).state_dict()
    found = {our_name(name): shape for name, shape in SHAPES.items()}
    assert None not in found
    body = {name for name in own if name.startswith("backbone.resnet.")}
    assert set(found) == set(own) - body
    assert all(list(own[name].shape) == shape for name, shape in found.items())
    assert {our_name(name.replace("backbone.resnet.", "backbone.")) for name in body} == body


def foreign(extra, **more):
    """A small model's state dict under their names, and the model's own."""
    torch.manual_seed(extra)
    model = build_two_stage(5, 5 + extra, depth=18, channels=32, head_width=64)
    own = model.state_dict()
    places = {ours.replace("backbone.", "backbone.fpn."): theirs for theirs, ours in NAMES.items()}
    theirs = {}
    for name, tensor in own.items():
        if name.startswith("backbone.resnet."):
            if not name.endswith("num_batches_tracked"):  # older files do not count batches
                theirs[name.replace("backbone.resnet.", "backbone.")] = tensor
            continue
        place, part = name.rsplit(".", 1)
        digit = next((c for c in place.split(".") if c.isdigit()), "")
        found = places[place.replace(digit, "{}") if digit else place].format(digit)
        prefix = "roi_head." if found.startswith("bbox_head") else ""
        theirs[f"{prefix}{found}.{part}"] = tensor
    theirs["roi_head.mask_head.convs.0.conv.weight"] = torch.zeros(2, 2, 3, 3)
    return {**theirs, **more}, own


RATIO = {f"roi_head.bbox_head.loss_cls.{n}": torch.ones(5) for n in ("pos_grad", "neg_grad", "pos_neg")}
COUNTS = {"roi_head.bbox_head.loss_cls.cum_samples": torch.ones(6)}


@pytest.mark.parametrize(
    ("extra", "more", "cls_loss"), [(1, {}, "softmax"), (0, {}, "eql"), (1, RATIO, "eqlv2"), (2, COUNTS, "seesaw")]
)
def test_convert(tmp_path, extra, more, cls_loss):
    theirs, own = foreign(extra, **more)
    torch.save({"state_dict": theirs, "meta": {"epoch": 24}}, tmp_path / "theirs.pth")
    report = convert(tmp_path / "theirs.pth", tmp_path / "ours.pth")
    assert set(report.dropped) == {"roi_head.mask_head.convs.0.conv.weight", *more}
    detector = yolox_lt.load(tmp_path / "ours.pth")
    assert detector.exp.cls_loss == cls_loss
    assert detector.exp.normed_classifier == (cls_loss == "seesaw")
    loaded = detector.model.state_dict()
    assert all(torch.equal(value, loaded[name]) for name, value in own.items())


def test_convert__groups_need_the_training_annotations(tmp_path):
    theirs, _ = foreign(6)
    torch.save({"state_dict": theirs}, tmp_path / "theirs.pth")
    with pytest.raises(UserError, match=r"depends on the training annotations.*-f"):
        convert(tmp_path / "theirs.pth", tmp_path / "ours.pth")


def test_convert__columns_of_no_known_loss(tmp_path):
    theirs, _ = foreign(4)
    torch.save({"state_dict": theirs}, tmp_path / "theirs.pth")
    with pytest.raises(UserError, match="9 outputs for 5 categories"):
        convert(tmp_path / "theirs.pth", tmp_path / "ours.pth")
