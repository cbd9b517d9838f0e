"""What every detector's experiment shares: run, classification loss, optimiser, schedule, evaluation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from loguru import logger
from torch import Tensor

from yolox_lt.assign import BaseAssigner
from yolox_lt.coders import Coder
from yolox_lt.criterion import TrainingCriterion
from yolox_lt.errors import UserError
from yolox_lt.exp.agreement import match_categories
from yolox_lt.exp.loss import named_loss
from yolox_lt.exp.wishes import WishesExp
from yolox_lt.losses import ClassificationLoss, own_scores
from yolox_lt.models import Detector
from yolox_lt.models.preprocess import FunctionPreprocessor, Preprocessor
from yolox_lt.optim import schedule
from yolox_lt.optim.groups import build_adamw, build_sgd, one_group, param_groups
from yolox_lt.predict import Predictor

if TYPE_CHECKING:
    from yolox_lt.evaluate.evaluator import Evaluator
    from yolox_lt.evaluate.metrics import Report
    from yolox_lt.train.engine import Trainer
    from yolox_lt.train.options import TrainOptions


class DetectorExp(WishesExp):
    """Settings common to all detectors; `Exp` (YOLOX) and `ResNetExp` add network, boxes and images."""

    positive_fields = frozenset(
        {"num_classes", "batch_size", "print_interval", "eval_interval", "keep_checkpoints", "max_epoch", "max_iter"}
        | {
            "accumulate",
            "epoch_iters",
            "atss_cells",
            "max_detections",
            "pre_nms",
            "checkpoint_interval",
            "nonfinite_limit",
            "patience",
        }
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
    # iterations between two writings of latest.pth inside an epoch; None = at the ends of epochs alone
    checkpoint_interval: int | None = None
    # continue from the folder's latest.pth when there is one, as with --resume
    auto_resume: bool = False
    # checkpoint whose weights a new run starts from when -c is not given
    start_from: str | None = None
    # on these signals finish the step, save and end with status 75
    stop_signals: tuple[str, ...] = ("SIGTERM", "SIGINT", "SIGUSR1")
    # a loss that is not finite: stop, skip the step, or auto (skip with --fp16, else stop) ...
    nonfinite: str = "auto"
    # ... but stop after so many steps in a row
    nonfinite_limit: int = 10
    # algorithms on the GPU that give the same result every time, or an error where there is none
    deterministic: bool = False
    # float32 products on a GPU in TF32 (mantissas of 10 bits), the classifier's as those of convolutions
    tf32: bool = True
    # torch.compile for the network in training: minutes at the start, and needs a C++ compiler on a CPU
    compile: bool = False
    # keep an epoch_N.pth for each evaluation ...
    save_history_ckpt: bool = True
    # ... but only the latest so many
    keep_checkpoints: int = 5

    # loggers beside the run's own files: wandb, mlflow (each to be installed)
    trackers: tuple[str, ...] = ()

    # --------------------------------------------------------------- model, assignment and loss
    # sides of a cell's anchors in strides
    anchor_scales: tuple[float, ...] = (1,)
    # score that classes start from
    prior_prob: float = 0.01
    # deviation of the start weights of prediction layers, so that scores start at the prior; None: as released from
    # scratch, FINE_TUNE_STD for new layers on trained features, which scatter the logits by far more
    fresh_std: float | None = None
    # label assigner, see get_assigner
    assigner: str = "atss"
    # candidate cells per level and object of ATSS; priors per level = cells x anchors (18 with two anchors)
    atss_cells: int = 9
    # sigmoid, focal, qfl, efl, eqfl, evfl (varifocal with EFL's factors) or eqlv2_focal
    cls_loss: str = "efl"
    loss_alpha: float = 0.25
    loss_gamma: float = 2.0
    # s of EFL and EQFL
    loss_scale: float = 4.0
    # the two halves of EFL and EQFL (paper, Table 3)
    loss_focusing: bool = True
    loss_weighting: bool = True
    # eqfl: both, or negatives: positives keep loss_gamma
    loss_focus: str = "both"
    # what g of EFL, EQFL and EVFL is: gradients, as in the paper; relative, that ratio over the head's; samples, the
    # logarithm of the head's share of positive priors over the category's
    loss_ratio: str = "gradients"
    # optimiser steps after which the sums of g have forgotten a step to 1/e; 0: never, as in the released models
    loss_horizon: int = 0
    # EFL's gradient sums include alpha_t, as released; False: as in the paper's Eq. 6
    loss_alpha_in_statistic: bool = True
    # factor on the classification loss
    cls_weight: float = 1.0
    # L1 on box deltas beside the IoU loss: tail (closing epochs only, official YOLOX), always (YOLOX*) or never
    l1: str = "never"

    # --------------------------------------------------------------- schedule
    # linear or quadratic rise to the full rate, by epochs or by iterations; the longer of the two counts
    warmup_epochs: float = 0
    warmup_iters: int = 0
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
    no_aug_epochs: int = 0
    # sgd or adamw
    optimizer: str = "sgd"
    momentum: float = 0.9
    nesterov: bool = True
    weight_decay: float = 5e-4
    # the same decay for every trainable tensor, norms and biases included (released ResNet models)
    decay_all: bool = False
    # decay of the classifier's bias where biases have none: 5e-4 in the released YOLOX models, 1e-4 in the paper
    cls_bias_decay: float | None = None
    ema: bool = True
    ema_decay: float = 0.9998
    # updates over which the average's decay rises to ema_decay, as official: far more than a short run has
    ema_ramp: float = 2000.0
    # largest total gradient norm, None = no clipping
    clip_norm: float | None = None
    # batches whose gradients are added up before a step; -b counts them all
    accumulate: int = 1

    # --------------------------------------------------------------- test
    # (height, width) of the network input; ResNet models: (shorter side, limit of the longer side)
    test_size: tuple[int, int] = (640, 640)
    test_conf: float = 0.01
    nmsthre: float = 0.65
    # (prior, category) pairs kept per level before NMS, None = as many as the level has priors
    pre_nms: int | None = None
    # a prior may be several categories at once (needed for LVIS's near synonyms); official YOLOX: only its best
    multi_label: bool = False
    max_detections: int = 300
    # Open Images: every detection counts for the ancestors of its category too (the challenge does not do that)
    expand_detections: bool = False

    # ------------------------------------------------------------------------------------------- model and loss

    def get_model(self) -> Detector:
        """A freshly initialised detector on the CPU."""
        raise NotImplementedError

    def load_pretrained(self, model: Detector) -> None:
        """Load what a new run starts from, called once before a run that has no checkpoint; nothing by default."""

    def layers_anew(self, content: dict[str, Any], path: str | Path, names: Sequence[str]) -> tuple[str, ...]:
        """Beginnings of the names of parameters that keep their start values in a run from a checkpoint's weights.

        Args:
            content: the checkpoint at `path`. names: of the run's categories.
        """
        return ()

    def get_coder(self) -> Coder:
        """From box predictions to boxes."""
        raise NotImplementedError

    def get_assigner(self) -> BaseAssigner:
        """The label assigner named by `assigner`."""
        raise NotImplementedError

    def get_cls_loss(self) -> ClassificationLoss:
        """The classification loss named by `cls_loss`."""
        return named_loss(self)

    def num_outputs(self) -> int:
        """Width of the classifier: the categories, unless the loss has another."""
        return self.get_cls_loss().num_outputs(self.num_classes)

    def class_scores(self) -> Callable[[Tensor], Tensor] | None:
        """The classifier's outputs [..., W] -> scores [..., C] by the loss's own rule; None: a sigmoid of each."""
        loss = self.get_cls_loss()
        return loss.scores if own_scores(loss) else None

    def get_criterion(self) -> TrainingCriterion:
        """Assignment and losses as one object."""
        raise NotImplementedError

    def get_predictor(self, names: tuple[str, ...] = ()) -> Predictor:
        """From predictions to detections with this experiment's thresholds."""
        raise NotImplementedError

    # ------------------------------------------------------------------------------------------- data on the device

    def has_fixed_size(self) -> bool:
        """Whether all training batches have one size on the device; cuDNN then looks for the fastest convolutions."""
        return False

    def random_resize(self, iteration: int) -> tuple[int, int] | None:
        """Size (height, width) to which the batch of an iteration is resized, None for as it comes."""
        return None

    def get_preprocessor(self) -> Preprocessor:
        """From a batch's pixels to the network's input."""
        raise NotImplementedError

    # ------------------------------------------------------------------------------------------- training

    def get_optimizer(self, batch_size: int, model: torch.nn.Module) -> torch.optim.Optimizer:
        """The optimiser named by `optimizer` over the groups of `param_groups`, or one group with `decay_all`."""
        groups = (
            one_group(model, self.weight_decay)
            if self.decay_all
            else param_groups(model, self.weight_decay, self.cls_bias_decay)
        )
        if self.optimizer == "sgd":
            return build_sgd(groups, self.basic_lr_per_img * batch_size, self.momentum, self.nesterov)
        if self.optimizer == "adamw":
            return build_adamw(groups, self.basic_lr_per_img * batch_size)
        raise unknown("optimizer", self.optimizer, "sgd, adamw")

    def get_lr_scheduler(self, lr: float, iters_per_epoch: int) -> schedule.Schedule:
        """Learning rate as a function of the iteration."""
        total, tail = iters_per_epoch * self.max_epoch, iters_per_epoch * self.no_aug_epochs
        warmup = max(int(iters_per_epoch * self.warmup_epochs), self.warmup_iters)
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

    def get_trainer(self, options: TrainOptions | None = None) -> Trainer:
        """The training loop for this experiment.

        Args:
            options: None: one process on a GPU if there is one, else on the CPU, batches of `batch_size` images.
        """
        from yolox_lt.distributed.processes import ProcessInfo, pick_device
        from yolox_lt.train.engine import Trainer
        from yolox_lt.train.options import TrainOptions

        return Trainer(self, options or TrainOptions(self.batch_size, ProcessInfo(0, 1, pick_device(None, 0))))

    def get_evaluator(
        self,
        batch_size: int,
        rank: int = 0,
        world: int = 1,
        pin_memory: bool = False,
        names: Sequence[str] | None = None,
    ) -> Evaluator:
        """Runs a model over the validation set and scores it.

        Args:
            names: of the model's categories in the order of its labels; None: those of the validation annotations.

        Raises:
            UserError: the validation annotations list a category that the model does not have.
        """
        from yolox_lt.evaluate.evaluator import Evaluator
        from yolox_lt.evaluate.quintiles import published_quintiles

        index = self.get_index("val")
        for note in index.notes if rank == 0 else ():
            logger.warning(f"{index.path}: {note}")
        labels = None
        if names is not None:
            labels = match_categories(
                names, index.category_names, index.path or "the validation annotations", "the model"
            )
        evaluator = Evaluator(
            index,
            self.get_eval_loader(batch_size, rank, world, pin_memory),
            self.get_predictor(tuple(names or index.category_names)),
            preprocessor_of(self),
            None,
            self.max_detections,
            self.expand_detections,
            self.train_box_counts() if index.open_images and published_quintiles(index) is None else None,
            labels,
        )
        counts = self.train_image_counts() if index.frequencies is None else None
        evaluator.groups = index.groups(None if counts is None else evaluator.in_order_of_index(counts))
        if labels is not None and rank == 0:
            missing = [name for name, label in zip(names or (), labels.tolist()) if label < 0]
            lacks = (
                f"; it lacks {', '.join(missing[:5])}{', ...' if len(missing) > 5 else ''}, not scored"
                if missing
                else ""
            )
            logger.warning(f"{index.path}: numbers its categories otherwise than the model; matched by name{lacks}")
        return evaluator

    def eval(self, model: torch.nn.Module, evaluator: Evaluator, device: torch.device, **options: Any) -> Report | None:
        """Score a model: a Report on rank 0, None on the others."""
        return evaluator.evaluate(model, device, **options)


def preprocessor_of(exp: DetectorExp) -> Preprocessor:
    """The experiment's preprocessor; a method `normalize(images, content_sizes)` of its own counts in its place."""
    own = getattr(exp, "normalize", None)
    return exp.get_preprocessor() if own is None else FunctionPreprocessor(own)


def unknown(attribute: str, value: object, choices: str) -> UserError:
    """The error for a setting that is none of the choices."""
    return UserError(f"{attribute} {value!r} is unknown; choose one of {choices}")
