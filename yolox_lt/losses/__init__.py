"""Classification losses with and without a memory, and the box losses."""

from yolox_lt.losses.balance import GradientBalance, StepState
from yolox_lt.losses.box import bce_with_logits, giou_loss, square_iou_loss
from yolox_lt.losses.classification import ClassificationLoss, own_scores
from yolox_lt.losses.eqlv2 import EQLv2FocalLoss
from yolox_lt.losses.equalized import EqualizedFocalLoss, EqualizedQualityFocalLoss
from yolox_lt.losses.focal import DenseLoss, FocalLoss, QualityFocalLoss, SigmoidLoss

__all__ = [
    "ClassificationLoss",
    "DenseLoss",
    "EQLv2FocalLoss",
    "EqualizedFocalLoss",
    "EqualizedQualityFocalLoss",
    "FocalLoss",
    "GradientBalance",
    "QualityFocalLoss",
    "SigmoidLoss",
    "StepState",
    "bce_with_logits",
    "giou_loss",
    "own_scores",
    "square_iou_loss",
]
