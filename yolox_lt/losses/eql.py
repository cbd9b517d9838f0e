"""Equalization Loss: rare categories are not pushed down by objects of other categories.

Tan et al., Equalization Loss for Long-Tailed Object Recognition (arXiv 2003.05176), Eq. 3 to 5.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from yolox_lt.losses.region import RegionLoss, divisor, one_hot


class EQLLoss(RegionLoss):
    """1/N sum_i sum_c (1 - E_i T_c (1 - y_ic)) BCE(x_ic, y_ic) over C sigmoid outputs.

    E_i = 1 for a foreground region; T_c = 1 where frequency < threshold (strictly). So a category of the tail keeps its
    positives and its negatives from the background, and loses those from other objects. There is no background output.

    Args:
        num_classes: C.
        frequency: [C] share of the images that have the category, or whatever `threshold` counts.
        threshold: lambda; 0.0011 for LVIS v1, 0.00177 for v0.5.
    """

    tail: Tensor

    def __init__(self, num_classes: int, frequency: Tensor, threshold: float = 0.0011) -> None:
        super().__init__(num_classes)
        self.num_outputs = num_classes
        values = torch.as_tensor(frequency, dtype=torch.float64)
        if values.shape != (num_classes,):
            raise ValueError(f"expected a frequency for each of {num_classes} categories, got {tuple(values.shape)}")
        # Of the data, not of the run: a resumed run computes it again.
        self.register_buffer("tail", values < threshold, persistent=False)

    def forward(self, logits: Tensor, labels: Tensor, normalizer: float | Tensor | None = None) -> Tensor:
        """Scalar loss of logits [N, C] and labels [N]."""
        x = self.prepare(logits, labels)
        with torch.autocast(x.device.type, enabled=False):
            target = one_hot(labels, self.num_classes, x.dtype)
            spared = (labels >= 0)[:, None] & self.tail & (target == 0)  # [N, C]
            loss = F.binary_cross_entropy_with_logits(x, target, reduction="none").masked_fill(spared, 0.0)
            return loss.sum() / divisor(labels, normalizer)

    def scores(self, logits: Tensor) -> Tensor:
        """Sigmoids, which are not to be compared with a background: its column is 0."""
        return F.pad(logits.sigmoid(), (0, 1))
