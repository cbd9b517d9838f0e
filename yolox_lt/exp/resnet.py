"""Dense detectors on ResNet with FPN: the EFL paper's improved baseline, and RetinaNet, FCOS*, ATSS and PAA.

Each is an assigner and a few settings of one head; the trainer is YOLOX's. Where the paper leaves a detail to its
references the docstring says what we chose.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from yolox_lt.assign import ATSSAssigner, BaseAssigner, FCOSAssigner, MaxIoUAssigner, PAAAssigner
from yolox_lt.coders import Coder, DeltaCoder, DistanceCoder
from yolox_lt.criterion import BaseCriterion, Criterion, RetinaNetCriterion
from yolox_lt.data.augment.short_side import ShortSideAugment, ShortSideTransform
from yolox_lt.data.collate import Collate
from yolox_lt.errors import UserError
from yolox_lt.exp.detection import DetectorExp, unknown
from yolox_lt.models import Detector, build_resnet
from yolox_lt.models.category_rows import CategoryRows
from yolox_lt.models.preprocess import Preprocessor
from yolox_lt.predict import Predictor


class ResNetBodyExp(DetectorExp):
    """What every detector on a ResNet shares: body, schedule of the paper's tables, images by their shorter side."""

    # --------------------------------------------------------------- model
    # 18, 34, 50, 101 or 152
    resnet_depth: int = 50
    # imagenet (torchvision's, downloaded), a file with a torchvision ResNet, or None for random weights
    backbone_weights: str | None = "imagenet"
    # of stem and four stages those that are trained, from the last: 3 = stem and first stage frozen, 5 = all trained
    trainable_layers: int = 3
    # BatchNorm in evaluation mode; its weights and biases are trained all the same
    freeze_bn: bool = True
    # channels of FPN and head, a multiple of 32
    fpn_channels: int = 256
    prior_prob = 0.001

    # --------------------------------------------------------------- schedule
    batch_size = 16
    basic_lr_per_img = 0.02 / 16
    max_epoch = 24
    scheduler = "multistep"
    milestones = (16, 22)
    weight_decay = 1e-4
    decay_all = True
    nesterov = False
    ema = False
    eval_interval = 4

    # --------------------------------------------------------------- data
    keep_empty = False
    epoch_length = "repeated"
    group_aspect = True
    # lengths from which the shorter side of a training image is drawn, and the limit of the longer one
    short_sides: tuple[int, ...] = (640, 672, 704, 736, 768, 800)
    long_side: int = 1333
    test_size = (800, 1333)
    # RGB order, values scaled to [0, 1]
    pixel_mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    pixel_std: tuple[float, ...] = (0.229, 0.224, 0.225)

    # --------------------------------------------------------------- test
    nmsthre = 0.5
    multi_label = True

    def load_pretrained(self, model: Detector) -> None:
        """The backbone named by `backbone_weights`."""
        if self.backbone_weights is not None:
            from yolox_lt.models.resnet_fpn import load_backbone

            load_backbone(model.backbone, self.backbone_weights)  # type: ignore[arg-type]

    def get_augment(self) -> ShortSideAugment:
        return ShortSideAugment(self.short_sides, self.long_side, self.flip_prob, legacy=False)

    def largest_input(self) -> tuple[int, int]:
        multiple = self.get_collate().multiple
        short = max(self.short_sides) if self.group_aspect else self.long_side
        return -(-short // multiple) * multiple, -(-self.long_side // multiple) * multiple

    def get_eval_transform(self) -> ShortSideTransform:
        return ShortSideTransform(*self.test_size)

    def get_preprocessor(self) -> Preprocessor:
        """RGB, mean and deviation taken out, zero where there is padding."""
        return Preprocessor(self.pixel_mean, self.pixel_std, blank_padding=True)


class ResNetExp(ResNetBodyExp):
    """The improved baseline with EFL, as in the released R-50 model (paper, Table 2, last rows).

    ATSS with two anchors a cell, IoU branch, stabilised settings: a long warm-up, gradients clipped at norm 35. The
    paper warms up over 6000 iterations (`warmup_iters`), the released configuration over one epoch, about as many.
    """

    family: ClassVar[str] = "resnet"

    # --------------------------------------------------------------- model
    anchor_scales: tuple[float, ...] = (6, 8)
    # heights of a cell's anchors divided by their widths
    anchor_ratios: tuple[float, ...] = (1.0,)
    # the +1 pixel convention of the released ResNet models
    legacy: bool = True
    # what the third branch predicts: iou, centerness, or None for no branch
    quality: str | None = "iou"

    # --------------------------------------------------------------- assignment and loss
    # atss, max_iou, fcos or paa
    assigner = "atss"
    # deltas relative to an anchor, or the distances of FCOS
    box_code: str = "deltas"
    # giou (weighted by the quality target) or l1 (on the deltas)
    box_loss: str = "giou"
    box_weight: float = 1.0
    quality_weight: float = 1.0
    cls_loss = "efl"
    loss_scale = 8.0

    # --------------------------------------------------------------- schedule
    warmup_epochs = 1
    clip_norm: float | None = 35.0

    # --------------------------------------------------------------- test
    test_conf = 0.0
    pre_nms = 6000
    # boxes refined by their neighbours (PAA)
    score_voting: bool = False

    # ------------------------------------------------------------------------------------------- model and loss

    def get_model(self) -> Detector:
        """A freshly initialised detector on the CPU, without the backbone's pretrained weights."""
        return build_resnet(
            self.num_outputs(),
            depth=self.resnet_depth,
            channels=self.fpn_channels,
            anchor_scales=self.anchor_scales,
            anchor_ratios=self.anchor_ratios,
            quality=self.quality is not None,
            legacy=self.legacy,
            prior_prob=self.prior_prob,
            trainable_layers=self.trainable_layers,
            freeze_bn=self.freeze_bn,
        )

    def category_rows(self, content: dict[str, Any]) -> dict[str, CategoryRows]:
        if self.num_outputs() != self.num_classes:
            return {}
        return {"head.cls_pred.": CategoryRows(len(self.anchor_scales) * len(self.anchor_ratios))}

    def get_coder(self) -> Coder:
        """The box code named by `box_code`."""
        if self.box_code == "deltas":
            return DeltaCoder()
        if self.box_code == "distances":
            return DistanceCoder(0.5 * self.legacy)
        raise unknown("box_code", self.box_code, "deltas, distances")

    def get_assigner(self) -> BaseAssigner:
        """The label assigner named by `assigner`."""
        anchors = len(self.anchor_scales) * len(self.anchor_ratios)
        if self.assigner == "atss":
            return ATSSAssigner(self.atss_cells * anchors)
        if self.assigner == "max_iou":
            return MaxIoUAssigner()
        if self.assigner == "paa":
            return PAAAssigner(box_weight=self.box_weight, alpha=self.loss_alpha, gamma=self.loss_gamma)
        if self.assigner == "fcos":
            if anchors != 1:
                raise UserError(f"assigner 'fcos' has one point a cell, not {anchors} anchors; set anchor_scales (1,)")
            return FCOSAssigner()
        raise unknown("assigner", self.assigner, "atss, max_iou, fcos, paa")

    def get_criterion(self) -> BaseCriterion:
        """Assignment and losses as one object."""
        parts = self.get_assigner(), self.get_cls_loss(), self.get_coder()
        if self.box_loss == "l1":
            if self.quality is not None:
                raise UserError(f"box_loss 'l1' has no third branch; set quality None, not {self.quality!r}")
            return RetinaNetCriterion(*parts, self.cls_weight)
        if self.box_loss != "giou":
            raise unknown("box_loss", self.box_loss, "giou, l1")
        if self.l1 not in ("always", "never"):
            raise unknown("l1", self.l1, "always, never")
        if self.quality not in ("iou", "centerness", None):
            raise unknown("quality", self.quality, "iou, centerness, None")
        target: Literal["iou", "centerness"] = "centerness" if self.quality == "centerness" else "iou"
        return Criterion(*parts, self.l1 == "always", target, self.box_weight, self.quality_weight, self.cls_weight)

    def get_predictor(self, names: tuple[str, ...] = ()) -> Predictor:
        """From predictions to detections with this experiment's thresholds."""
        return Predictor(
            self.get_coder(),
            nms_threshold=self.nmsthre,
            score_threshold=self.test_conf,
            pre_nms=self.pre_nms,
            max_detections=self.max_detections,
            multi_label=self.multi_label,
            clip="content",
            voting=self.score_voting,
            names=names,
            scores=self.class_scores(),
        )

    # ------------------------------------------------------------------------------------------- images

    def get_augment(self) -> ShortSideAugment:
        return ShortSideAugment(self.short_sides, self.long_side, self.flip_prob, self.legacy)

    def get_collate(self) -> Collate:
        return Collate(multiple=64)


class RetinaNetExp(ResNetExp):
    """RetinaNet (Lin et al. 2017) with the stabilised settings (paper, Tables 1, 2 and 6).

    The paper gives no details. Our choice: three scales and three ratios a cell, IoU above 0.5 positive, below 0.4
    negative, every object keeps its best anchor, plain L1 on the deltas, no third branch; the head has GroupNorm like
    the other detectors'.
    """

    anchor_scales = (4, 4 * 2 ** (1 / 3), 4 * 2 ** (2 / 3))
    anchor_ratios = (0.5, 1.0, 2.0)
    quality = None
    assigner = "max_iou"
    box_loss = "l1"


class FCOSExp(ResNetExp):
    """FCOS* (Tian et al. 2019 with the improvements the ATSS paper lists), stabilised settings (paper, Tables 1 and 6).

    Our choice: points in the middle of cells (where the legacy convention places anchors), centre sampling within 1.5
    strides, ranges 64, 128, 256, 512 pixels, distances as logarithms in strides, centre-ness on the box tower, GIoU
    weighted by it.
    """

    anchor_scales = (1,)
    quality = "centerness"
    assigner = "fcos"
    box_code = "distances"


class ATSSExp(ResNetExp):
    """ATSS (Zhang et al. 2020) without the stabilised settings (paper, Tables 1, 5 and 6).

    One anchor of eight strides a cell, nine cells a level, centre-ness; warm-up of 1000 iterations, no clipping. GIoU
    has weight 1 as in the released head, where the ATSS paper has 2: so the steps of Table 5 differ in what they name.
    """

    anchor_scales = (8,)
    quality = "centerness"
    warmup_epochs = 0
    warmup_iters = 1000
    clip_norm = None


class PAAExp(ResNetExp):
    """PAA (Kim and Lee 2020) with an IoU branch, without the stabilised settings (paper, Tables 1 and 6).

    Our choice, as in PAA's paper: one anchor of eight strides a cell, candidates by IoU 0.1, nine a level, GIoU with
    weight 1.3 and the IoU branch with 0.5; score voting is off unless `score_voting` asks for it.
    """

    anchor_scales = (8,)
    quality = "iou"
    assigner = "paa"
    box_weight = 1.3
    quality_weight = 0.5
    warmup_epochs = 0
    warmup_iters = 1000
    clip_norm = None
