"""Fresh prediction layers keep the prior: E[p^3] / prior^3 for each family and start, on photographs."""

from __future__ import annotations

import cv2
import pytest
import torch

from tests.conftest import GOLDEN
from yolox_lt.checkpoint import load_checkpoint
from yolox_lt.exp import Exp, YOLOXStarExp
from yolox_lt.exp.agreement import adopt_weights
from yolox_lt.exp.resnet import ResNetExp, RetinaNetExp
from yolox_lt.models.init import redraw_predictions
from yolox_lt.train.prior import prior_line, start_factor
from yolox_lt.train.restore import start_from
from yolox_lt.weights.named import BUILT_IN


@pytest.fixture(scope="module")
def photos():
    """uint8 BGR as float [3, 3, 160, 160]."""
    images = [cv2.resize(cv2.imread(str(p)), (160, 160)) for p in sorted((GOLDEN / "coco_images").glob("*.jpg"))]
    return torch.stack([torch.from_numpy(image).permute(2, 0, 1).float() for image in images])  # HWC -> CHW


def nano(cls, prior):
    exp = cls()
    exp.depth, exp.width, exp.depthwise, exp.num_classes, exp.prior_prob = 0.33, 0.25, True, 109, prior
    return exp


@torch.no_grad()
def logits_of(model, images):
    return model.train()(images)[0].cls_logits


@pytest.mark.parametrize("cls", [Exp, YOLOXStarExp])
@pytest.mark.parametrize("prior", [0.01, 0.001])
def test_yolox__from_scratch_and_from_coco(cls, prior, photos, log):
    torch.manual_seed(0)
    exp = nano(cls, prior)
    model = exp.get_model()
    assert start_factor(logits_of(model, photos), prior) > 5  # as released: the prior is not kept
    redraw_predictions(model, 0.001)
    assert start_factor(logits_of(model, photos), prior) == pytest.approx(1, rel=0.1)
    content = load_checkpoint(BUILT_IN)
    said = adopt_weights(exp, content, "nano")
    assert len(said) == (2 if cls is YOLOXStarExp else 0)
    assert exp.get_recipe().fill == 114
    model = exp.get_model()
    start_from(model, None, content, ["mine"] * 109, "nano")
    logits = logits_of(model, photos)
    assert start_factor(logits, prior) == pytest.approx(1, rel=0.1)
    assert float((logits.sigmoid() / prior).log().abs().quantile(0.999)) < 0.2
    start_from(model, None, content, ["mine"] * 109, "nano", fresh_std=0.072)  # the framework's deviation
    assert start_factor(logits_of(model, photos), prior) > 1000


@pytest.mark.parametrize("cls", [ResNetExp, RetinaNetExp])
@pytest.mark.parametrize("depth", [18, 50])
def test_resnet__heads_with_group_norm(cls, depth, photos):
    torch.manual_seed(0)
    exp = cls()
    exp.resnet_depth, exp.num_classes, exp.fpn_channels = depth, 20, 64
    model = exp.get_model()
    images = (photos[:, :, :96, :96] - 114) / 57
    assert 1 < start_factor(logits_of(model, images), exp.prior_prob) < 2
    redraw_predictions(model, 0.001)
    assert start_factor(logits_of(model, images), exp.prior_prob) == pytest.approx(1, rel=0.1)


def test_line__by_hand():
    logits = torch.tensor([0.2, 0.1]).logit()
    assert start_factor(logits, 0.1) == pytest.approx((8 + 1) / 2)
    said = prior_line(logits, 0.1, False)
    assert said.startswith("mean of p^3 on the first batch: 4.5 times prior_prob^3 (0.1^3); fresh_std 0.001 starts")
    assert "fresh_std" not in prior_line(logits, 0.15, False)
    assert "fresh_std" not in prior_line(logits, 0.1, True)
