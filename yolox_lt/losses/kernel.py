"""One pass over the logits for every dense classification loss: value, gradient and gradient sums together.

All losses of this package agree on the entries that are not a prior's own category: with softplus sp = ln(1 + e^x) and
p = sigmoid(x) they are

    loss = w_c * p^f_c * sp            gradient = w_c * p^f_c * (p + f_c * (1 - p) * sp)

with a weight w_c and an exponent f_c per category (sigmoid loss: f = 0; focal: f = 2 and w = 1 - alpha; EFL and EQFL:
both from the balance). They differ only at the few positive entries, whose value and gradient the loss passes in as a
function. So one [N, C] gradient is all that is ever stored: no one-hot target, no expanded exponent, and the statistic
comes for free.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from yolox_lt.types import IGNORED

ROWS_PER_BLOCK_GPU = 32768  # bounds the temporaries to a few hundred MB whatever the batch
ROWS_PER_BLOCK = 256  # 256 rows x 1203 categories in float32 are 1.2 MB: the temporaries stay in a core's cache

PositiveTerm = Callable[[Tensor, Tensor, Tensor | None], tuple[Tensor, Tensor]]
"""(logit [M], label [M], quality [M] or None) -> (loss [M], gradient [M]) of the positive entries, before the
normaliser.
"""


@dataclass
class DenseResult:
    """Sums of one pass, all divided by the normaliser.

    loss: scalar. gradient: float [N, C]. pos_grad, neg_grad: [C] sums of absolute gradients.
    """

    loss: Tensor
    gradient: Tensor
    pos_grad: Tensor
    neg_grad: Tensor


def softplus(x: Tensor) -> Tensor:
    """ln(1 + e^x), exact to rounding for any finite x."""
    return -F.logsigmoid(-x)


def negative_term(x: Tensor, exponent: Tensor | None) -> tuple[Tensor, Tensor]:
    """Loss and gradient of entries with target 0 before the weight; [n, C] logits, exponent [C] or None for 0."""
    sp = softplus(x)
    log_p = x - sp
    p = log_p.exp()
    if exponent is None:
        return sp, p
    modulation = (log_p * exponent).exp_()  # p^f, safe where p underflows
    # f * (1 - p) * sp + p
    gradient = torch.addcmul(p, exponent * (1 - p), sp).mul_(modulation)
    return sp.mul_(modulation), gradient


def dense_pass(
    logits: Tensor,
    labels: Tensor,
    quality: Tensor | None,
    positive: PositiveTerm,
    exponent: Tensor | None,
    weight: Tensor,
    normalizer: Tensor,
) -> DenseResult:
    """Loss, gradient and gradient sums of [N, C] logits.

    Args:
        logits: float [N, C]; half precision is computed in float32.
        labels: int64 [N], 0..C-1, -1 background, -2 ignored.
        quality: float [N] soft target of each positive prior's own category, or None.
        positive: value and gradient at the positive entries.
        exponent: [C] exponent f of the negative entries, None for 0 everywhere.
        weight: [C] weight w of the negative entries.
        normalizer: scalar tensor that divides everything.
    """
    dtype = torch.float64 if logits.dtype == torch.float64 else torch.float32
    n, c = logits.shape
    gradient = torch.empty(n, c, dtype=dtype, device=logits.device)
    loss_sum = torch.zeros(c, dtype=torch.float64, device=logits.device)
    neg_sum = torch.zeros(c, dtype=torch.float64, device=logits.device)
    weight = (weight / normalizer).to(dtype)
    rows = (labels >= 0).nonzero().squeeze(1)
    ignored = (labels == IGNORED).nonzero().squeeze(1)
    block = ROWS_PER_BLOCK if logits.device.type == "cpu" else ROWS_PER_BLOCK_GPU
    for start in range(0, n, block):
        stop = min(start + block, n)
        loss, grad = negative_term(logits[start:stop].to(dtype), exponent)
        # Own categories and ignored rows leave the negative sums before they are added, not by subtraction afterwards:
        # a category whose every prior is positive must have a negative sum of exactly zero.
        here = rows[(rows >= start) & (rows < stop)]
        out = ignored[(ignored >= start) & (ignored < stop)]
        for term in (loss, grad):
            term[here - start, labels[here]] = 0
            term[out - start] = 0
        grad.mul_(weight)
        loss_sum += loss.sum(0)
        neg_sum += grad.sum(0)
        gradient[start:stop] = grad
    total = (loss_sum * weight).sum()
    pos_sum = torch.zeros_like(neg_sum)
    own = labels[rows]
    pos_loss, pos_grad = positive(
        logits[rows, own].to(dtype), own, None if quality is None else quality[rows].to(dtype)
    )
    pos_grad = pos_grad / normalizer.to(dtype)
    gradient[rows, own] = pos_grad
    pos_sum.index_add_(0, own, pos_grad.abs().double())
    total = total + (pos_loss / normalizer).double().sum()
    return DenseResult(total.to(dtype), gradient, pos_sum, neg_sum)


class FusedLoss(torch.autograd.Function):
    """Hands the loss of `dense_pass` to autograd together with the gradient that it already holds."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, result: DenseResult) -> Tensor:
        ctx.save_for_backward(result.gradient)
        ctx.dtype = logits.dtype
        return result.loss

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor, None]:
        (gradient,) = ctx.saved_tensors
        # Multiplied in float32 first: a scaled loss must lift small fp16 gradients before they are rounded.
        return (gradient * grad_output).to(ctx.dtype), None
