"""A Faster R-CNN on tiny glyphs that a test can train."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.tiny import TINY
from yolox_lt.exp import GlyphTwoStageExp

METHODS: dict[str, dict[str, Any]] = {
    "softmax": {},
    "eql": {"eql_threshold": 0.1},
    "eqlv2": {},
    "seesaw": {"normed_classifier": True},
    "bags": {"group_bins": (10, 30, 100)},
}
"""Classification loss -> its other settings, so that each does something on the tiny set."""


def two_stage_exp(data: Path, output: Path, cls_loss: str = "softmax", **changes: Any) -> GlyphTwoStageExp:
    """ResNet-18 with 32 channels on 64-pixel glyphs, 30 iterations, no worker processes."""
    exp = GlyphTwoStageExp()
    settings = {
        "exp_name": cls_loss,
        "cls_loss": cls_loss,
        "seed": 0,
        "data_dir": str(data),
        "output_dir": str(output),
        "num_classes": TINY["num_categories"],
        "glyph_image_size": TINY["image_size"],
        "glyph_train_images": TINY["train_images"],
        "glyph_val_images": TINY["val_images"],
        "fpn_channels": 32,
        "head_width": 64,
        "short_sides": (64,),
        "long_side": 64,
        "test_size": (64, 64),
        "max_epoch": 1,
        "max_iter": 30,
        "warmup_iters": 10,
        "basic_lr_per_img": 0.006 / 2,
        "eval_interval": 100,
        "data_num_workers": 0,
    }
    for name, value in {**settings, **METHODS[cls_loss], **changes}.items():
        setattr(exp, name, value)
    return exp
