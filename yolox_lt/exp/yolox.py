"""The YOLOX experiment: official YOLOX by default, YOLOX* of the EFL paper by `YOLOXStarExp`.

Attribute and method names are those of official YOLOX, so an existing file works with its import line changed.
"""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import numpy as np

from yolox_lt.assign import ATSSAssigner, BaseAssigner, SimOTAAssigner
from yolox_lt.coders import DeltaCoder, grid_coder
from yolox_lt.criterion import BaseCriterion, Criterion, YOLOXCriterion
from yolox_lt.data.augment.recipe import OFFICIAL_RECIPE, RELEASED_RECIPE, Augment, AugmentRecipe
from yolox_lt.data.collate import Collate
from yolox_lt.data.dataset import Letterbox
from yolox_lt.errors import UserError
from yolox_lt.exp.detection import DetectorExp, unknown
from yolox_lt.models import Detector, build_yolox
from yolox_lt.models.category_rows import CategoryRows
from yolox_lt.models.preprocess import Preprocessor
from yolox_lt.predict import Predictor


class Exp(DetectorExp):
    """Official YOLOX on COCO. Every attribute is a setting; more are in `DetectorExp` and `DataExp`."""

    family: ClassVar[str] = "yolox"

    # --------------------------------------------------------------- model
    # multipliers of the number of blocks and of channels
    depth: float = 1.0
    width: float = 1.0
    # silu, relu or lrelu
    act: str = "silu"
    # depthwise instead of ordinary 3x3 convolutions (YOLOX-Nano)
    depthwise: bool = False
    # residual shortcuts in the neck's bottlenecks: False in official YOLOX, True in the released EFL models
    neck_shortcut: bool = False
    # what the third branch predicts: obj (official YOLOX) or iou (YOLOX*)
    quality: str = "obj"
    # simota or atss
    assigner = "simota"
    cls_loss = "sigmoid"
    l1 = "tail"

    # --------------------------------------------------------------- schedule
    warmup_epochs: float = 5
    no_aug_epochs = 15

    # --------------------------------------------------------------- images
    # official (YOLOX's own) or released (the EFL models': see the recipes)
    recipe: str = "official"
    # grey level 0..255 around images; None = the recipe's, 114 (official) or 0 (released)
    pad_value: int | None = None
    # (height, width); with multiscale_range 5 the actual training size is within [640 - 5*32, 640 + 5*32]
    input_size: tuple[int, int] = (640, 640)
    multiscale_range: int = 5
    # (smallest, largest) training height in units of 32 pixels, official recipe only; overrides multiscale_range
    random_size: tuple[int, int] | None = None
    mosaic_prob: float = 1.0
    mixup_prob: float = 1.0
    hsv_prob: float = 1.0
    degrees: float = 10.0
    translate: float = 0.1
    mosaic_scale: tuple[float, float] = (0.1, 2)
    enable_mixup: bool = True
    mixup_scale: tuple[float, float] = (0.5, 1.5)
    shear: float = 2.0

    # ------------------------------------------------------------------------------------------- model and loss

    def get_model(self) -> Detector:
        """A freshly initialised detector on the CPU."""
        return build_yolox(
            self.num_outputs(),
            self.depth,
            self.width,
            act=self.act,
            depthwise=self.depthwise,
            num_anchors=len(self.anchor_scales),
            anchor_scales=self.anchor_scales,
            neck_shortcut=self.neck_shortcut,
            prior_prob=self.prior_prob,
        )

    def category_rows(self, content: dict[str, Any]) -> dict[str, CategoryRows]:
        """As `WishesExp.category_rows`. Beside an objectness a score means another thing than beside an IoU branch: its
        rows do not move from one to the other.
        """
        same = (content["exp"].get("quality") == "obj") == (self.quality == "obj")
        if not same or self.num_outputs() != self.num_classes:
            return {}
        return {"head.cls_preds.": CategoryRows(len(self.anchor_scales))}

    def get_coder(self) -> DeltaCoder:
        """Box code: YOLOX's grid for an objectness head, anchor deltas for an IoU branch."""
        return grid_coder() if self.quality == "obj" else DeltaCoder()

    def get_assigner(self) -> BaseAssigner:
        """The label assigner named by `assigner`."""
        if self.assigner == "simota":
            return SimOTAAssigner()
        if self.assigner == "atss":
            return ATSSAssigner(self.atss_cells * len(self.anchor_scales))
        raise unknown("assigner", self.assigner, "simota, atss")

    def get_criterion(self) -> BaseCriterion:
        """Assignment and losses as one object."""
        if self.l1 not in ("tail", "always", "never"):
            raise unknown("l1", self.l1, "tail, always, never")
        use_l1 = self.l1 == "always"
        if self.quality == "iou":
            parts = self.get_assigner(), self.get_cls_loss(), self.get_coder()
            return Criterion(*parts, use_l1, cls_weight=self.cls_weight)
        if self.quality == "obj":
            if self.cls_loss != "sigmoid" or len(self.anchor_scales) != 1:
                raise UserError(
                    "quality 'obj' is official YOLOX's head, with cls_loss 'sigmoid' and one anchor, not "
                    f"{self.cls_loss!r} and {len(self.anchor_scales)}; derive from YOLOXStarExp for the other losses"
                )
            return YOLOXCriterion(self.get_assigner(), self.get_coder(), use_l1, self.cls_weight)
        raise unknown("quality", self.quality, "obj, iou")

    def get_predictor(self, names: tuple[str, ...] = ()) -> Predictor:
        """From predictions to detections with this experiment's thresholds."""
        return Predictor(
            self.get_coder(),
            nms_threshold=self.nmsthre,
            score_threshold=self.test_conf,
            pre_nms=self.pre_nms,
            max_detections=self.max_detections,
            multi_label=self.multi_label,
            clip=None if self.quality == "obj" else "input",
            names=names,
            scores=self.class_scores(),
        )

    # ------------------------------------------------------------------------------------------- images

    def get_recipe(self) -> AugmentRecipe:
        """The augmentation recipe with this experiment's values."""
        if self.recipe not in ("official", "released"):
            raise unknown("recipe", self.recipe, "official, released")
        released = self.recipe == "released"
        base = RELEASED_RECIPE if released else OFFICIAL_RECIPE
        own = {f.name: getattr(self, f.name) for f in dataclasses.fields(base) if hasattr(self, f.name)}
        if self.pad_value is not None:
            own["fill"] = self.pad_value
        own["image_multiscale"] = (self.multiscale_range or None) if released else None
        return dataclasses.replace(base, **own)

    def get_augment(self) -> Augment:
        return Augment(self.get_recipe(), self.input_size)

    def get_eval_transform(self) -> Letterbox:
        recipe = self.get_recipe()
        return Letterbox(self.test_size, recipe.fill, recipe.truncate)

    def get_collate(self) -> Collate:
        return Collate(self.get_recipe().fill)

    def has_fixed_size(self) -> bool:
        low, high = self.size_range()
        return low == high

    def random_resize(self, iteration: int) -> tuple[int, int] | None:
        """Input size (height, width) of an iteration: drawn again every ten, the same on every rank.

        The released recipe draws a size for each image instead, so its batches stay as they are collated.
        """
        if self.recipe == "released":
            return None
        low, high = self.size_range()
        if low == high:
            return self.input_size
        rng = np.random.default_rng([self.seed or 0, 1, iteration // 10])
        rows = int(rng.integers(low, high + 1))
        return rows * 32, 32 * int(rows * self.input_size[1] / self.input_size[0])

    def largest_input(self) -> tuple[int, int]:
        rows = self.size_range()[1]
        return rows * 32, 32 * int(rows * self.input_size[1] / self.input_size[0])

    def size_range(self) -> tuple[int, int]:
        """Smallest and largest training height in units of 32 pixels."""
        if self.random_size is not None:
            return self.random_size
        base = self.input_size[0] // 32
        return base - self.multiscale_range, base + self.multiscale_range

    def get_preprocessor(self) -> Preprocessor:
        """YOLOX takes 0..255 BGR as they are, the padding too."""
        return Preprocessor()


class YOLOXStarExp(Exp):
    """YOLOX* of the EFL paper with the released models' settings: ATSS, two anchors, IoU branch, EQFL by default.

    Learning rate 0.0003125 per image (0.02 at batch 64), twice official YOLOX's.
    """

    anchor_scales = (3, 4)
    neck_shortcut = True
    prior_prob = 0.001
    assigner = "atss"
    cls_loss = "eqfl"
    quality = "iou"
    l1 = "always"
    recipe = "released"
    mixup_scale = (0.8, 1.6)
    sampler = "repeat_factor"
    keep_empty = False
    basic_lr_per_img = 0.02 / 64.0
    scheduler = "yoloxwarmcos_released"
    cls_bias_decay = 5e-4
    test_conf = 0.0
    pre_nms = 1000
    multi_label = True
