"""Score voting: boxes refined by their neighbours (Kim and Lee, Probabilistic Anchor Assignment, section 3.3)."""

from __future__ import annotations

import torch
from torch import Tensor

from yolox_lt import boxes as box_ops

SIGMA = 0.025
"""Width of the weight exp(-(1 - IoU)^2 / SIGMA), the paper's."""


def vote(
    kept: Tensor, kept_labels: Tensor, boxes: Tensor, scores: Tensor, labels: Tensor, legacy: bool = False
) -> Tensor:
    """Each kept box as the mean of the candidates of its category that overlap it, weighted by score and closeness.

    kept: float32 [K, 4], kept_labels: int64 [K]; the candidates before NMS: boxes [N, 4], scores [N], labels [N].
    The weight of a candidate is score * exp(-(1 - IoU)^2 / SIGMA), 0 without overlap. Returns [K, 4].
    """
    voted = torch.empty_like(kept)
    for label in kept_labels.unique().tolist():
        ours, theirs = kept_labels == label, labels == label
        overlap = box_ops.pairwise_iou(kept[ours], boxes[theirs], legacy)  # [k, n]
        weight = torch.exp(-((1 - overlap) ** 2) / SIGMA) * scores[theirs] * (overlap > 0)
        voted[ours] = weight @ boxes[theirs] / weight.sum(dim=1, keepdim=True).clamp(min=1e-12)
    return voted
