"""EQLv2 & Focal: the focal loss under Equalization Loss v2's gradient-guided weights (EFL paper, Eq. 7).

Tan et al., Equalization Loss v2: A New Gradient Balance Approach for Long-tailed Object Detection, Eq. 5 to 7.
"""

from __future__ import annotations

import torch
from torch import Tensor

from yolox_lt.losses.balance import GradientBalance
from yolox_lt.losses.focal import DenseLoss, alpha_weights, compute_dtype, focal_positive
from yolox_lt.losses.kernel import DenseResult
from yolox_lt.losses.ratios import unclamped_ratio


class EQLv2FocalLoss(DenseLoss):
    """w alpha_t (1 - p_t)^gamma (-ln p_t), w = m(g) at negatives and 1 + lift (1 - m(g)) at positives of a category.

    m(g) = 1 / (1 + exp(-steepness (g - midpoint))), g the category's gradient ratio, 100 at the start and not clamped.
    The accumulated gradients are those after weighting. Our decision, as the paper releases no configuration: they
    include alpha_t, like EFL's statistic does.

    Args:
        num_classes: C.
        alpha, gamma: of the focal loss.
    """

    lift = 4.0
    """EQLv2's alpha."""
    steepness = 12.0
    """EQLv2's gamma."""
    midpoint = 0.8
    """EQLv2's mu."""

    def __init__(self, num_classes: int, alpha: float = 0.25, gamma: float = 2.0) -> None:
        super().__init__()
        self.alpha = alpha
        self.gamma = gamma
        self.balance = GradientBalance(num_classes, initial_ratio=100.0, rule=unclamped_ratio)

    def category_weights(self, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
        """(positive, negative) weight of every category for the next forward, each [C]."""
        m = torch.sigmoid(self.steepness * (self.balance.ratio.to(dtype) - self.midpoint))
        return 1 + self.lift * (1 - m), m

    def positive_term(self, x: Tensor, labels: Tensor, quality: Tensor | None) -> tuple[Tensor, Tensor]:
        loss, gradient = focal_positive(x, self.gamma)
        weight = self.category_weights(x.dtype)[0][labels] * alpha_weights(self.alpha)[0]
        return weight * loss, weight * gradient

    def negative_factors(self, logits: Tensor) -> tuple[Tensor, Tensor | None]:
        weight = self.category_weights(torch.float64)[1] * alpha_weights(self.alpha)[1]
        return weight, torch.full_like(weight, self.gamma, dtype=compute_dtype(logits))

    def category_state(self) -> dict[str, Tensor]:
        """Gradient sums, g, the focal loss's exponent and the weight of negatives, each [C]."""
        weight = self.category_weights()[1]
        return self.balance.columns(weight.new_full(weight.shape, self.gamma), weight)

    def update_balance(self, result: DenseResult, labels: Tensor) -> None:
        if self.training:
            self.balance.accumulate(result.pos_grad, result.neg_grad)
