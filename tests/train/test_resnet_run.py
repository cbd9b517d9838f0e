"""A ResNet experiment from start to detections: backbone file, grouped batches, resume, the Python API."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch
import torchvision

import yolox_lt
from tests.tiny import TINY, tiny_data
from yolox_lt.checkpoint import load_checkpoint
from yolox_lt.errors import UserError
from yolox_lt.evaluate.collect import to_arrays
from yolox_lt.exp import GlyphResNetExp
from yolox_lt.train.engine import Trainer
from yolox_lt.train.options import TrainOptions


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return tiny_data(tmp_path_factory)


@pytest.fixture(scope="module")
def backbone_file(tmp_path_factory):
    torch.manual_seed(5)
    path = tmp_path_factory.mktemp("backbone") / "resnet18.pth"
    torch.save(torchvision.models.resnet18(weights=None).state_dict(), path)
    return path


def small_exp(data, output, **changes) -> GlyphResNetExp:
    exp = GlyphResNetExp()
    settings = {
        "exp_name": "resnet",
        "seed": 0,
        "data_dir": str(data),
        "output_dir": str(output),
        "num_classes": TINY["num_categories"],
        "glyph_image_size": TINY["image_size"],
        "glyph_train_images": TINY["train_images"],
        "glyph_val_images": TINY["val_images"],
        "fpn_channels": 32,
        "short_sides": (48, 64),
        "long_side": 64,
        "test_size": (64, 64),
        "max_epoch": 2,
        "max_iter": 3,
        "milestones": (1,),
        "eval_interval": 100,
        "data_num_workers": 0,
    }
    for name, value in {**settings, **changes}.items():
        setattr(exp, name, value)
    return exp


def test_run__starts_from_the_backbone_file_and_keeps_what_is_frozen(data, backbone_file, tmp_path):
    exp = small_exp(
        data, tmp_path, backbone_weights=str(backbone_file), trainable_layers=3, freeze_bn=True, max_epoch=1, max_iter=2
    )
    Trainer(exp, TrainOptions(batch_size=2)).train()
    trained = load_checkpoint(tmp_path / "resnet" / "latest.pth")
    assert trained["family"] == "resnet"
    start = torch.load(backbone_file, weights_only=True)
    frozen = ("conv1", "bn1", "layer1")
    for name, value in start.items():
        if name.startswith("fc."):
            continue
        same = torch.equal(trained["model"][f"backbone.resnet.{name}"], value)
        is_buffer = "running" in name or "tracked" in name
        assert same == (name.startswith(frozen) or is_buffer), name


def test_run__backbone_of_another_depth_ends_before_anything_is_written(data, backbone_file, tmp_path):
    exp = small_exp(data, tmp_path, backbone_weights=str(backbone_file), resnet_depth=34)
    with pytest.raises(UserError, match=r"resnet18\.pth.*34"):
        Trainer(exp, TrainOptions(batch_size=2)).train()
    assert not (tmp_path / "resnet" / "latest.pth").exists()


def test_resume__goes_on_bit_for_bit_with_grouped_batches(data, tmp_path):
    Trainer(small_exp(data, tmp_path / "whole"), TrainOptions(batch_size=2)).train()
    # The same run, stopped after the first epoch.
    first = small_exp(data, tmp_path / "parts")
    trainer = Trainer(first, TrainOptions(batch_size=2))
    end_epoch = trainer.end_epoch

    def stop():
        end_epoch()
        raise KeyboardInterrupt

    trainer.end_epoch = stop
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    Trainer(small_exp(data, tmp_path / "parts"), TrainOptions(batch_size=2, resume=True)).train()
    whole, parts = (load_checkpoint(tmp_path / kind / "resnet" / "latest.pth") for kind in ("whole", "parts"))
    assert whole["iteration"] == parts["iteration"] == 6
    assert all(torch.equal(value, parts["model"][name]) for name, value in whole["model"].items())
    assert all(torch.equal(value, parts["criterion"][name]) for name, value in whole["criterion"].items())


def test_loaded__detects_as_the_evaluator_does(data, tmp_path):
    exp = small_exp(data, tmp_path, max_epoch=1)
    trainer = Trainer(exp, TrainOptions(batch_size=2))
    trainer.train()
    evaluated = trainer.run.evaluator.detect(trainer.run.model, torch.device("cpu"))
    detector = yolox_lt.load(tmp_path / "resnet" / "latest.pth")
    assert type(detector.exp) is yolox_lt.exp.ResNetExp
    store = exp.get_store("val")
    for position in (0, 5):
        image_id = int(store.index.image_ids[position])
        ours = to_arrays(detector(store.read(position), conf=exp.test_conf), image_id, store.index.category_ids)
        theirs = evaluated.image_ids == image_id
        np.testing.assert_allclose(ours.boxes, evaluated.boxes[theirs], atol=1e-3)
        np.testing.assert_allclose(ours.scores, evaluated.scores[theirs], atol=1e-6)


def test_checkpoint__of_another_number_of_categories_is_refused(data, tmp_path):
    exp = small_exp(data, tmp_path, max_epoch=1, max_iter=1)
    Trainer(exp, TrainOptions(batch_size=2)).train()
    path = shutil.copy(tmp_path / "resnet" / "latest.pth", tmp_path / "other.pth")
    content = load_checkpoint(path)
    content["exp"]["num_classes"] = 7
    torch.save(content, path)
    with pytest.raises(UserError, match=r"other\.pth: weights of another model \(head\.cls_pred\.weight is"):
        yolox_lt.load(path)
