"""1x1 convolutions of several levels whose outputs become the rows of one matrix, in training.

With a thousand categories the logits are by far the largest tensor of a step. Convolving each level and joining the
maps afterwards writes them twice and holds both; here every level is multiplied straight into its rows, and its
gradient is read from there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

ALIGNMENT = 8
"""Entries: on a GPU every row of half-precision outputs begins on 16 bytes, which its matrix units ask for."""


def aligned(values: int, like: Tensor) -> int:
    """Distance of two rows of `values` entries in memory: a multiple of ALIGNMENT on a GPU."""
    return -(-values // ALIGNMENT) * ALIGNMENT if like.is_cuda else values


def pointwise_rows(features: Sequence[Tensor], convs: Sequence[nn.Module], values: int) -> Tensor:
    """Outputs of one 1x1 convolution a level as rows [B, P, values], in the order level, row, column, anchor.

    The same as convolving and joining with `concat_levels`, up to rounding; under autocast in its dtype. On a GPU the
    rows may lie further apart than they are long, see `aligned`.

    Args:
        features: [B, K, H, W] per level, fastest in channels-last memory.
        convs: per level, K -> A * values channels with bias, anchor-major.
        values: C of a classifier.
    """
    weights = [conv.get_parameter("weight").flatten(1) for conv in convs]  # [A*C, K, 1, 1] -> [A*C, K]
    biases = [conv.get_parameter("bias") for conv in convs]
    tensors = [*features, *weights, *biases]
    device = features[0].device.type
    if torch.is_autocast_enabled(device):
        tensors = [tensor.to(torch.get_autocast_dtype(device)) for tensor in tensors]
    return PointwiseRows.apply(values, *tensors)


class PointwiseRows(torch.autograd.Function):
    """The products of `pointwise_rows`: features, weights and biases of L levels, one after the other."""

    @staticmethod
    def forward(ctx: Any, values: int, *tensors: Tensor) -> Tensor:
        levels = len(tensors) // 3
        features, weights, biases = tensors[:levels], tensors[levels : 2 * levels], tensors[2 * levels :]
        rows = [f.permute(0, 2, 3, 1).flatten(1, 2) for f in features]  # [B, K, H, W] -> [B, H*W, K]
        per_level = [x.shape[1] * len(w) // values for x, w in zip(rows, weights)]  # H*W*A
        apart = aligned(values, rows[0])
        out = rows[0].new_empty(len(rows[0]), sum(per_level), apart)
        for part, x, w, b in zip(out.split(per_level, dim=1), rows, weights, biases):
            # With what lies between the rows all anchors are one product, of a size that suits the matrix units.
            w, b = spread(w, values, apart), spread(b, values, apart)
            level = part.view(len(part), -1, len(w))  # [B, H*W*A, apart] -> [B, H*W, A*apart]
            torch.baddbmm(b.expand_as(level), x, w.t().expand(len(x), -1, -1), out=level)
        ctx.save_for_backward(*rows, *weights)
        ctx.shapes, ctx.per_level = [f.shape for f in features], per_level
        return out[..., :values]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        levels = len(ctx.per_level)
        rows, weights = ctx.saved_tensors[:levels], ctx.saved_tensors[levels:]
        to_features, to_weights, to_biases = [], [], []
        if gradient.stride(-1) != 1:
            gradient = gradient.contiguous()
        for part, x, w, (batch, channels, height, width) in zip(
            gradient.split(ctx.per_level, dim=1), rows, weights, ctx.shapes
        ):
            # Half precision is summed over the images in float32.
            exact = torch.promote_types(w.dtype, torch.float32)
            to_feature = None
            to_weight, to_bias = torch.zeros_like(w, dtype=exact), torch.zeros(len(w), dtype=exact, device=w.device)
            views = zip(products(part, len(w)), *by_product(part, w, to_weight, to_bias))
            for level, w_part, to_w, to_b in views:
                w_part = w_part.expand(batch, -1, -1)
                to_feature = (
                    torch.bmm(level, w_part) if to_feature is None else torch.baddbmm(to_feature, level, w_part)
                )
                add_parameter_gradients(level, x, to_w, to_b, at_once=x.is_cuda)
            assert to_feature is not None  # there is at least one product
            # [B, H*W, K] -> [B, H, W, K] -> [B, K, H, W], channels-last
            to_features.append(to_feature.view(batch, height, width, channels).permute(0, 3, 1, 2))
            to_weights.append(to_weight.to(w.dtype))
            to_biases.append(to_bias.to(w.dtype))
        return (None, *to_features, *to_weights, *to_biases)


def spread(parameter: Tensor, values: int, apart: int) -> Tensor:
    """Weight or bias [A*C, ...] with rows of zeros behind those of each anchor, [A*apart, ...]."""
    if apart == values:
        return parameter
    anchors = parameter.unflatten(0, (-1, values))  # [A*C, ...] -> [A, C, ...]
    wide = anchors.new_zeros(len(anchors), apart, *parameter.shape[1:])
    wide[:, :values] = anchors
    return wide.flatten(0, 1)


def add_parameter_gradients(level: Tensor, x: Tensor, to_weight: Tensor, to_bias: Tensor, at_once: bool) -> None:
    """Add the products of the gradient `level` [B, N, M] with `x` [B, N, K] to [M, K], and its sums to [M].

    at_once: all images in one call, as a GPU wants it, where each call costs as much as its work.
    """
    if at_once:
        to_weight += torch.bmm(level.transpose(1, 2), x).sum(0, dtype=to_weight.dtype)
        ones = x.new_ones(1, 1, x.shape[1]).expand(len(x), -1, -1)
        to_bias += torch.bmm(ones, level).sum((0, 1), dtype=to_bias.dtype)
        return
    # Image by image: one product over the batch would copy the level's rows together first, and sum() is slow.
    ones = x.new_ones(x.shape[1])
    for one_level, one_x in zip(level, x):
        to_weight += one_level.t() @ one_x
        to_bias += one_level.t() @ ones


def products(rows: Tensor, channels: int) -> tuple[Tensor, ...]:
    """Rows [B, H*W*A, C] of a level as the matrices that are multiplied.

    One [B, H*W, A*C] where the rows follow one another, else one [B, H*W, C] for each anchor.
    """
    batch, count, values = rows.shape
    if rows.stride(1) == values:
        return (rows.view(batch, -1, channels),)  # [B, H*W*A, C] -> [B, H*W, A*C]
    anchors = channels // values
    return rows.view(batch, count // anchors, anchors, values).unbind(2)  # [B, H*W, A, C] -> A x [B, H*W, C]


def by_product(rows: Tensor, *parameters: Tensor) -> list[tuple[Tensor, ...]]:
    """The shares of parameters [A*C, ...] that belong to the matrices of `products`."""
    whole = rows.stride(1) == rows.shape[2]
    return [(p,) if whole else p.split(rows.shape[2]) for p in parameters]
