"""Experiments on the procedural glyph data set, which is written on first use."""

from __future__ import annotations

from pathlib import Path

from yolox_lt.data.dataset import default_data_root
from yolox_lt.exp.data import DataExp
from yolox_lt.exp.resnet import ResNetExp
from yolox_lt.exp.two_stage import TwoStageExp
from yolox_lt.exp.yolox import YOLOXStarExp


class GlyphData(DataExp):
    """Where the glyphs are, and what is written there. To be mixed into a detector's experiment."""

    num_classes = 30
    # pixels of the square images, and how many there are
    glyph_image_size: int = 128
    glyph_train_images: int = 2400
    glyph_val_images: int = 400
    # (smallest, largest) longer side of a glyph in pixels; None: 14 to 60 in images of 128
    glyph_object_size: tuple[float, float] | None = None
    # zipf, or lvis: the image counts of the file glyph_categories
    glyph_profile: str = "zipf"
    glyph_categories: str | None = None
    glyph_seed: int = 0

    data_folder = "glyphs"
    train_ann = "glyphs_train.json"
    val_ann = "glyphs_val.json"
    train_images = None
    val_images = None
    flip_prob = 0.0  # a mirrored glyph is another glyph

    def prepare_data(self) -> None:
        """Write the data set unless it is there."""
        from yolox_lt.data.glyphs.make import (
            ensure_glyphs,  # with matplotlib's fonts, which other experiments do not need
        )

        ensure_glyphs(self.data_root(), **self.glyph_options())

    def data_root(self) -> Path:
        """`data_dir`, else a folder below the data root named after the specification."""
        if self.data_dir is not None:
            return Path(self.data_dir)
        kind = f"{self.num_classes}_{self.glyph_image_size}px_{self.glyph_train_images}_{self.glyph_val_images}"
        return default_data_root() / self.data_folder / f"{kind}_{self.glyph_profile}_{self.glyph_seed}"

    def glyph_options(self) -> dict[str, object]:
        return {
            "num_categories": self.num_classes,
            "train_images": self.glyph_train_images,
            "val_images": self.glyph_val_images,
            "image_size": self.glyph_image_size,
            "object_size": self.glyph_object_size,
            "profile": self.glyph_profile,
            "categories_json": self.glyph_categories,
            "seed": self.glyph_seed,
        }


class GlyphExp(GlyphData, YOLOXStarExp):
    """A small YOLOX* on glyphs: minutes on two CPU cores.

    The class prior is 0.01: with 0.001 and so few categories positives outweigh negatives at once, g is 1 and EQFL is
    QFL.
    """

    prior_prob = 0.01
    # colour says nothing about a glyph: hue, saturation and value change by up to these shares
    hsv_strength: tuple[float, float, float] = (0.5, 0.7, 0.4)


class GlyphResNetExp(GlyphData, ResNetExp):
    """The ResNet detectors on glyphs, from random weights: a small network, all of it trained."""

    resnet_depth = 18
    backbone_weights = None
    trainable_layers = 5
    freeze_bn = False
    fpn_channels = 64
    prior_prob = 0.01
    sampler = "repeat_factor"
    short_sides = (128, 160, 192)
    long_side = 256
    test_size = (160, 256)


class GlyphTwoStageExp(GlyphData, TwoStageExp):
    """Faster R-CNN on glyphs, from random weights: a small network, all of it trained."""

    resnet_depth = 18
    backbone_weights = None
    trainable_layers = 5
    freeze_bn = False
    fpn_channels = 64
    head_width = 256
    prior_prob = 0.01
    sampler = "repeat_factor"
    short_sides = (128, 160, 192)
    long_side = 256
    test_size = (160, 256)
