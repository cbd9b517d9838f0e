"""Classification losses without a memory: sigmoid cross entropy, focal loss, quality focal loss.

Call: loss(logits [N, C], labels int64 [N], quality float [N] or None, normalizer) -> scalar, differentiable in the
    logits.
Labels are 0..C-1, -1 background, -2 ignored. The value is the sum over all entries of all rows that are not ignored,
divided by `normalizer` (a float or a scalar tensor). Finite for every finite logit.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from yolox_lt.losses.classification import ClassificationLoss
from yolox_lt.losses.dense import dense_pass
from yolox_lt.losses.kernel import DenseResult, FusedLoss, softplus


class DenseLoss(ClassificationLoss):
    """What all dense classification losses share: argument checks, float32 under autocast, the fused pass.

    A subclass says what happens at the positive entries (`positive_term`) and gives weight and exponent of the negative
    entries for C categories (`negative_factors`). Class weights multiply both and the gradient sums, whose ratio stays.
    """

    class_weights: Tensor | None

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("class_weights", None, persistent=False)  # a setting, no state

    def set_class_weights(self, weights: Tensor) -> None:
        self.class_weights = weights.double()

    def forward(
        self, logits: Tensor, labels: Tensor, quality: Tensor | None = None, normalizer: float | Tensor = 1.0
    ) -> Tensor:
        """Scalar loss; see the module's head for shapes.

        Raises:
            ValueError: shapes that do not fit or a label outside -2..C-1.
        """
        check_shapes(logits, labels, quality)
        with torch.autocast(logits.device.type, enabled=False), torch.no_grad():
            result = self.dense(logits.detach(), labels, quality, normalizer)
        self.update_balance(result, labels)
        return FusedLoss.apply(logits, result)

    def dense(self, logits: Tensor, labels: Tensor, quality: Tensor | None, normalizer: float | Tensor) -> DenseResult:
        """Value, gradient and gradient sums in one pass; arguments as `forward`."""
        weight, exponent = self.negative_factors(logits)
        scale = torch.as_tensor(normalizer, dtype=torch.float64).to(logits.device, non_blocking=True)
        if self.class_weights is not None:
            weight = weight * self.class_weights
        return dense_pass(logits, labels, quality, self.weighted_positive_term, exponent, weight, scale)

    def weighted_positive_term(self, x: Tensor, labels: Tensor, quality: Tensor | None) -> tuple[Tensor, Tensor]:
        """`positive_term` times the class weights."""
        loss, gradient = self.positive_term(x, labels, quality)
        if self.class_weights is None:
            return loss, gradient
        factor = self.class_weights[labels].to(x.dtype)
        return factor * loss, factor * gradient

    def positive_term(self, x: Tensor, labels: Tensor, quality: Tensor | None) -> tuple[Tensor, Tensor]:
        """Value and derivative at the positive entries: logits x, their labels and qualities, each [M] -> each [M]."""
        raise NotImplementedError

    def negative_factors(self, logits: Tensor) -> tuple[Tensor, Tensor | None]:
        """Weight float64 [C] and exponent [C] (None: 0) of p at the negative entries of `logits` [N, C]."""
        raise NotImplementedError

    def update_balance(self, result: DenseResult, labels: Tensor) -> None:
        """Hook for losses that remember gradients or labels, after every forward pass."""


def check_shapes(logits: Tensor, labels: Tensor, quality: Tensor | None) -> None:
    """Refuse arguments of a loss that do not fit together, see `DenseLoss.forward`."""
    if logits.ndim != 2 or labels.shape != logits.shape[:1]:
        raise ValueError(f"expected logits [N, C] and labels [N], got {tuple(logits.shape)} and {tuple(labels.shape)}")
    if quality is not None and quality.shape != labels.shape:
        raise ValueError(f"expected quality {tuple(labels.shape)}, got {tuple(quality.shape)}")
    # On a GPU this check would wait for the device; the data set has checked the labels already.
    if (
        labels.device.type == "cpu"
        and len(labels)
        and not -2 <= int(labels.min()) <= int(labels.max()) < logits.shape[1]
    ):
        raise ValueError(f"labels must be in -2..{logits.shape[1] - 1}, got {int(labels.min())}..{int(labels.max())}")


def focal_positive(x: Tensor, gamma: Tensor | float) -> tuple[Tensor, Tensor]:
    """(1-p)^gamma (-ln p) and its derivative (1-p)^gamma (gamma p ln p - (1-p)); x [M]."""
    log_p, log_q = F.logsigmoid(x), F.logsigmoid(-x)  # ln p, ln (1 - p)
    modulation = torch.exp(gamma * log_q)
    return -modulation * log_p, modulation * (gamma * log_p.exp() * log_p - log_q.exp())


def quality_positive(x: Tensor, quality: Tensor, gamma: Tensor | float) -> tuple[Tensor, Tensor]:
    """|q-p|^gamma BCE(x, q) and its derivative, the modulation not detached; x and q [M]."""
    p = torch.sigmoid(x)
    bce = softplus(x) - quality * x
    distance = p - quality
    power = distance.abs().pow(gamma - 1)
    gradient = power * (distance.abs() * distance + gamma * distance.sign() * p * torch.sigmoid(-x) * bce)
    return power * distance.abs() * bce, gradient


def hard_or_soft(x: Tensor, quality: Tensor | None) -> Tensor:
    """The soft target of the positives: the quality, or 1 where none is given."""
    return torch.ones_like(x) if quality is None else quality


class SigmoidLoss(DenseLoss):
    """Binary cross entropy of every category; a positive's own category may have a soft target (`quality`)."""

    def positive_term(self, x: Tensor, labels: Tensor, quality: Tensor | None) -> tuple[Tensor, Tensor]:
        target = hard_or_soft(x, quality)
        return softplus(x) - target * x, torch.sigmoid(x) - target

    def negative_factors(self, logits: Tensor) -> tuple[Tensor, Tensor | None]:
        return torch.ones(logits.shape[1], dtype=torch.float64, device=logits.device), None


class FocalLoss(DenseLoss):
    """-alpha_t (1 - p_t)^gamma ln p_t (Focal Loss for Dense Object Detection, Eq. 5).

    `quality` is not used: targets are hard.

    Args:
        alpha: weight of positive entries, negatives have 1 - alpha; a negative value switches both off.
        gamma: focusing exponent.
    """

    def __init__(self, alpha: float = 0.25, gamma: float = 2.0) -> None:
        super().__init__()
        self.alpha = alpha
        self.gamma = gamma

    def positive_term(self, x: Tensor, labels: Tensor, quality: Tensor | None) -> tuple[Tensor, Tensor]:
        loss, gradient = focal_positive(x, self.gamma)
        weight, _ = alpha_weights(self.alpha)
        return weight * loss, weight * gradient

    def negative_factors(self, logits: Tensor) -> tuple[Tensor, Tensor | None]:
        ones = torch.ones(logits.shape[1], dtype=torch.float64, device=logits.device)
        return alpha_weights(self.alpha)[1] * ones, (self.gamma * ones).to(compute_dtype(logits))


class QualityFocalLoss(DenseLoss):
    """|q - p|^gamma BCE(p, q) with q the quality at a positive's own category and 0 elsewhere.

    Generalized Focal Loss, Eq. 3 (there beta instead of gamma). Without `quality` positives have q = 1.
    """

    def __init__(self, gamma: float = 2.0) -> None:
        super().__init__()
        self.gamma = gamma

    def positive_term(self, x: Tensor, labels: Tensor, quality: Tensor | None) -> tuple[Tensor, Tensor]:
        return quality_positive(x, hard_or_soft(x, quality), self.gamma)

    def negative_factors(self, logits: Tensor) -> tuple[Tensor, Tensor | None]:
        ones = torch.ones(logits.shape[1], dtype=torch.float64, device=logits.device)
        return ones, (self.gamma * ones).to(compute_dtype(logits))


def alpha_weights(alpha: float) -> tuple[float, float]:
    """Weights of positive and negative entries; a negative alpha means no weighting, as in the released models."""
    return (alpha, 1 - alpha) if alpha >= 0 else (1.0, 1.0)


def compute_dtype(logits: Tensor) -> torch.dtype:
    """Type in which a loss is computed: float32 for half precision, else the logits' own."""
    return torch.float64 if logits.dtype == torch.float64 else torch.float32
