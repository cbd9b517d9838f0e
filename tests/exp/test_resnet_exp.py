"""The ResNet experiments: the paper's rows as files, the released settings, parts that fit together."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from yolox_lt.assign import ATSSAssigner, FCOSAssigner, MaxIoUAssigner, PAAAssigner
from yolox_lt.coders import DeltaCoder, DistanceCoder
from yolox_lt.criterion import Criterion, RetinaNetCriterion
from yolox_lt.data.augment.short_side import ShortSideAugment, ShortSideTransform
from yolox_lt.errors import UserError
from yolox_lt.exp import FCOSExp, PAAExp, ResNetExp, RetinaNetExp, TwoStageExp, get_exp
from yolox_lt.losses import EQLv2FocalLoss, EqualizedFocalLoss, FocalLoss
from yolox_lt.optim import schedule

ROOT = Path(__file__).resolve().parents[2]
LOSSES = {"focal": FocalLoss, "eqlv2_focal": EQLv2FocalLoss, "efl": EqualizedFocalLoss}


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize(
    ("detector", "assigner", "anchors", "quality", "stabilised"),
    [
        ("retinanet", MaxIoUAssigner(0.5, 0.4), 9, None, True),
        ("fcos", FCOSAssigner(1.5, (64, 128, 256, 512)), 1, "centerness", True),
        ("paa", PAAAssigner(0.1, 9, 1.3, 0.25, 2.0), 1, "iou", False),
        ("atss", ATSSAssigner(9), 1, "centerness", False),
    ],
)
def test_tables_1_and_6__rows(detector, assigner, anchors, quality, stabilised, loss):
    exp = get_exp(ROOT / f"exps/lvis/{detector}_r50_{loss}.py")
    criterion = exp.get_criterion()
    assert criterion.assigner == assigner
    assert type(criterion.cls_loss) is LOSSES[loss]
    assert len(exp.anchor_scales) * len(exp.anchor_ratios) == anchors
    assert exp.quality == quality
    assert (exp.clip_norm, exp.warmup_epochs, exp.warmup_iters) == ((35, 1, 0) if stabilised else (None, 0, 1000))
    assert (exp.num_classes, exp.sampler, exp.resnet_depth) == (1203, "repeat_factor", 50)
    if loss == "efl":
        assert criterion.cls_loss.scale == 8


@pytest.mark.parametrize("depth", [50, 101])
def test_table_2__the_released_configuration(depth):
    exp = get_exp(ROOT / f"exps/lvis/efl_r{depth}.py")
    criterion = exp.get_criterion()
    assert type(criterion) is Criterion
    assert criterion.assigner == ATSSAssigner(18)
    assert criterion.coder == DeltaCoder()
    assert (criterion.box_weight, criterion.quality_weight, criterion.target, criterion.use_l1) == (1, 1, "iou", False)
    assert criterion.cls_loss.scale == 8
    assert exp.resnet_depth == depth
    assert exp.get_augment() == ShortSideAugment((640, 672, 704, 736, 768, 800), 1333, 0.5, True)
    assert exp.get_eval_transform() == ShortSideTransform(800, 1333)
    assert (exp.max_epoch, exp.milestones, exp.batch_size, exp.epoch_length) == (24, (16, 22), 16, "repeated")
    predictor = exp.get_predictor()
    assert (predictor.pre_nms, predictor.nms_threshold, predictor.clip, predictor.score_threshold) == (
        6000, 0.5, "content", 0)  # fmt: skip
    assert type(get_exp(ROOT / f"exps/lvis/baseline_r{depth}.py").get_criterion().cls_loss) is FocalLoss


def test_optimizer__one_group_for_every_trainable_tensor(golden):
    reference = golden("optimizer_groups.json")["r50"]
    exp = get_exp(ROOT / "exps/lvis/efl_r50.py")
    model = exp.get_model()
    optimizer = exp.get_optimizer(16, model)
    (group,) = optimizer.param_groups
    (want,) = reference["groups"]
    assert len(group["params"]) == len(want["params"]) == 172
    assert group["weight_decay"] == want["weight_decay"] == 1e-4
    assert (group["momentum"], group["nesterov"]) == (reference["momentum"], reference["nesterov"])
    assert group["lr"] == pytest.approx(reference["lr_per_image"] * 16)
    trained = {n for n, p in model.named_parameters() if p.requires_grad}
    assert "backbone.resnet.layer2.0.bn1.bias" in trained
    assert not any(n.startswith(("backbone.resnet.conv1", "backbone.resnet.layer1")) for n in trained)


def test_schedule__warm_up_by_epochs_or_iterations_whichever_is_longer():
    exp = ResNetExp()
    lr = exp.get_lr_scheduler(0.02, 100)
    assert [lr(i) for i in (0, 99, 1599, 1600, 2200)] == pytest.approx([2e-5, 0.02, 0.02, 0.002, 0.0002])
    exp.warmup_iters = 6000
    assert exp.get_lr_scheduler(0.02, 7000)(6500) == pytest.approx(schedule.step(6500, 0.02, [112000], 7000))
    assert exp.get_lr_scheduler(0.02, 1000)(4000) == pytest.approx(schedule.step(4000, 0.02, [16000], 6000))


def test_parts__fit_the_detector():
    assert isinstance(RetinaNetExp().get_criterion(), RetinaNetCriterion)
    assert FCOSExp().get_coder() == DistanceCoder(0.5)
    criterion = PAAExp().get_criterion()
    assert (criterion.box_weight, criterion.quality_weight) == (1.3, 0.5)
    exp = PAAExp()
    exp.merge(["score_voting", "True"])
    assert exp.get_predictor().voting


@pytest.mark.parametrize(
    ("base", "pairs", "message"),
    [
        (ResNetExp, ["assigner", "simota"], "choose one of atss, max_iou, fcos, paa"),
        (ResNetExp, ["box_code", "x"], "choose one of deltas, distances"),
        (ResNetExp, ["box_loss", "x"], "choose one of giou, l1"),
        (ResNetExp, ["quality", "obj"], "choose one of iou, centerness, None"),
        (ResNetExp, ["l1", "tail"], "choose one of always, never"),
        (RetinaNetExp, ["quality", "iou"], "set quality None, not 'iou'"),
        (FCOSExp, ["anchor_scales", "(6, 8)"], r"set anchor_scales \(1,\)"),
    ],
)
def test_settings_that_do_not_fit__are_refused(base, pairs, message):
    exp = base()
    exp.merge(pairs)
    with pytest.raises(UserError, match=message):
        exp.get_criterion()


def test_overrides__none_and_tuples():
    exp = ResNetExp()
    exp.merge(["quality", "none", "clip_norm", "None", "backbone_weights", "none", "short_sides", "(64, 96)"])
    assert (exp.quality, exp.clip_norm, exp.backbone_weights, exp.short_sides) == (None, None, None, (64, 96))
    with pytest.raises(UserError, match=r"warmup_iterations.*warmup_iters"):
        exp.merge(["warmup_iterations", "6000"])


@pytest.mark.parametrize("base", [ResNetExp, RetinaNetExp, FCOSExp, PAAExp])
def test_narrow_images_and_small_objects__train_and_predict(base):
    # 20 x 33 pixels, narrower than the strides 64 and 128; an object of 3 pixels, smaller than every anchor.
    torch.manual_seed(0)
    exp = base()
    exp.num_classes, exp.resnet_depth, exp.fpn_channels = 3, 18, 32
    model, criterion = exp.get_model().train(), exp.get_criterion()
    images = exp.get_preprocessor()(torch.randint(0, 255, (1, 3, 20, 33), dtype=torch.uint8))
    predictions, priors = model(images)
    objects = [torch.tensor([[4.0, 5, 6, 7]])], [torch.tensor([2])]
    losses = criterion(predictions, priors, *objects, [(20, 33)])
    total = sum(losses.values())
    total.backward()
    assert torch.isfinite(total)
    found = exp.get_predictor()(
        predictions, priors, torch.ones(1, 2), torch.tensor([[20, 33]]), torch.tensor([[20, 33]]), (20, 33)
    )[0]
    assert len(found) > 0
    assert (found.boxes >= 0).all()
    assert (found.boxes <= torch.tensor([33.0, 20, 33, 20])).all()


def rows_of_reproduce() -> list[tuple[str, str]]:
    text = (ROOT / "docs/reproduce.md").read_text(encoding="utf-8")
    return re.findall(r"\| `(exps/[a-z0-9_/]+\.py)`(?: `([^`]+)`)? \|", text)


def test_reproduce__every_row_is_a_file_whose_overrides_are_settings():
    rows = rows_of_reproduce()
    assert len(rows) > 40
    for file, overrides in rows:
        exp = get_exp(ROOT / file)
        exp.merge(overrides.split())
        if isinstance(exp, TwoStageExp):  # some losses ask for the numbers of the training annotations
            exp.category_counts = (10.0,) * exp.num_classes
        exp.get_criterion()


def test_reproduce__every_file_of_the_paper_s_data_is_a_row():
    listed = {file for file, _ in rows_of_reproduce()}
    files = {
        p.relative_to(ROOT).as_posix()
        for folder in ("lvis", "coco", "openimages")
        for p in (ROOT / "exps" / folder).glob("*.py")
    }
    assert files == listed


@pytest.mark.parametrize("depth", [50, 101])
@pytest.mark.parametrize("row", ["retinanet", "baseline", "efl"])
def test_table_7__rows(row, depth):
    exp = get_exp(ROOT / f"exps/openimages/{row}_r{depth}.py")
    criterion = exp.get_criterion()
    assert type(criterion.cls_loss) is (EqualizedFocalLoss if row == "efl" else FocalLoss)
    assert type(criterion) is (RetinaNetCriterion if row == "retinanet" else Criterion)
    assert (exp.num_classes, exp.resnet_depth, exp.sampler, exp.clip_norm) == (500, depth, "uniform", 35)
    assert exp.get_augment() == ShortSideAugment((800,), 1333, 0.5, True)
    assert exp.get_eval_transform() == ShortSideTransform(800, 1333)
    # 1.7 million images at batch 16 are more than one "epoch" of 10,000 iterations: the run is 180,000 of them.
    per_epoch = exp.iterations_per_epoch(np.ones(1_674_979, np.int64), 16, 8)
    assert per_epoch * exp.max_epoch == 180_000
    lr = exp.get_lr_scheduler(exp.basic_lr_per_img * 16, per_epoch)
    at = [0, 498, 499, 119_999, 120_000, 159_999, 160_000, 179_999]
    assert [lr(i) for i in at] == pytest.approx(
        [2e-5, 0.02 * (0.001 + 0.999 * 498 / 499), 0.02, 0.02, 0.002, 0.002, 0.0002, 0.0002]
    )
    if row == "efl":
        assert criterion.cls_loss.scale == 8
