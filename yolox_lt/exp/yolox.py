"""The YOLOX experiment: official YOLOX by default, YOLOX* of the EFL paper by `StarExp`.

Attribute and method names are those of official YOLOX, so an existing file works with its import line changed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from loguru import logger
from torch import Tensor

from yolox_lt.assign import ATSSAssigner, SimOTAAssigner
from yolox_lt.coders import DeltaCoder, grid_coder
from yolox_lt.criterion import BaseCriterion, Criterion, YOLOXCriterion
from yolox_lt.data.recipe import OFFICIAL_RECIPE, RELEASED_RECIPE, AugmentRecipe
from yolox_lt.errors import UserError
from yolox_lt.exp.data import DataExp
from yolox_lt.losses import (
    DenseLoss,
    EQLv2FocalLoss,
    EqualizedFocalLoss,
    EqualizedQualityFocalLoss,
    FocalLoss,
    QualityFocalLoss,
    SigmoidLoss,
)
from yolox_lt.models import Detector, build_yolox
from yolox_lt.predict import Predictor
from yolox_lt.train import schedule
from yolox_lt.train.optim import build_adamw, build_sgd, param_groups

if TYPE_CHECKING:
    from yolox_lt.evaluate.evaluator import Evaluator
    from yolox_lt.evaluate.report import Report
    from yolox_lt.train.options import TrainOptions
from yolox_lt.train.trainer import Trainer


class Exp(DataExp):
    """Official YOLOX on COCO. Every attribute is a setting; data settings are in `DataExp`."""

    at_least_one = frozenset(
        {"num_classes", "batch_size", "print_interval", "eval_interval", "keep_checkpoints", "max_epoch", "max_iter"}
        | {"accumulate", "atss_cells", "max_detections", "pre_nms"}
    )

    # --------------------------------------------------------------- run
    # seed of everything random; None draws one and writes it into the checkpoint
    seed: int | None = None
    output_dir: str = "./YOLOX_outputs"
    # name of the run's folder below output_dir; empty = the file's stem
    exp_name: str = ""
    # images of one step when -b is not given
    batch_size: int = 64
    # iterations between two lines of log
    print_interval: int = 10
    # epochs between two evaluations; in the closing epochs without mosaic every epoch is evaluated
    eval_interval: int = 10
    # keep an epoch_N.pth for each evaluation ...
    save_history_ckpt: bool = True
    # ... but only the latest so many
    keep_checkpoints: int = 5

    # --------------------------------------------------------------- model
    # multipliers of the number of blocks and of channels
    depth: float = 1.0
    width: float = 1.0
    # silu, relu or lrelu
    act: str = "silu"
    # depthwise instead of ordinary 3x3 convolutions (YOLOX-Nano)
    depthwise: bool = False
    # sides of a cell's anchors in strides; (1,) is YOLOX's plain grid
    anchor_scales: tuple[float, ...] = (1,)
    # residual shortcuts in the neck's bottlenecks: False in official YOLOX, True in the released EFL models
    neck_shortcut: bool = False
    # score that class and quality branch start from
    prior_prob: float = 0.01

    # --------------------------------------------------------------- assignment and loss
    # simota or atss
    assigner: str = "simota"
    # candidate cells per level and object of ATSS; priors per level = cells x anchors (18 with two anchors)
    atss_cells: int = 9
    # sigmoid, focal, qfl, efl, eqfl or eqlv2_focal
    cls_loss: str = "sigmoid"
    loss_alpha: float = 0.25
    loss_gamma: float = 2.0
    # s of EFL and EQFL
    loss_scale: float = 4.0
    # the two halves of EFL and EQFL (paper, Table 3)
    loss_focusing: bool = True
    loss_weighting: bool = True
    # what the third branch predicts: obj (official YOLOX) or iou (YOLOX*)
    quality: str = "obj"
    # L1 on box deltas: tail (closing epochs only, official YOLOX), always (YOLOX*) or never
    l1: str = "tail"

    # --------------------------------------------------------------- schedule
    warmup_epochs: float = 5
    max_epoch: int = 300
    warmup_lr: float = 0
    min_lr_ratio: float = 0.05
    # learning rate per image of the batch
    basic_lr_per_img: float = 0.01 / 64.0
    # yoloxwarmcos (official), yoloxwarmcos_released (EFL's), warmcos, cos or multistep
    scheduler: str = "yoloxwarmcos"
    # epochs of multistep's drops by 10
    milestones: tuple[int, ...] = ()
    # closing epochs without mosaic and mixup
    no_aug_epochs: int = 15
    # sgd (Nesterov, official and released) or adamw
    optimizer: str = "sgd"
    ema: bool = True
    ema_decay: float = 0.9998
    weight_decay: float = 5e-4
    # decay of the classifier's bias: None = 0 as for every bias; 5e-4 in the released EFL models, 1e-4 in the paper
    cls_bias_decay: float | None = None
    momentum: float = 0.9
    # largest total gradient norm, None = no clipping
    clip_norm: float | None = None
    # batches whose gradients are added up before a step; -b counts them all
    accumulate: int = 1

    # --------------------------------------------------------------- test
    test_conf: float = 0.01
    nmsthre: float = 0.65
    # (prior, category) pairs kept per level before NMS, None = as many as the level has priors
    pre_nms: int | None = None
    # a prior may be several categories at once (needed for LVIS's near synonyms); official YOLOX: only its best
    multi_label: bool = False
    max_detections: int = 300

    # ------------------------------------------------------------------------------------------- model and loss

    def get_model(self) -> Detector:
        """A freshly initialised detector on the CPU."""
        return build_yolox(
            self.num_classes,
            self.depth,
            self.width,
            act=self.act,
            depthwise=self.depthwise,
            num_anchors=len(self.anchor_scales),
            anchor_scales=self.anchor_scales,
            neck_shortcut=self.neck_shortcut,
            prior_prob=self.prior_prob,
        )

    def get_coder(self) -> DeltaCoder:
        """Box code: YOLOX's grid for an objectness head, anchor deltas for an IoU branch."""
        return grid_coder() if self.quality == "obj" else DeltaCoder()

    def get_assigner(self) -> ATSSAssigner | SimOTAAssigner:
        """The label assigner named by `assigner`."""
        if self.assigner == "simota":
            return SimOTAAssigner()
        if self.assigner == "atss":
            return ATSSAssigner(self.atss_cells * len(self.anchor_scales))
        raise unknown("assigner", self.assigner, "simota, atss")

    def get_cls_loss(self) -> DenseLoss:
        """The classification loss named by `cls_loss`."""
        switches = {"focusing": self.loss_focusing, "weighting": self.loss_weighting}
        if self.cls_loss == "sigmoid":
            return SigmoidLoss()
        if self.cls_loss == "focal":
            return FocalLoss(self.loss_alpha, self.loss_gamma)
        if self.cls_loss == "qfl":
            return QualityFocalLoss(self.loss_gamma)
        if self.cls_loss == "efl":
            return EqualizedFocalLoss(self.num_classes, self.loss_alpha, self.loss_gamma, self.loss_scale, **switches)
        if self.cls_loss == "eqfl":
            return EqualizedQualityFocalLoss(self.num_classes, self.loss_gamma, self.loss_scale, **switches)
        if self.cls_loss == "eqlv2_focal":
            return EQLv2FocalLoss(self.num_classes, self.loss_alpha, self.loss_gamma)
        raise unknown("cls_loss", self.cls_loss, "sigmoid, focal, qfl, efl, eqfl, eqlv2_focal")

    def get_criterion(self) -> BaseCriterion:
        """Assignment and losses as one object."""
        if self.l1 not in ("tail", "always", "never"):
            raise unknown("l1", self.l1, "tail, always, never")
        use_l1 = self.l1 == "always"
        if self.quality == "iou":
            return Criterion(self.get_assigner(), self.get_cls_loss(), self.get_coder(), use_l1)
        if self.quality == "obj":
            if self.cls_loss != "sigmoid" or len(self.anchor_scales) != 1:
                raise UserError(
                    "quality 'obj' is official YOLOX's head, with cls_loss 'sigmoid' and one anchor, not "
                    f"{self.cls_loss!r} and {len(self.anchor_scales)}; derive from StarExp for the other losses"
                )
            return YOLOXCriterion(self.get_assigner(), self.get_coder(), use_l1)
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
            clip=self.quality != "obj",
            names=names,
        )

    # ------------------------------------------------------------------------------------------- data on the device

    def get_recipe(self) -> AugmentRecipe:
        """The augmentation recipe with this experiment's values."""
        if self.recipe not in ("official", "released"):
            raise unknown("recipe", self.recipe, "official, released")
        released = self.recipe == "released"
        return self.fill_recipe(
            RELEASED_RECIPE if released else OFFICIAL_RECIPE,
            image_multiscale=(self.multiscale_range or None) if released else None,
        )

    def random_resize(self, iteration: int) -> tuple[int, int]:
        """Input size (height, width) of an iteration: drawn anew every ten, the same on every rank.

        The released recipe draws a size for each image instead, so its batches stay as they are collated.
        """
        low, high = self.size_range()
        if self.recipe == "released" or low == high:
            return self.input_size
        rng = np.random.default_rng([self.seed or 0, 1, iteration // 10])
        rows = int(rng.integers(low, high + 1))
        return rows * 32, 32 * int(rows * self.input_size[1] / self.input_size[0])

    def size_range(self) -> tuple[int, int]:
        """Smallest and largest training height in units of 32 pixels."""
        if self.random_size is not None:
            return self.random_size
        base = self.input_size[0] // 32
        return base - self.multiscale_range, base + self.multiscale_range

    def normalize(self, images: Tensor) -> Tensor:
        """uint8 [B, 3, H, W] BGR -> network input; YOLOX takes 0..255 as they are."""
        return images.float()

    def preprocess(self, images: Tensor, boxes: list[Tensor], size: tuple[int, int]) -> tuple[Tensor, list[Tensor]]:
        """Normalise a training batch and resize it to `size` (height, width), boxes with it."""
        images = self.normalize(images)
        if self.recipe == "released" or images.shape[2:] == torch.Size(size):
            return images, boxes
        factor = torch.tensor([size[1] / images.shape[3], size[0] / images.shape[2]] * 2, device=images.device)
        images = torch.nn.functional.interpolate(images, size=size, mode="bilinear", align_corners=False)
        return images, [b * factor for b in boxes]

    # ------------------------------------------------------------------------------------------- training

    def get_optimizer(self, batch_size: int, model: torch.nn.Module) -> torch.optim.Optimizer:
        """The optimiser named by `optimizer` over three or four groups, see `param_groups`."""
        groups = param_groups(model, self.weight_decay, self.cls_bias_decay)
        if self.optimizer == "sgd":
            return build_sgd(groups, self.basic_lr_per_img * batch_size, self.momentum)
        if self.optimizer == "adamw":
            return build_adamw(groups, self.basic_lr_per_img * batch_size)
        raise unknown("optimizer", self.optimizer, "sgd, adamw")

    def get_lr_scheduler(self, lr: float, iters_per_epoch: int) -> schedule.Schedule:
        """Learning rate as a function of the iteration."""
        total, tail = iters_per_epoch * self.max_epoch, iters_per_epoch * self.no_aug_epochs
        warmup = int(iters_per_epoch * self.warmup_epochs)
        if warmup + tail >= total and self.scheduler.startswith("yoloxwarmcos"):
            logger.warning(
                f"warmup_epochs {self.warmup_epochs} and no_aug_epochs {self.no_aug_epochs} leave nothing of max_epoch "
                f"{self.max_epoch}: the learning rate never reaches its plateau; set them lower for a short run"
            )
        if self.scheduler == "yoloxwarmcos":
            return lambda i: schedule.official_yolox(i, lr, total, warmup, tail, self.min_lr_ratio, self.warmup_lr)
        if self.scheduler == "yoloxwarmcos_released":
            return lambda i: schedule.released_yolox(i, lr, total, warmup, tail, self.min_lr_ratio)
        if self.scheduler in ("warmcos", "cos"):
            warmup = warmup if self.scheduler == "warmcos" else 0
            return lambda i: schedule.warm_cosine(i, lr, total, warmup, self.warmup_lr)
        if self.scheduler == "multistep":
            drops = [m * iters_per_epoch for m in self.milestones]
            return lambda i: schedule.step(i, lr, drops, warmup)
        raise unknown("scheduler", self.scheduler, "yoloxwarmcos, yoloxwarmcos_released, warmcos, cos, multistep")

    def get_trainer(self, options: TrainOptions) -> Trainer:
        """The training loop for this experiment."""
        from yolox_lt.train.trainer import Trainer

        return Trainer(self, options)

    def get_evaluator(self, batch_size: int, rank: int = 0, world: int = 1, pin_memory: bool = False) -> Evaluator:
        """Runs a model over the validation set and scores it."""
        from yolox_lt.evaluate.evaluator import Evaluator

        index = self.get_index("val")
        return Evaluator(
            index,
            self.get_eval_loader(batch_size, rank, world, pin_memory),
            self.get_predictor(index.category_names),
            self.normalize,
            index.groups(self.train_image_counts() if index.frequencies is None else None),
            self.max_detections,
        )

    def eval(self, model: torch.nn.Module, evaluator: Evaluator, device: torch.device, **options: Any) -> Report | None:
        """Score a model: a Report on rank 0, None on the others."""
        return evaluator.evaluate(model, device, **options)


class StarExp(Exp):
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


def unknown(attribute: str, value: str, choices: str) -> UserError:
    return UserError(f"{attribute} {value!r} is unknown; choose one of {choices}")
