"""Classification losses with and without a memory, and the box losses."""

from yolox_lt.losses.balance import GradientBalance
from yolox_lt.losses.box import bce_with_logits, giou_loss, square_iou_loss
from yolox_lt.losses.eqlv2 import EQLv2FocalLoss
from yolox_lt.losses.equalized import EqualizedFocalLoss, EqualizedQualityFocalLoss
from yolox_lt.losses.focal import DenseLoss, FocalLoss, QualityFocalLoss, SigmoidLoss

__all__ = [
    "DenseLoss",
    "EQLv2FocalLoss",
    "EqualizedFocalLoss",
    "EqualizedQualityFocalLoss",
    "FocalLoss",
    "GradientBalance",
    "QualityFocalLoss",
    "SigmoidLoss",
    "bce_with_logits",
    "giou_loss",
    "square_iou_loss",
]
