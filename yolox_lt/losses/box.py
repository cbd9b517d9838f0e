"""Localisation and quality losses. Pure functions of matched rows; normalisers belong to the criterion."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from yolox_lt import boxes as box_ops


def giou_loss(predicted: Tensor, target: Tensor) -> Tensor:
    """1 - GIoU in [0, 2] of decoded boxes [M, 4] -> [M]; union inside IoU floored at one square pixel."""
    return 1 - box_ops.giou(predicted, target)


def square_iou_loss(predicted: Tensor, target: Tensor) -> Tensor:
    """1 - IoU^2 in [0, 1] of boxes [M, 4] -> [M], the localisation loss of official YOLOX (union + 1e-16)."""
    return 1 - box_ops.iou(predicted, target, min_union=1e-16) ** 2


def bce_with_logits(logits: Tensor, target: Tensor) -> Tensor:
    """Binary cross entropy with soft targets in [0, 1], element by element; entries with target -1 give 0.

    Computed in float32 under any autocast.
    """
    logits = logits.float() if logits.itemsize < 4 else logits
    loss = F.binary_cross_entropy_with_logits(logits, target.clamp(min=0).to(logits), reduction="none")
    return loss * (target >= 0)
