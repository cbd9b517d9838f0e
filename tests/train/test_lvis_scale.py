"""1203 categories in LVIS format through the paper's experiment file, small enough for a test."""

from __future__ import annotations

import csv
import json
import math
from collections import Counter

import pytest
import torch

from tests.conftest import GOLDEN
from yolox_lt.checkpoint import load_checkpoint
from yolox_lt.data.glyphs.make import write_glyphs
from yolox_lt.exp import get_exp
from yolox_lt.train.engine import Trainer
from yolox_lt.train.options import TrainOptions

pytestmark = pytest.mark.xdist_group("lvis_scale")


@pytest.fixture(scope="module")
def lvis_folder(tmp_path_factory):
    """The real category table and count profile on a few hundred glyph images."""
    folder = tmp_path_factory.mktemp("lvis") / "data"
    write_glyphs(
        folder,
        num_categories=1203,
        train_images=240,
        val_images=380,
        image_size=160,
        objects_per_image=(5, 8),
        object_size=(10, 30),
        min_val_images=1,
        profile="lvis",
        categories_json=GOLDEN / "lvis_v1_categories.json",
    )
    return folder


def test_folder__has_the_table_and_every_category_on_both_sides(lvis_folder):
    train, val = (
        json.loads((lvis_folder / f"annotations/glyphs_{part}.json").read_text()) for part in ("train", "val")
    )
    assert Counter(category["frequency"] for category in train["categories"]) == {"r": 337, "c": 461, "f": 405}
    assert all(category["image_count"] >= 1 for category in train["categories"])
    assert {annotation["category_id"] for annotation in val["annotations"]} == set(range(1, 1204))


def run(folder, output, amp, iterations, *settings):
    exp = get_exp("exps/lvis/yolox_s_eqfl.py")
    exp.merge(["data_dir", str(folder), "train_ann", "glyphs_train.json", "val_ann", "glyphs_val.json"])
    exp.merge(["output_dir", str(output), "seed", "0", "max_iter", str(iterations), "max_epoch", "1"])
    exp.merge(["input_size", "(192,192)", "test_size", "(64,64)", "data_num_workers", "0"])
    exp.merge(["width", "0.25", "warmup_epochs", "1", "no_aug_epochs", "0", *settings])
    trainer = Trainer(exp, TrainOptions(4, amp=amp))
    trainer.train()
    return trainer, output / "yolox_s_eqfl"


def test_epoch__of_a_few_iterations_trains_scores_and_saves(lvis_folder, tmp_path):
    """In bf16: what goes wrong in float32 goes wrong here too, and other tests train in it."""
    smaller = ("input_size", "(96,96)", "multiscale_range", "1")
    trainer, folder = run(lvis_folder, tmp_path, torch.bfloat16, 3, *smaller)
    (row,) = csv.DictReader((folder / "metrics.csv").open())
    assert all(math.isfinite(float(row[name])) for name in ("cls", "box", "quality", "l1", "APr", "APc", "APf"))
    balance = trainer.run.criterion.step_states()[0]
    assert torch.isfinite(balance.ratio).all()
    assert (balance.neg_grad > 0).all()
    assert 0 < (balance.pos_grad > 0).sum() < 1203
    assert len(load_checkpoint(folder / "latest.pth")["names"]) == 1203
    assert len((folder / "per_category.csv").read_text().splitlines()) == 1204
