"""The pass of `dense.dense_pass` as one Triton kernel: the logits are read once and the gradient is written once.

A program takes a strip of columns (categories) through a stretch of rows (priors), keeps their sums in registers and
writes one row of partial sums at its end. There are no atomics, so a run repeats itself. The positive entries, one a
prior at most, are computed beforehand as vectors and only put in their places here. Formulas as in `kernel`.

Needs a CUDA GPU and Triton, which comes with torch on Linux; `dense.dense_pass` is the reference and does the work
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
    positive_sums,
    n,
    c,
    row_stride,
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
    positive_sum = tl.zeros([COLUMNS], dtype=tl.float32)
    for tile in range(TILES):
        row = (stretch * TILES + tile) * ROWS + tl.arange(0, ROWS)
        inside_rows = row < n
        label = tl.load(labels + row, mask=inside_rows, other=IGNORED_LABEL)
        at_own = tl.load(positive_gradient + row, mask=inside_rows, other=0.0)
        inside = inside_rows[:, None] & inside_columns[None, :]
        # 64-bit offsets: 128 images of 16,800 priors and 1203 categories are more than 2^31 entries.
        entry = row.to(tl.int64)[:, None] * row_stride + column[None, :]
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
        own = label[:, None] == column[None, :]
        result = tl.where(own, at_own[:, None], result)
        positive_sum += tl.sum(tl.where(own, tl.abs(at_own)[:, None], 0.0), axis=0)
        tl.store(gradient + entry, result.to(gradient.dtype.element_ty), mask=inside)
    partial = stretch.to(tl.int64) * c + column
    tl.store(loss_sums + partial, loss_sum, mask=inside_columns)
    tl.store(negative_sums + partial, negative_sum, mask=inside_columns)
    tl.store(positive_sums + partial, positive_sum, mask=inside_columns)


@triton.jit
def _scale_kernel(gradient, factor, n, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]  # noqa: N803
    f = tl.load(factor).to(tl.float32)
    # The usual factor is 1, and only the device knows it: then nothing is read or written.
    if f != 1.0:
        entry = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
        g = tl.load(gradient + entry, mask=entry < n)
        tl.store(gradient + entry, (g.to(tl.float32) * f).to(gradient.dtype.element_ty), mask=entry < n)


@triton.jit
def _halve_kernel(gradient, half, factor, c, row_stride, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]  # noqa: N803
    row = tl.program_id(0).to(tl.int64)
    f = tl.load(factor).to(tl.float32)
    for start in range(0, c, BLOCK):
        column = start + tl.arange(0, BLOCK)
        g = tl.load(gradient + row * row_stride + column, mask=column < c, other=0.0)
        # `half` is the memory of `gradient`: what is written lies where this program, and no other, has read by now.
        tl.debug_barrier()
        tl.store(half + row * (2 * row_stride) + column, (g * f).to(half.dtype.element_ty), mask=column < c)


def negative_pass(
    logits: Tensor, labels: Tensor, positive_gradient: Tensor, exponent: Tensor, weight: Tensor, dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradient of all entries, loss and gradient sums of those that are not a prior's own category, sums of the others.

    Args:
        logits: float32, bfloat16 or float16 [N, C]; the entries of a row lie side by side, rows may be further apart.
        labels: int64 [N], 0..C-1, -1 background, -2 ignored.
        positive_gradient: float32 [N], the gradient at each positive prior's own category; not read elsewhere.
        exponent, weight: float32 [C], f and w of the negative entries, the weight with the normaliser.
        dtype: of the gradient.

    Returns:
        gradient: `dtype` [N, C], its rows as far apart as those of the logits. loss, negative sums, positive sums:
        float64 [C].

    Raises:
        ValueError: rows that overlap, or whose entries do not lie side by side.
    """
    n, c = logits.shape
    row_stride = logits.stride(0) if n > 1 else c
    if (c > 1 and logits.stride(1) != 1) or row_stride < c:
        raise ValueError(f"logits with strides {logits.stride()}: the entries of a row must lie side by side")
    stretches = triton.cdiv(max(n, 1), ROWS * TILES)
    gradient = torch.empty_strided((n, c), (row_stride, 1), dtype=dtype, device=logits.device)
    sums = torch.empty(3, stretches, c, dtype=torch.float32, device=logits.device)
    grid = (stretches, triton.cdiv(c, COLUMNS))
    with torch.cuda.device_of(logits):  # Triton launches on the current device, not on that of its arguments
        _dense_kernel[grid](
            logits,
            labels,
            positive_gradient,
            exponent,
            weight,
            gradient,
            *sums,
            n,
            c,
            row_stride,
            IGNORED_LABEL=IGNORED,
            ROWS=ROWS,
            COLUMNS=COLUMNS,
            TILES=TILES,
        )
    loss, negative, positive = sums.sum(dim=1, dtype=torch.float64)  # [3, stretches, C] -> [3, C]
    return gradient, loss, negative, positive


def scale(gradient: Tensor, factor: Tensor, dtype: torch.dtype) -> Tensor:
    """`gradient` of `negative_pass` times the scalar `factor`, in its own memory, without the host waiting for it.

    Args:
        dtype: of the result, that of the gradient, or float16 for a float32 gradient: its product is rounded in
            passing, and every row takes the first half of its old place.
    """
    n, c = gradient.shape
    if n == 0:
        return gradient.to(dtype)
    row_stride = gradient.stride(0)
    with torch.cuda.device_of(gradient):
        if dtype == gradient.dtype:
            entries = (n - 1) * row_stride + c  # with what lies between rows
            block = 4096
            _scale_kernel[(triton.cdiv(entries, block),)](gradient, factor, entries, BLOCK=block)
            return gradient
        half = gradient.view(dtype)[:, :c]  # [N, C] -> [N, 2*C] -> [N, C]
        block = min(triton.next_power_of_2(c), 2048)
        _halve_kernel[(n,)](gradient, half, factor, c, row_stride, BLOCK=block)
        return half
