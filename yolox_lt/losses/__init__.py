"""Classification losses with and without a memory, and the box losses."""

from .balance import GradientBalance
from .box import bce_with_logits, giou_loss, square_iou_loss
from .equalized import EqualizedFocalLoss, EqualizedQualityFocalLoss
from .focal import DenseLoss, FocalLoss, QualityFocalLoss, SigmoidLoss

__all__ = [
    "DenseLoss",
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
