"""A data set and an experiment small enough to train in a test."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from yolox_lt.data.glyphs.make import ensure_glyphs
from yolox_lt.exp import GlyphExp

TINY: dict[str, Any] = {"num_categories": 4, "train_images": 360, "val_images": 12, "image_size": 64}


def tiny_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the tiny glyph set, written once a session."""
    folder = tmp_path_factory.getbasetemp() / "glyphs_tiny"
    ensure_glyphs(folder, **TINY)
    return folder


def tiny_exp(data: Path, output: Path, **changes: Any) -> GlyphExp:
    """YOLOX* of width 0.125 on 64-pixel glyphs, two epochs of ten iterations, no worker processes."""
    exp = GlyphExp()
    settings = {
        "exp_name": "tiny",
        "seed": 0,
        "data_dir": str(data),
        "output_dir": str(output),
        "num_classes": TINY["num_categories"],
        "glyph_image_size": TINY["image_size"],
        "glyph_train_images": TINY["train_images"],
        "glyph_val_images": TINY["val_images"],
        "depth": 0.33,
        "width": 0.125,
        "input_size": (64, 64),
        "test_size": (64, 64),
        "multiscale_range": 0,
        "mosaic_scale": (0.8, 1.2),
        "max_epoch": 2,
        "max_iter": 10,
        "eval_interval": 100,
        "warmup_epochs": 0.5,
        "no_aug_epochs": 0,
        "basic_lr_per_img": 0.01 / 4,
        "data_num_workers": 0,
    }
    for name, value in {**settings, **changes}.items():
        setattr(exp, name, value)
    return exp
