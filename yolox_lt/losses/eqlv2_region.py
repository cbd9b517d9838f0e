"""Equalization Loss v2: weights from the ratio of each category's positive to negative gradients.

Tan et al., Equalization Loss v2: A New Gradient Balance Approach for Long-tailed Object Detection (arXiv 2012.08548),
Eq. 5 to 7.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from yolox_lt.losses.balance import GradientBalance
from yolox_lt.losses.ratios import unclamped_ratio
from yolox_lt.losses.region import RegionLoss, background_last, divisor, one_hot


class EQLv2Loss(RegionLoss):
    """1/N sum w BCE over C sigmoid outputs and a background output whose target is 1 on background regions.

    m(g) = 1 / (1 + exp(-gamma (g - mu))); w = m(g_c) at negatives and 1 + alpha (1 - m(g_c)) at positives of a
    category; 1 in the background's column. g is the ratio of the sums of |dL/dx| after weighting, not divided by N, of
    the steps before; 100 at the start, not clamped. The sums are added up over the ranks.

    Args:
        num_classes: C.
        alpha, gamma, mu: see above.
    """

    def __init__(self, num_classes: int, alpha: float = 4.0, gamma: float = 12.0, mu: float = 0.8) -> None:
        super().__init__(num_classes)
        self.num_outputs = num_classes + 1
        self.alpha = alpha
        self.gamma = gamma
        self.mu = mu
        self.balance = GradientBalance(num_classes, initial_ratio=100.0, rule=unclamped_ratio)

    def weights(self) -> tuple[Tensor, Tensor]:
        """(positive, negative) weight of every column for the next forward, each [C + 1]."""
        m = torch.sigmoid(self.gamma * (self.balance.ratio - self.mu))
        return F.pad(1 + self.alpha * (1 - m), (0, 1), value=1.0), F.pad(m, (0, 1), value=1.0)

    def forward(self, logits: Tensor, labels: Tensor, normalizer: float | Tensor | None = None) -> Tensor:
        """Scalar loss of logits [N, C + 1] and labels [N]; in training the statistic takes part of it."""
        x = self.prepare(logits, labels)
        with torch.autocast(x.device.type, enabled=False):
            target = one_hot(background_last(labels, self.num_classes), self.num_outputs, x.dtype)
            positive, negative = (weight.to(x.dtype) for weight in self.weights())
            weight = torch.where(target > 0, positive, negative)  # [N, C + 1]
            loss = F.binary_cross_entropy_with_logits(x, target, weight, reduction="sum")
            if self.training:
                gradient = (weight * (x.detach().sigmoid() - target).abs())[:, : self.num_classes]
                own = target[:, : self.num_classes]
                self.balance.accumulate((gradient * own).sum(dim=0), (gradient * (1 - own)).sum(dim=0))
            return loss / divisor(labels, normalizer)

    def category_state(self) -> dict[str, Tensor]:
        """Gradient sums, g, and the weight of negatives, each [C]; there is no focusing, its exponent is 0."""
        weight = self.weights()[1][: self.num_classes]
        return self.balance.columns(torch.zeros_like(weight), weight)

    def scores(self, logits: Tensor) -> Tensor:
        """p_c (1 - p_background), and p_background."""
        p = logits.sigmoid()
        background = p[:, -1:]
        return torch.cat([p[:, :-1] * (1 - background), background], dim=1)
