"""One pass over the logits for every dense classification loss: value, gradient and gradient sums together.

All losses of this package agree on the entries that are not a prior's own category: with softplus sp = ln(1 + e^x) and
p = sigmoid(x) they are

    loss = w_c * p^f_c * sp            gradient = w_c * p^f_c * (p + f_c * (1 - p) * sp)

with a weight w_c and an exponent f_c per category (sigmoid loss: f = 0; focal: f = 2 and w = 1 - alpha; EFL and EQFL:
both from the balance). They differ only at the few positive entries, whose value and gradient the loss passes in as a
function. So one [N, C] gradient is all that is ever stored: no one-hot target, no expanded exponent, and the statistic
comes for free.

The pass goes through the rows in blocks whose scratch space stays in the cache and is allocated once: on a CPU
fresh memory costs more than arithmetic. That is why `negative_term` writes into given buffers.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from yolox_lt.types import IGNORED

ENTRIES_PER_BLOCK_GPU = 2**25
"""Entries treated at once on a GPU: bounds the scratch space to half a GiB whatever the batch."""
ENTRIES_PER_BLOCK = 2**18
"""The same for each CPU thread: four buffers of a MiB stay in the last cache, and calls are cheap beside their work."""
NUM_BUFFERS = 4
LOG2_E = math.log2(math.e)
LINEAR_FROM = 40
"""From here on ln(1 + e^x) is x and the sigmoid 1, in float64 too; e^x does not overflow."""

PositiveTerm = Callable[[Tensor, Tensor, Tensor | None], tuple[Tensor, Tensor]]
"""(logit [M], label [M], quality [M] or None) -> (loss [M], gradient [M]) of the positive entries, before the
normaliser.
"""


@dataclass
class DenseResult:
    """Sums of one pass, all divided by the normaliser.

    loss: scalar. gradient: float [N, C], pos_grad, neg_grad: [C] sums of absolute gradients.
    scale: multiplies the gradient by a scalar tensor in its own memory; None: torch's product makes a new matrix.
    """

    loss: Tensor
    gradient: Tensor
    pos_grad: Tensor
    neg_grad: Tensor
    scale: Callable[[Tensor, Tensor], Tensor] | None = None


def softplus(x: Tensor) -> Tensor:
    """ln(1 + e^x), exact to rounding for any finite x."""
    return F.softplus(x, threshold=LINEAR_FROM)


def negative_term(x: Tensor, exponent: Tensor | None, log2_weight: Tensor, buffers: Tensor) -> tuple[Tensor, ...]:
    """Three matrices [n, C] in `buffers` from which the terms of entries with target 0 are products.

    Their loss is softplus * factor, their gradient slope * factor.

    Args:
        x: [n, C] logits, contiguous.
        exponent: f [C], or None for 0.
        log2_weight: log2 w [C].
        buffers: [NUM_BUFFERS, n, C], overwritten.

    Returns:
        softplus: ln(1 + e^x). slope: p + f (1 - p) softplus. factor: w p^f.
    """
    loss, p, factor, slope = buffers
    # Softplus and sigmoid from one exponential: torch's own two take half as long again.
    torch.clamp(x, max=LINEAR_FROM, out=p).exp_()  # e^x
    torch.log1p(p, out=loss)
    torch.maximum(loss, x, out=loss)
    p.div_(torch.add(p, 1, out=factor))
    if exponent is None:
        return loss, p, torch.exp2(log2_weight.expand_as(x), out=factor)
    torch.mul(loss, exponent, out=slope)
    torch.lerp(slope, slope.new_ones(()), p, out=slope)
    torch.sub(x, loss, out=factor)  # ln p, safe where p underflows
    # w p^f by powers of two, which torch computes in half the time of e's.
    torch.addcmul(log2_weight, factor, exponent * LOG2_E, out=factor).exp2_()
    return loss, slope, factor


def block_pass(
    logits: Tensor,
    labels: Tensor,
    quality: Tensor | None,
    positive: PositiveTerm,
    exponent: Tensor | None,
    weight: Tensor,
    normalizer: Tensor,
) -> DenseResult:
    """Loss, gradient and gradient sums by torch's operations, block after block of rows, on any device.

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
    total = torch.zeros((), dtype=torch.float64, device=logits.device)
    neg_sum = torch.zeros(c, dtype=torch.float64, device=logits.device)
    log2_weight = torch.log2(weight / normalizer).to(dtype)
    rows = (labels >= 0).nonzero().squeeze(1)
    ignored = (labels == IGNORED).nonzero().squeeze(1)
    block = rows_per_block(n, c, logits.device)
    buffers, ones = gradient.new_empty(NUM_BUFFERS, block, c), gradient.new_ones(block)
    starts = range(0, n, block)
    for start, here, out in zip(starts, split_rows(rows, starts), split_rows(ignored, starts)):
        stop = min(start + block, n)
        x = logits[start:stop].to(dtype).contiguous()
        softplus_x, slope, factor = negative_term(x, exponent, log2_weight, buffers[:, : stop - start])
        # Own categories and ignored rows leave the negative sums before they are added, not by subtraction afterwards:
        # a category whose every prior is positive must have a negative sum of exactly zero.
        if len(here):
            factor[here - start, labels[here]] = 0
        if len(out):
            factor[out - start] = 0
        neg_sum += ones[: stop - start] @ torch.mul(slope, factor, out=gradient[start:stop])  # [n] @ [n, C]
        total += softplus_x.mul_(factor).sum()
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


def rows_per_block(n: int, c: int, device: torch.device) -> int:
    """Rows of [n, c] logits that are treated at once, at least 1."""
    entries = ENTRIES_PER_BLOCK * torch.get_num_threads() if device.type == "cpu" else ENTRIES_PER_BLOCK_GPU
    return max(min(entries // max(c, 1), n), 1)


def split_rows(rows: Tensor, starts: range) -> tuple[Tensor, ...]:
    """Ascending row indices, cut into those of each block; block b has the rows from starts[b] on."""
    if not starts:
        return ()
    counts = torch.bincount(rows // starts.step, minlength=len(starts))
    return rows.split(counts.tolist())


class FusedLoss(torch.autograd.Function):
    """Hands the loss of `dense_pass` to autograd together with the gradient that it already holds."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, result: DenseResult) -> Tensor:
        ctx.save_for_backward(result.gradient)
        ctx.dtype, ctx.scale, ctx.is_scaled = logits.dtype, result.scale, False
        return result.loss

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor, None]:
        (gradient,) = ctx.saved_tensors
        if ctx.scale is not None:
            if ctx.is_scaled:
                raise RuntimeError(
                    "backward through this loss a second time: its gradient is gone; call the loss again"
                )
            ctx.is_scaled = True
            return ctx.scale(gradient, grad_output), None
        # The usual case, a loss that is summed and not scaled, needs no second [N, C] matrix.
        # On a GPU looking at the factor would make the host wait.
        if ctx.dtype == gradient.dtype and grad_output.device.type == "cpu" and grad_output == 1:
            return gradient, None
        # Multiplied in float32 first: a scaled loss must lift small fp16 gradients before they are rounded.
        return (gradient * grad_output).to(ctx.dtype), None
