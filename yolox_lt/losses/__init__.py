"""Classification losses with and without a memory, and the box losses."""

from yolox_lt.losses.balance import CategoryCounts, GradientBalance, StepState
from yolox_lt.losses.box import bce_with_logits, giou_loss, square_iou_loss
from yolox_lt.losses.classification import CategoryLoss, ClassificationLoss, own_scores
from yolox_lt.losses.eql import EQLLoss
from yolox_lt.losses.eqlv2 import EQLv2FocalLoss
from yolox_lt.losses.eqlv2_region import EQLv2Loss
from yolox_lt.losses.equalized import EqualizedFocalLoss, EqualizedQualityFocalLoss, EqualizedVarifocalLoss
from yolox_lt.losses.focal import DenseLoss, FocalLoss, QualityFocalLoss, SigmoidLoss
from yolox_lt.losses.group_softmax import GroupSoftmaxLoss
from yolox_lt.losses.region import RegionLoss
from yolox_lt.losses.seesaw import SeesawLoss
from yolox_lt.losses.softmax import SoftmaxLoss

__all__ = [
    "CategoryCounts",
    "CategoryLoss",
    "ClassificationLoss",
    "DenseLoss",
    "EQLLoss",
    "EQLv2FocalLoss",
    "EQLv2Loss",
    "EqualizedFocalLoss",
    "EqualizedQualityFocalLoss",
    "EqualizedVarifocalLoss",
    "FocalLoss",
    "GradientBalance",
    "GroupSoftmaxLoss",
    "QualityFocalLoss",
    "RegionLoss",
    "SeesawLoss",
    "SigmoidLoss",
    "SoftmaxLoss",
    "StepState",
    "bce_with_logits",
    "giou_loss",
    "own_scores",
    "square_iou_loss",
]
