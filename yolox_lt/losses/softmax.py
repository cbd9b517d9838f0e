"""Softmax cross entropy over the categories and the background: Faster R-CNN's own loss."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from yolox_lt.losses.region import RegionLoss, background_last, divisor


class SoftmaxLoss(RegionLoss):
    """-ln softmax(x)_y over C + 1 columns, summed over the regions and divided by N.

    Args:
        num_classes: C.
    """

    def __init__(self, num_classes: int) -> None:
        super().__init__(num_classes)
        self.num_outputs = num_classes + 1

    def forward(self, logits: Tensor, labels: Tensor, normalizer: float | Tensor | None = None) -> Tensor:
        """Scalar loss of logits [N, C + 1] and labels [N]."""
        x = self.prepare(logits, labels)
        with torch.autocast(x.device.type, enabled=False):
            loss = F.cross_entropy(x, background_last(labels, self.num_classes), reduction="sum")
        return loss / divisor(labels, normalizer)

    def scores(self, logits: Tensor) -> Tensor:
        return logits.softmax(dim=1)
