"""The pass of `kernel.dense_pass` as one Triton kernel: the logits are read once and the gradient is written once.

A program takes a strip of columns (categories) through a stretch of rows (priors), keeps their sums in registers and
writes one row of partial sums at its end. There are no atomics, so a run repeats itself. The positive entries, one a
prior at most, are computed beforehand as vectors and only put in their places here. Formulas as in `kernel`.

Needs a CUDA GPU and Triton, which comes with torch on Linux; `kernel.dense_pass` is the reference and does the work
everywhere else.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from yolox_lt.types import IGNORED

ROWS, COLUMNS = 16, 128
"""Entries of a tile: a warp reads whole lines of 128 bytes and more."""
TILES = 16
"""Tiles one below the other that a program goes through: 256 rows share one row of partial sums."""


@triton.jit
def _dense_kernel(  # type: ignore[no-untyped-def]
    logits,
    labels,
    positive_gradient,
    exponent,
    weight,
    gradient,
    loss_sums,
    negative_sums,
    n,
    c,
    IGNORED_LABEL: tl.constexpr,  # noqa: N803
    ROWS: tl.constexpr,  # noqa: N803
    COLUMNS: tl.constexpr,  # noqa: N803
    TILES: tl.constexpr,  # noqa: N803
):
    stretch = tl.program_id(0)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    inside_columns = column < c
    f = tl.load(exponent + column, mask=inside_columns, other=0.0)[None, :]
    w = tl.load(weight + column, mask=inside_columns, other=0.0)[None, :]
    loss_sum = tl.zeros([COLUMNS], dtype=tl.float32)
    negative_sum = tl.zeros([COLUMNS], dtype=tl.float32)
    for tile in range(TILES):
        row = (stretch * TILES + tile) * ROWS + tl.arange(0, ROWS)
        inside_rows = row < n
        label = tl.load(labels + row, mask=inside_rows, other=IGNORED_LABEL)
        at_own = tl.load(positive_gradient + row, mask=inside_rows, other=0.0)
        inside = inside_rows[:, None] & inside_columns[None, :]
        # 64-bit offsets: 128 images of 16,800 priors and 1203 categories are more than 2^31 entries.
        entry = row.to(tl.int64)[:, None] * c + column[None, :]
        x = tl.load(logits + entry, mask=inside, other=0.0).to(tl.float32)

        e = tl.exp(-tl.abs(x))  # in (0, 1]: never overflows
        # ln(1 + e) = 2 artanh(e / (2 + e)) as a series in s^2 <= 1/9: exact to rounding where 1 + e would drop e.
        s = e / (2.0 + e)
        s2 = s * s
        series = 1.0 / 15 + s2 * (1.0 / 17)
        series = 1.0 / 13 + s2 * series
        series = 1.0 / 11 + s2 * series
        series = 1.0 / 9 + s2 * series
        series = 1.0 / 7 + s2 * series
        series = 1.0 / 5 + s2 * series
        series = 1.0 / 3 + s2 * series
        softplus = tl.maximum(x, 0.0) + 2.0 * s * (1.0 + s2 * series)
        p = tl.where(x >= 0, 1.0, e) / (1.0 + e)
        factor = w * tl.exp(f * (x - softplus))  # w p^f
        negative = (label[:, None] != column[None, :]) & (label[:, None] != IGNORED_LABEL) & inside
        factor = tl.where(negative, factor, 0.0)
        slope = p + f * (1.0 - p) * softplus
        result = factor * slope
        loss_sum += tl.sum(factor * softplus, axis=0)
        negative_sum += tl.sum(result, axis=0)
        result = tl.where(label[:, None] == column[None, :], at_own[:, None], result)
        tl.store(gradient + entry, result.to(gradient.dtype.element_ty), mask=inside)
    partial = stretch.to(tl.int64) * c + column
    tl.store(loss_sums + partial, loss_sum, mask=inside_columns)
    tl.store(negative_sums + partial, negative_sum, mask=inside_columns)


@triton.jit
def _scale_kernel(gradient, factor, n, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]  # noqa: N803
    f = tl.load(factor).to(tl.float32)
    # The usual factor is 1, and only the device knows it: then nothing is read or written.
    if f != 1.0:
        entry = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
        g = tl.load(gradient + entry, mask=entry < n)
        tl.store(gradient + entry, (g.to(tl.float32) * f).to(gradient.dtype.element_ty), mask=entry < n)


def negative_pass(
    logits: Tensor, labels: Tensor, positive_gradient: Tensor, exponent: Tensor, weight: Tensor, dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradient of all entries, and loss and gradient sums of those that are not a prior's own category.

    Args:
        logits: float32, bfloat16 or float16 [N, C], contiguous.
        labels: int64 [N], 0..C-1, -1 background, -2 ignored.
        positive_gradient: float32 [N], the gradient at each positive prior's own category; not read elsewhere.
        exponent, weight: float32 [C], f and w of the negative entries, the weight with the normaliser.
        dtype: of the gradient.

    Returns:
        gradient: `dtype` [N, C]. loss, negative sums: float64 [C].
    """
    n, c = logits.shape
    stretches = triton.cdiv(max(n, 1), ROWS * TILES)
    gradient = torch.empty(n, c, dtype=dtype, device=logits.device)
    sums = torch.empty(2, stretches, c, dtype=torch.float32, device=logits.device)
    grid = (stretches, triton.cdiv(c, COLUMNS))
    _dense_kernel[grid](
        logits,
        labels,
        positive_gradient,
        exponent,
        weight,
        gradient,
        sums[0],
        sums[1],
        n,
        c,
        IGNORED_LABEL=IGNORED,
        ROWS=ROWS,
        COLUMNS=COLUMNS,
        TILES=TILES,
    )
    loss, negative = sums.sum(dim=1, dtype=torch.float64)  # [2, stretches, C] -> [2, C]
    return gradient, loss, negative


def scale_in_place(gradient: Tensor, factor: Tensor) -> Tensor:
    """`gradient` times the scalar `factor`, in its own memory, without the host waiting for the factor."""
    block = 4096
    grid = (triton.cdiv(gradient.numel(), block),)
    _scale_kernel[grid](gradient, factor, gradient.numel(), BLOCK=block)
    return gradient
