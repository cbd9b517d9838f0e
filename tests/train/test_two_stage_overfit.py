"""Every two-stage method learns eight images by heart, from random weights on a CPU; run by `make test-slow`."""

from __future__ import annotations

import json
from functools import partial

import numpy as np
import pytest

from tests.tiny import tiny_data
from tests.two_stage import METHODS, two_stage_exp
from yolox_lt.assign import BalancedSampler
from yolox_lt.train.engine import Trainer
from yolox_lt.train.options import TrainOptions

SETTINGS = {
    **{"short_sides": (128,), "long_side": 128, "test_size": (128, 128), "sampler": "uniform", "group_aspect": False},
    **{"fpn_channels": 64, "head_width": 128, "basic_lr_per_img": 0.02 / 8, "warmup_iters": 40, "eval_interval": 1},
    **{"max_iter": None, "milestones": ()},
}


@pytest.fixture(scope="module")
def eight(tmp_path_factory):
    """Annotations of eight images that hold every category, for training and evaluation; and their folder."""
    data = tiny_data(tmp_path_factory)
    content = json.loads((data / "annotations" / "glyphs_train.json").read_text())
    chosen, missing = [], {c["id"] for c in content["categories"]}
    for image in content["images"]:
        own = {a["category_id"] for a in content["annotations"] if a["image_id"] == image["id"]}
        if own and (own & missing or len(chosen) < 8 - len(missing)):
            chosen.append(image)
            missing -= own
    chosen = chosen[:8]
    ids = {image["id"] for image in chosen}
    content["images"] = chosen
    content["annotations"] = [a for a in content["annotations"] if a["image_id"] in ids]
    path = tmp_path_factory.mktemp("eight") / "eight.json"
    path.write_text(json.dumps(content))
    assert len(chosen) == 8
    return data, str(path)


def few_regions(criterion):
    """128 regions of an image instead of 512: most of a step's time is their RoIAlign."""
    criterion.roi_sampler = BalancedSampler(128, 0.25)
    return criterion


def ap50(eight, output, cls_loss, steps=240, **changes):
    """AP50 in [0, 1] on the images themselves after so many steps of all eight."""
    data, path = eight
    exp = two_stage_exp(data, output, cls_loss, train_ann=path, val_ann=path, **{**SETTINGS, **changes})
    exp.get_factors = lambda index, positions: np.full(len(positions), steps)
    exp.get_criterion = partial(few_regions, exp.get_criterion())
    trainer = Trainer(exp, TrainOptions(8))
    trainer.train()
    return trainer.run.metrics["AP50"]


@pytest.mark.slow
@pytest.mark.parametrize("cls_loss", [name for name in METHODS if name != "bags"])
def test_overfit(eight, tmp_path, cls_loss):
    assert ap50(eight, tmp_path, cls_loss) > 0.9


@pytest.mark.slow
def test_overfit__second_training(eight, tmp_path):
    """cRT and BAGS: the classifier alone, from new weights, on a baseline that has learnt the images."""
    assert ap50(eight, tmp_path, "softmax") > 0.9
    start = str(tmp_path / "softmax" / "latest.pth")
    changes = {"classifier_only": True, "start_from": start, "steps": 100}
    for cls_loss in ("softmax", "bags"):
        assert ap50(eight, tmp_path, cls_loss, exp_name=f"second_{cls_loss}", **changes) > 0.9
