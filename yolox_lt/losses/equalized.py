"""Equalized Focal Loss and its quality version: a focusing and a weighting factor for every category.

Equalized Focal Loss for Dense Long-Tailed Object Detection, Eq. 3 to 5. With g_c the category's gradient ratio,
gamma_c = gamma + scale (1 - g_c) and w_c = gamma_c / gamma, both constants for autograd. g starts at 1, so the first
iteration is a plain (quality) focal loss; what an iteration adds to g takes effect in the next one.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from yolox_lt.losses.balance import GradientBalance
from yolox_lt.losses.focal import (
    DenseLoss,
    alpha_weights,
    compute_dtype,
    focal_positive,
    hard_or_soft,
    quality_positive,
)
from yolox_lt.losses.kernel import DenseResult, softplus
from yolox_lt.losses.ratios import RULES, count_samples, gradient_ratio

FOCUS = ("both", "negatives")


class EqualizedLoss(DenseLoss):
    """The factors that EFL and EQFL share.

    Args:
        num_classes: C.
        gamma: base exponent gamma_b.
        scale: s, how far a category with ratio 0 is lifted above gamma.
        focusing: use gamma_c as exponent (off: gamma), the "focusing factor" of the paper's Table 3.
        weighting: use w_c as weight (off: 1), the "weighting factor" of the paper's Table 3.
        ratio: what g is, a key of `ratios.RULES`: "gradients" as in the paper, "relative" or "samples", ours.
        horizon: optimiser steps after which the sums of g have forgotten a step to 1/e; 0: never, as in the paper.

    Raises:
        ValueError: another `ratio`.
    """

    def __init__(
        self,
        num_classes: int,
        gamma: float,
        scale: float,
        focusing: bool,
        weighting: bool,
        ratio: str,
        horizon: int,
    ) -> None:
        super().__init__()
        if ratio not in RULES:
            raise ValueError(f"ratio must be one of {', '.join(RULES)}, not {ratio!r}")
        self.gamma = gamma
        self.scale = scale
        self.focusing = focusing
        self.weighting = weighting
        # Counts beside the gradient sums, which the history keeps whatever g is made of.
        counts = ratio == "samples"
        rule = gradient_ratio if counts else RULES[ratio]
        self.balance = GradientBalance(num_classes, rule=rule, horizon=horizon)
        self.samples = GradientBalance(num_classes, rule=RULES[ratio], horizon=horizon) if counts else None

    @property
    def ratio(self) -> Tensor:
        """g of every category, float32 [C]."""
        return (self.balance if self.samples is None else self.samples).ratio

    def category_factors(self, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
        """(exponent, weight) of every category for the next forward, each [C]."""
        lifted = self.gamma + self.scale * (1 - self.ratio.to(dtype))
        plain = torch.full_like(lifted, self.gamma)
        return (lifted if self.focusing else plain), (lifted if self.weighting else plain) / self.gamma

    def category_state(self) -> dict[str, Tensor]:
        """Gradient sums, g, exponent and weight, each [C]."""
        return self.balance.columns(*self.category_factors()) | {"ratio": self.ratio}

    def update_balance(self, result: DenseResult, labels: Tensor) -> None:
        """Take the gradient sums of a pass, and its numbers of positives and negatives, in training."""
        if self.training:
            self.balance.accumulate(result.pos_grad, result.neg_grad)
            if self.samples is not None:
                self.samples.accumulate(*count_samples(labels, len(self.ratio)))


class EqualizedFocalLoss(EqualizedLoss):
    """EFL: alpha_t w_c (1 - p_t)^gamma_c (-ln p_t), paper Eq. 4; with scale 0 it is the focal loss.

    The statistic includes alpha_t as in the released models, so its ratio is a third of the paper's Eq. 6 at alpha
    0.25; `alpha_in_statistic` False gives Eq. 6. A negative alpha switches alpha_t off. `quality` is not used: targets
    are hard. `scale` is 8 in the released ResNet models and 4 in the YOLOX ones.

    Raises:
        ValueError: a statistic without alpha_t at alpha 0 or 1, where one half of the gradients is lost.
    """

    def __init__(
        self,
        num_classes: int,
        alpha: float = 0.25,
        gamma: float = 2.0,
        scale: float = 8.0,
        focusing: bool = True,
        weighting: bool = True,
        alpha_in_statistic: bool = True,
        ratio: str = "gradients",
        horizon: int = 0,
    ) -> None:
        super().__init__(num_classes, gamma, scale, focusing, weighting, ratio, horizon)
        if not alpha_in_statistic and alpha in (0, 1):
            raise ValueError(f"alpha {alpha} leaves no statistic without alpha; give one between 0 and 1")
        self.alpha = alpha
        self.alpha_in_statistic = alpha_in_statistic

    def update_balance(self, result: DenseResult, labels: Tensor) -> None:
        if not self.alpha_in_statistic:
            positive, negative = alpha_weights(self.alpha)
            result = replace(result, pos_grad=result.pos_grad / positive, neg_grad=result.neg_grad / negative)
        super().update_balance(result, labels)

    def positive_term(self, x: Tensor, labels: Tensor, quality: Tensor | None) -> tuple[Tensor, Tensor]:
        exponent, weight = self.category_factors(x.dtype)
        loss, gradient = focal_positive(x, exponent[labels])
        scale = weight[labels] * alpha_weights(self.alpha)[0]
        return scale * loss, scale * gradient

    def negative_factors(self, logits: Tensor) -> tuple[Tensor, Tensor | None]:
        exponent, weight = self.category_factors(compute_dtype(logits))
        return weight.double() * alpha_weights(self.alpha)[1], exponent


class EqualizedQualityFocalLoss(EqualizedLoss):
    """EQFL: w_c |q - p|^gamma_c BCE(p, q), paper Eq. 5 in its appendix; with scale 0 it is the quality focal loss.

    There is no alpha. Positives and negatives of the statistic are told apart by the label, not by q.

    Args:
        focus: where gamma_c is the exponent. "both": at positive and negative entries, as in the paper. "negatives":
            positives keep gamma, our variant: with gamma_c 6 a positive's gradient nearly vanishes 0.4 below its q.

    Raises:
        ValueError: another `focus`.
    """

    def __init__(
        self,
        num_classes: int,
        gamma: float = 2.0,
        scale: float = 4.0,
        focusing: bool = True,
        weighting: bool = True,
        focus: str = "both",
        ratio: str = "gradients",
        horizon: int = 0,
    ) -> None:
        super().__init__(num_classes, gamma, scale, focusing, weighting, ratio, horizon)
        if focus not in FOCUS:
            raise ValueError(f"focus must be one of {', '.join(FOCUS)}, not {focus!r}")
        self.focus = focus

    def positive_term(self, x: Tensor, labels: Tensor, quality: Tensor | None) -> tuple[Tensor, Tensor]:
        exponent, weight = self.category_factors(x.dtype)
        power = exponent[labels] if self.focus == "both" else self.gamma
        loss, gradient = quality_positive(x, hard_or_soft(x, quality), power)
        return weight[labels] * loss, weight[labels] * gradient

    def negative_factors(self, logits: Tensor) -> tuple[Tensor, Tensor | None]:
        exponent, weight = self.category_factors(compute_dtype(logits))
        return weight.double(), exponent


class EqualizedVarifocalLoss(EqualizedLoss):
    """Varifocal loss with EFL's factors: positives w_c q BCE(p, q), negatives alpha w_c p^gamma_c BCE(p, 0).

    Our combination; with scale 0 it is the varifocal loss (VarifocalNet, Eq. 2). A positive of quality 0 stays one.

    Args:
        alpha: weight of negative entries.
        weigh_by_quality: False: positives without the factor q.
    """

    def __init__(
        self,
        num_classes: int,
        alpha: float = 0.75,
        gamma: float = 2.0,
        scale: float = 4.0,
        weigh_by_quality: bool = True,
        focusing: bool = True,
        weighting: bool = True,
        ratio: str = "gradients",
        horizon: int = 0,
    ) -> None:
        super().__init__(num_classes, gamma, scale, focusing, weighting, ratio, horizon)
        self.alpha = alpha
        self.weigh_by_quality = weigh_by_quality

    def positive_term(self, x: Tensor, labels: Tensor, quality: Tensor | None) -> tuple[Tensor, Tensor]:
        _, weight = self.category_factors(x.dtype)
        target = hard_or_soft(x, quality)
        factor = weight[labels] * target if self.weigh_by_quality else weight[labels]
        return factor * (softplus(x) - target * x), factor * (torch.sigmoid(x) - target)

    def negative_factors(self, logits: Tensor) -> tuple[Tensor, Tensor | None]:
        exponent, weight = self.category_factors(compute_dtype(logits))
        return self.alpha * weight.double(), exponent
