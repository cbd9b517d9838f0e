"""Faster R-CNN with a feature pyramid, and the losses and second trainings for long tails that the paper compares with.

Numbers and choices follow the repositories of those works with the EFL paper's overrides: no mask branch, repeat-factor
sampling, 24 epochs. Where they differ docs/reproduce.md says what was taken.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from yolox_lt.assign import BalancedSampler, BaseAssigner, RoIAssigner, RPNAssigner
from yolox_lt.coders import Coder, DeltaCoder
from yolox_lt.criterion import TrainingCriterion
from yolox_lt.data.collate import Collate
from yolox_lt.errors import UserError
from yolox_lt.exp.detection import unknown
from yolox_lt.exp.resnet import ResNetBodyExp
from yolox_lt.losses import EQLLoss, EQLv2Loss, GroupSoftmaxLoss, RegionLoss, SeesawLoss, SoftmaxLoss
from yolox_lt.models import Detector
from yolox_lt.models.category_rows import CategoryRows
from yolox_lt.models.freezing import freeze
from yolox_lt.models.two_stage import build_two_stage
from yolox_lt.predict import RoIPredictor
from yolox_lt.region_criterion import TwoStageCriterion

SIGMOID_LOSSES = ("eql", "eqlv2")
"""Losses whose classifier starts at `prior_prob`."""

CLASSIFIER, BOXES = "head.cls_pred.", "head.box_pred."
"""Parameters with a row for each category."""


class TwoStageExp(ResNetBodyExp):
    """Faster R-CNN with softmax (paper, Tables 1, 2 and 7); `cls_loss` and `classifier_only` make the others of it."""

    family: ClassVar[str] = "two_stage"

    # --------------------------------------------------------------- model
    # width of the second stage's two shared layers
    head_width: int = 1024
    # one box a region instead of one for each category
    class_agnostic_boxes: bool = False
    # a classifier over directions, as in Seesaw's configurations
    normed_classifier: bool = False

    # --------------------------------------------------------------- loss
    # softmax, eql, eqlv2, seesaw or bags
    cls_loss = "softmax"
    # of both stages: IoU 0.7 and 0.3 for anchors, 0.5 for regions
    assigner = "max_iou"
    # EQL: categories below it get no negatives from other objects; LVIS v1 0.0011, v0.5 0.00177 ...
    eql_threshold: float = 0.0011
    # ... and what it counts: images (their share) or instances
    eql_frequency: str = "images"
    # EQLv2: alpha, gamma and mu
    eqlv2_weights: tuple[float, float, float] = (4.0, 12.0, 0.8)
    # Seesaw: p and q
    seesaw_exponents: tuple[float, float] = (0.8, 2.0)
    # BAGS: training instances at which a new group begins, and others for each region of a group's own
    group_bins: tuple[int, ...] = (10, 100, 1000)
    others_ratio: float = 8.0
    # what EQL and BAGS know of the training data, a number for each category; () = counted when a run begins, and kept
    # in its checkpoints
    category_counts: tuple[float, ...] = ()

    # --------------------------------------------------------------- second training (cRT, BAGS)
    # train the classifier alone, from new weights, on a finished run's other weights
    classifier_only: bool = False
    # experiment file, beside this one, whose finished run it starts from; tools/train.py trains that first if need be
    first_stage: str | None = None

    # --------------------------------------------------------------- schedule
    # 500 iterations, of which the last reaches the full rate only with the next one
    warmup_iters = 501

    # --------------------------------------------------------------- data and test
    sampler = "repeat_factor"
    test_conf = 0.0001

    # ------------------------------------------------------------------------------------------- model and loss

    def num_outputs(self) -> int:
        """Width of the classifier, by the loss; no data is read for it."""
        if type(self).get_cls_loss is not TwoStageExp.get_cls_loss:
            return self.get_cls_loss().num_outputs
        extra = {"softmax": 1, "eql": 0, "eqlv2": 1, "seesaw": 2, "bags": len(self.group_bins) + 3}
        if self.cls_loss not in extra:
            raise unknown("cls_loss", self.cls_loss, ", ".join(extra))
        return self.num_classes + extra[self.cls_loss]

    def get_model(self) -> Detector:
        """A freshly initialised detector on the CPU, without the backbone's pretrained weights."""
        model = build_two_stage(
            self.num_classes,
            self.num_outputs(),
            depth=self.resnet_depth,
            channels=self.fpn_channels,
            head_width=self.head_width,
            class_agnostic_boxes=self.class_agnostic_boxes,
            prior_prob=self.prior_prob if self.cls_loss in SIGMOID_LOSSES else None,
            normed=self.normed_classifier,
            trainable_layers=self.trainable_layers,
            freeze_bn=self.freeze_bn,
        )
        if self.classifier_only:
            freeze(model, [name for name, _ in model.named_parameters() if not name.startswith(CLASSIFIER)])
        return model

    def load_pretrained(self, model: Detector) -> None:
        """The backbone named by `backbone_weights`.

        Raises:
            UserError: a second training without a first.
        """
        if self.classifier_only:
            raise UserError(
                "classifier_only trains the classifier on the other weights of a finished run; give its latest.pth "
                "with start_from or -c"
            )
        super().load_pretrained(model)

    def get_coder(self) -> Coder:
        """The code of the second stage's boxes."""
        return DeltaCoder(min_log_ratio=-math.log(1000 / 16), stds=(0.1, 0.1, 0.2, 0.2))

    def get_assigner(self) -> BaseAssigner:
        """The RPN's.

        Raises:
            UserError: another `assigner`.
        """
        if self.assigner != "max_iou":
            raise unknown("assigner", self.assigner, "max_iou")
        return RPNAssigner()

    def get_cls_loss(self) -> RegionLoss:  # type: ignore[override]
        """The classification loss of the regions named by `cls_loss`."""
        if self.cls_loss == "softmax":
            return SoftmaxLoss(self.num_classes)
        if self.cls_loss == "eql":
            frequency = torch.tensor(self.counts_of_training(), dtype=torch.float64)
            return EQLLoss(self.num_classes, frequency, self.eql_threshold)
        if self.cls_loss == "eqlv2":
            return EQLv2Loss(self.num_classes, *self.eqlv2_weights)
        if self.cls_loss == "seesaw":
            return SeesawLoss(self.num_classes, *self.seesaw_exponents)
        if self.cls_loss == "bags":
            counts = torch.tensor(self.counts_of_training())
            return GroupSoftmaxLoss(self.num_classes, counts, self.group_bins, self.others_ratio)
        raise unknown("cls_loss", self.cls_loss, "softmax, eql, eqlv2, seesaw, bags")

    def counts_of_training(self) -> tuple[float, ...]:
        """`category_counts`, counted in the training annotations if they are not known yet.

        Raises:
            UserError: there are no such annotations, or another number of counts than categories.
        """
        if self.eql_frequency not in ("images", "instances"):
            raise unknown("eql_frequency", self.eql_frequency, "images, instances")
        if not self.category_counts:
            index = self.get_index("train")
            counts = np.bincount(np.asarray(index.labels)[index.usable], minlength=self.num_classes).tolist()
            if self.cls_loss == "eql" and self.eql_frequency == "images":
                annotated = np.count_nonzero(np.diff(index.box_offsets))
                counts = [count / max(int(annotated), 1) for count in index.image_counts.tolist()]
            self.category_counts = tuple(counts)
        if len(self.category_counts) != self.num_classes:
            raise UserError(
                f"category_counts has {len(self.category_counts)} numbers but num_classes is {self.num_classes}; leave "
                "category_counts empty, so that they are counted in the training annotations"
            )
        return self.category_counts

    def class_scores(self) -> Callable[[Tensor], Tensor]:
        """The classifier's outputs [N, W] -> scores [N, C] by the loss's rule, without the background."""
        if type(self).get_cls_loss is TwoStageExp.get_cls_loss and self.cls_loss == "eql":
            loss: RegionLoss = EQLLoss(self.num_classes, torch.zeros(self.num_classes))  # its scores need no counts
        else:
            loss = self.get_cls_loss()
        return partial(category_scores, loss)

    def get_criterion(self) -> TrainingCriterion:
        """Assignment, sampling and losses as one object."""
        return TwoStageCriterion(
            self.get_cls_loss(),
            self.get_coder(),
            self.get_assigner(),
            BalancedSampler(256, 0.5),
            RoIAssigner(),
            BalancedSampler(512, 0.25),
            self.cls_weight,
            self.seed or 0,
        )

    def get_predictor(self, names: tuple[str, ...] = ()) -> RoIPredictor:
        """From predictions to detections with this experiment's thresholds."""
        return RoIPredictor(
            self.get_coder(),
            nms_threshold=self.nmsthre,
            score_threshold=self.test_conf,
            pre_nms=None,
            max_detections=self.max_detections,
            clip="content",
            names=names,
            scores=self.class_scores(),
        )

    def category_rows(self, content: dict[str, Any]) -> dict[str, CategoryRows]:
        """As `WishesExp.category_rows`. The columns of BAGS' groups depend on all categories: their weights are new."""
        rows = {} if self.class_agnostic_boxes else {BOXES: CategoryRows(each=4)}
        if self.cls_loss != "bags" and type(self).get_cls_loss is TwoStageExp.get_cls_loss:
            rows[CLASSIFIER] = CategoryRows(extra=self.num_outputs() - self.num_classes)
        return rows

    def layers_anew(self, content: dict[str, Any], path: str | Path, names: Sequence[str]) -> tuple[str, ...]:
        """As `DetectorExp.layers_anew`: the classifier of another loss; with `classifier_only` always.

        Raises:
            UserError: the second training would start from something else than a softmax baseline of its structure.
        """
        settings, same = content["exp"], list(content.get("names", names)) == list(names)
        if not self.classifier_only:
            own = (self.cls_loss, self.normed_classifier)
            there = (settings.get("cls_loss"), settings.get("normed_classifier"))
            return () if own == there and (same or self.cls_loss != "bags") else (CLASSIFIER,)
        family, loss = content.get("family"), settings.get("cls_loss")
        if family != self.family or loss != "softmax" or settings.get("classifier_only"):
            what = f"cls_loss {loss!r}" + (" and classifier_only" if settings.get("classifier_only") else "")
            raise UserError(
                f"{path}: a {family} model with {what}; the second training of the classifier starts from a finished "
                "two_stage run with cls_loss 'softmax', give that one's latest.pth with start_from or -c"
            )
        for name in ("resnet_depth", "fpn_channels", "head_width", "class_agnostic_boxes"):
            if settings.get(name) != getattr(self, name):
                raise UserError(
                    f"{path}: has {name} {settings.get(name)!r}, this run {getattr(self, name)!r}, but the second "
                    f"training keeps all layers but the classifier; set {name} {settings.get(name)!r}"
                )
        if not same:
            raise UserError(
                f"{path}: has other categories than the training annotations, and the second training keeps the boxes "
                "of each; give a run of the same categories with start_from or -c"
            )
        return (CLASSIFIER,)

    # ------------------------------------------------------------------------------------------- images

    def get_collate(self) -> Collate:
        return Collate(multiple=32)


class ClassifierExp(TwoStageExp):
    """The second training of decoupled training (cRT, BAGS): 75,000 iterations, drops after 50,000 and 70,000.

    12 epochs of LVIS's 100,000 images by their number, as 15 "epochs" of 5,000 iterations. The sampler is to be set to
    class_balanced after the data's own: categories are then seen equally often.
    """

    classifier_only = True
    sampler = "class_balanced"
    epoch_length = "dataset"
    max_iter = 5_000
    max_epoch = 15
    milestones = (10, 14)
    eval_interval = 5


def category_scores(loss: RegionLoss, logits: Tensor) -> Tensor:
    """Scores [N, C] of outputs [N, W], the loss's background left out."""
    return loss.scores(logits)[:, :-1]
