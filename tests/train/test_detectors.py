"""Every detector of the paper with every loss: thirty steps in the suite, eight images by heart as a slow test."""

from __future__ import annotations

import csv
import itertools
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.tiny import TINY, tiny_data
from yolox_lt.data.glyphs.make import ensure_glyphs
from yolox_lt.data.sampling.sampler import SampleSampler
from yolox_lt.exp import ATSSExp, DetectorExp, FCOSExp, GlyphResNetExp, PAAExp, ResNetExp, RetinaNetExp
from yolox_lt.train.engine import Trainer
from yolox_lt.train.options import TrainOptions

DETECTORS: dict[str, type[ResNetExp]] = {
    "retinanet": RetinaNetExp,
    "fcos": FCOSExp,
    "atss": ATSSExp,
    "paa": PAAExp,
    "baseline": ResNetExp,
}
SMALL_ANCHORS = {"paa": (2,), "baseline": (2, 3)}
LOSSES = ["sigmoid", "focal", "qfl", "efl", "eqfl", "eqlv2_focal"]


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return tiny_data(tmp_path_factory)


def glyph_exp(detector: str, data: Path, **changes: Any) -> DetectorExp:
    """A detector on ResNet-18 with 32 channels, on 64-pixel glyphs."""
    exp: DetectorExp = type("TinyResNetExp", (GlyphResNetExp, DETECTORS[detector]), {})()
    settings = {
        "seed": 0,
        "data_dir": str(data),
        "num_classes": TINY["num_categories"],
        "glyph_image_size": TINY["image_size"],
        "glyph_train_images": TINY["train_images"],
        "glyph_val_images": TINY["val_images"],
        "fpn_channels": 32,
        "short_sides": (64,),
        "long_side": 64,
        "test_size": (64, 64),
        "data_num_workers": 0,
        "optimizer": "adamw",
        "basic_lr_per_img": 0.001 / 8,
        "warmup_epochs": 0,
        "warmup_iters": 5,
        "milestones": (),
    }
    # The glyphs are 16 pixels wide. PAA's candidates need an IoU of 0.1 with an anchor, and some glyphs get none of the
    # baseline's larger anchors (ATSS has no fall-back).
    if detector in SMALL_ANCHORS:
        settings["anchor_scales"] = SMALL_ANCHORS[detector]
    for name, value in {**settings, **changes}.items():
        setattr(exp, name, value)
    return exp


def pairs():
    """Every detector with every loss; in the daily suite every detector with EQFL and every loss with ATSS."""
    for detector, loss in itertools.product(DETECTORS, LOSSES):
        marks = () if detector == "atss" or loss == "eqfl" else (pytest.mark.slow,)
        yield pytest.param(detector, loss, marks=marks)


@pytest.mark.parametrize(("detector", "loss"), list(pairs()))
def test_thirty_steps__finite_and_falling(data, detector, loss):
    torch.manual_seed(0)
    # FPN and head alone: the backbone's gradient, half of the time, does not depend on detector and loss.
    exp = glyph_exp(detector, data, cls_loss=loss, trainable_layers=0, basic_lr_per_img=0.004 / 8)
    model, criterion = exp.get_model().train(), exp.get_criterion()
    optimizer = exp.get_optimizer(2, model)
    dataset = exp.get_dataset()
    stream = exp.get_sampler(exp.get_factors(dataset.store.index, dataset.images), 0, 0, 1)
    (batch,) = exp.get_data_loader(dataset, SampleSampler(stream, 2, 0, 1, 1))
    history = []
    for _ in range(30):
        images = exp.get_preprocessor()(batch.images, batch.image_sizes)
        predictions, priors = model(images)
        sizes = [(h, w) for h, w in batch.image_sizes.tolist()]
        losses = criterion(predictions, priors, batch.boxes, batch.labels, sizes)
        total = sum(losses.values())
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        history.append(total.item())
    assert all(map(math.isfinite, history))
    # Soft targets rise with the boxes, and the loss with them, before it falls.
    assert sum(history[-6:]) < 0.95 * sum(history[:6])
    for balance in criterion.step_states():
        assert balance.pos_grad.sum() > 0
        assert balance.skipped == 0


@pytest.mark.slow
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("detector", DETECTORS)
def test_eight_images__learnt_by_heart(tmp_path, detector, loss):
    # The run trains on its own eight validation images, so its last evaluation is the answer.
    ensure_glyphs(tmp_path / "data", **{**TINY, "val_images": 8})
    exp = glyph_exp(
        detector,
        tmp_path / "data",
        glyph_val_images=8,
        cls_loss=loss,
        output_dir=str(tmp_path),
        exp_name="eight",
        train_ann="glyphs_val.json",
        sampler="uniform",
        keep_empty=True,
        fpn_channels=64,
        max_epoch=120,
        milestones=(100,),
        eval_interval=120,
        save_history_ckpt=False,
    )
    Trainer(exp, TrainOptions(batch_size=8)).train()
    with open(tmp_path / "eight" / "metrics.csv") as file:
        last = list(csv.DictReader(file))[-1]
    assert float(last["AP50"]) > 0.9
