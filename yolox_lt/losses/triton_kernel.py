"""The pass of `dense.dense_pass` as one Triton kernel: the logits are read once and the gradient is written once.

A program takes a strip of columns (categories) through a stretch of rows (priors), keeps their sums in registers and
writes one row of partial sums at its end. There are no atomics, so a run repeats itself. The positive entries, one a
prior at most, are computed beforehand as vectors and only put in their places here. Formulas as in `kernel`.

Under float16 the gradient can be rounded only when the loss scale is known, in backward. So the sums come from one
launch and the gradient from a second one that reads the logits again: less traffic than a float32 gradient in between,
and no memory for it.

Needs a CUDA GPU and Triton, which comes with torch on Linux; `dense.dense_pass` is the reference and does the work
everywhere else.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from yolox_lt.types import IGNORED

ROWS, COLUMNS = 4, 128
"""Entries of a tile: four for each thread of four warps. More of them need more registers, which makes bf16 on an H100
a quarter slower with eight and half as fast with sixteen."""
TILES = 64
"""Tiles one below the other that a program goes through: 256 rows share one row of partial sums."""
UNIT = 8
"""Rows that begin on so many entries are read and written in pieces of 16 bytes."""


@triton.jit
def _dense_kernel(  # type: ignore[no-untyped-def]
    logits,
    labels,
    positive_gradient,
    exponent,
    log2_weight,
    factor,
    gradient,
    loss_sums,
    negative_sums,
    positive_sums,
    n,
    c,
    strips,
    row_units,
    HAS_FACTOR: tl.constexpr,  # noqa: N803
    HAS_GRADIENT: tl.constexpr,  # noqa: N803
    HAS_SUMS: tl.constexpr,  # noqa: N803
    IGNORED_LABEL: tl.constexpr,  # noqa: N803
    UNIT: tl.constexpr,  # noqa: N803
    ROWS: tl.constexpr,  # noqa: N803
    COLUMNS: tl.constexpr,  # noqa: N803
    TILES: tl.constexpr,  # noqa: N803
):
    # Strips side by side run at the same time: together they read rows from end to end.
    stretch = tl.program_id(0) // strips
    column = (tl.program_id(0) % strips) * COLUMNS + tl.arange(0, COLUMNS)
    inside_columns = column < c
    f = tl.load(exponent + column, mask=inside_columns, other=0.0)[None, :]
    log2_w = tl.load(log2_weight + column, mask=inside_columns, other=float("-inf"))[None, :]
    # The compiler sees that these are multiples of UNIT, and moves pieces of that length: up to UNIT - 1 entries behind
    # a row's last one are read and written too; no other column sees them.
    row_stride = row_units * UNIT
    allowed = (column < (c + UNIT - 1) // UNIT * UNIT)[None, :]
    loss_sum = tl.zeros([ROWS, COLUMNS], dtype=tl.float32)
    negative_sum = tl.zeros([ROWS, COLUMNS], dtype=tl.float32)
    positive_sum = tl.zeros([ROWS, COLUMNS], dtype=tl.float32)
    for tile in range(tl.minimum(TILES, tl.cdiv(n - stretch * (TILES * ROWS), ROWS))):
        row = (stretch * TILES + tile) * ROWS + tl.arange(0, ROWS)
        inside_rows = row < n
        label = tl.load(labels + row, mask=inside_rows, other=IGNORED_LABEL)
        at_own = tl.load(positive_gradient + row, mask=inside_rows, other=0.0)[:, None]
        # 64-bit offsets: 128 images of 16,800 priors and 1203 categories are more than 2^31 entries.
        entry = row.to(tl.int64)[:, None] * row_stride + column[None, :]
        mask = inside_rows[:, None] & allowed
        x = tl.load(logits + entry, mask=mask, other=0.0).to(tl.float32)

        e = tl.exp2(tl.abs(x) * -1.4426950408889634)  # e^-|x| in (0, 1]: never overflows
        # ln(1 + e) / e as a polynomial, least squares at Chebyshev nodes of [0, 1]: 2e-7 relative, also where 1 + e
        # would drop e, and cheaper than a logarithm and a division.
        series = -0.02958851 + e * 0.00525346
        series = 0.07836167 + e * series
        series = -0.1367477 + e * series
        series = 0.1911143 + e * series
        series = -0.2484437 + e * series
        series = 0.3331927 + e * series
        series = -0.49999502 + e * series
        log = e * (1.0 + e * series)
        softplus = tl.maximum(x, 0.0) + log
        log2_p = (tl.minimum(x, 0.0) - log) * 1.4426950408889634  # x - softplus without its cancellation
        p = tl.exp2(log2_p)
        power = tl.exp2(f * log2_p + log2_w)  # w p^f; 0 outside the columns
        own = label.to(tl.int32)[:, None] == column[None, :]
        positive_here = own | (label == IGNORED_LABEL)[:, None]
        power = tl.where(positive_here, 0.0, power)
        t = f * softplus
        result = power * (p + (t - t * p))
        if HAS_SUMS:
            loss_sum += power * softplus
            negative_sum += result
            positive_sum += tl.where(own, tl.abs(at_own), 0.0)
        if HAS_GRADIENT:
            result = tl.where(own, at_own, result)
            if HAS_FACTOR:
                result *= tl.load(factor).to(tl.float32)
            tl.store(gradient + entry, result.to(gradient.dtype.element_ty), mask=mask)
    if HAS_SUMS:
        partial = stretch.to(tl.int64) * c + column
        tl.store(loss_sums + partial, tl.sum(loss_sum, axis=0), mask=inside_columns)
        tl.store(negative_sums + partial, tl.sum(negative_sum, axis=0), mask=inside_columns)
        tl.store(positive_sums + partial, tl.sum(positive_sum, axis=0), mask=inside_columns)


@triton.jit
def _scale_kernel(gradient, factor, n, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]  # noqa: N803
    f = tl.load(factor).to(tl.float32)
    # The usual factor is 1, and only the device knows it: then nothing is read or written.
    if f != 1.0:
        entry = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
        g = tl.load(gradient + entry, mask=entry < n)
        tl.store(gradient + entry, (g.to(tl.float32) * f).to(gradient.dtype.element_ty), mask=entry < n)


def negative_pass(
    logits: Tensor, labels: Tensor, positive_gradient: Tensor, exponent: Tensor, weight: Tensor, with_gradient: bool
) -> tuple[Tensor | None, Tensor, Tensor, Tensor]:
    """Gradient of all entries, loss and gradient sums of those that are not a prior's own category, sums of the others.

    Args:
        logits: float32, bfloat16 or float16 [N, C]; the entries of a row lie side by side, rows may be further apart.
        labels: int64 [N], 0..C-1, -1 background, -2 ignored.
        positive_gradient: float32 [N], the gradient at each positive prior's own category; 0 elsewhere.
        exponent, weight: float32 [C], f and w of the negative entries, the weight with the normaliser.
        with_gradient: False for the sums alone.

    Returns:
        gradient: [N, C] in the dtype of the logits, its rows as far apart as theirs; None without.
        loss, negative sums, positive sums: float64 [C].

    Raises:
        ValueError: rows that overlap, or whose entries do not lie side by side.
    """
    n, c = logits.shape
    sums = torch.empty(3, triton.cdiv(max(n, 1), ROWS * TILES), c, dtype=torch.float32, device=logits.device)
    gradient = _like(logits) if with_gradient else None
    _launch(logits, labels, positive_gradient, exponent, weight, None, gradient, sums)
    loss, negative, positive = sums.sum(dim=1, dtype=torch.float64)  # [3, stretches, C] -> [3, C]
    return gradient, loss, negative, positive


def scaled_gradient(
    logits: Tensor, labels: Tensor, positive_gradient: Tensor, exponent: Tensor, weight: Tensor, factor: Tensor
) -> Tensor:
    """The gradient of `negative_pass` times the scalar tensor `factor`, multiplied before it is rounded."""
    gradient = _like(logits)
    _launch(logits, labels, positive_gradient, exponent, weight, factor, gradient, None)
    return gradient


def _like(logits: Tensor) -> Tensor:
    """A new [N, C] matrix with the rows of the logits, and what lies behind the last one too."""
    n, c = logits.shape
    return logits.new_empty(n, logits.stride(0) if n > 1 else c)[:, :c]


def _launch(
    logits: Tensor,
    labels: Tensor,
    positive_gradient: Tensor,
    exponent: Tensor,
    weight: Tensor,
    factor: Tensor | None,
    gradient: Tensor | None,
    sums: Tensor | None,
) -> None:
    """Arguments as `negative_pass`; `gradient` and `sums` [3, stretches, C] are written where they are given."""
    n, c = logits.shape
    row_stride = logits.stride(0) if n > 1 else c
    if (c > 1 and logits.stride(1) != 1) or row_stride < c:
        raise ValueError(f"logits with strides {logits.stride()}: the entries of a row must lie side by side")
    strips = triton.cdiv(c, COLUMNS)
    # Memory of the last row, up to the next multiple, has to be there.
    end = logits.storage_offset() + (n - 1) * row_stride + triton.cdiv(c, UNIT) * UNIT
    has_room = end * logits.itemsize <= logits.untyped_storage().nbytes()
    unit = UNIT if row_stride % UNIT == 0 and has_room else 1
    loss, negative, positive = (None, None, None) if sums is None else sums
    with torch.cuda.device_of(logits):  # Triton launches on the current device, not on that of its arguments
        _dense_kernel[(strips * triton.cdiv(max(n, 1), ROWS * TILES),)](
            logits,
            labels,
            positive_gradient,
            exponent,
            weight.log2(),
            factor,
            gradient,
            loss,
            negative,
            positive,
            n,
            c,
            strips,
            row_stride // unit,
            HAS_FACTOR=factor is not None,
            HAS_GRADIENT=gradient is not None,
            HAS_SUMS=sums is not None,
            IGNORED_LABEL=IGNORED,
            UNIT=unit,
            ROWS=ROWS,
            COLUMNS=COLUMNS,
            TILES=TILES,
        )


def scale(gradient: Tensor, factor: Tensor) -> Tensor:
    """`gradient` of `negative_pass` times the scalar `factor`, in its own memory, without the host waiting for it."""
    n, c = gradient.shape
    if n > 0:
        entries = (n - 1) * gradient.stride(0) + c  # with what lies between rows
        block = 4096
        with torch.cuda.device_of(gradient):
            _scale_kernel[(triton.cdiv(entries, block),)](gradient, factor, entries, BLOCK=block)
    return gradient
