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


def pointwise_rows(features: Sequence[Tensor], convs: Sequence[nn.Module], values: int) -> Tensor:
    """Outputs of one 1x1 convolution a level as rows [B, P, values], in the order level, row, column, anchor.

    The same as convolving and joining with `concat_levels`, up to rounding; under autocast in its dtype.

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
        out = rows[0].new_empty(len(rows[0]), sum(per_level), values)
        for part, x, w, b in zip(out.split(per_level, dim=1), rows, weights, biases):
            level = part.view(len(x), -1, len(w))  # [B, H*W*A, C] -> [B, H*W, A*C]
            torch.baddbmm(b.expand_as(level), x, w.t().expand(len(x), -1, -1), out=level)
        ctx.save_for_backward(*rows, *weights)
        ctx.shapes, ctx.per_level = [f.shape for f in features], per_level
        return out

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        levels = len(ctx.per_level)
        rows, weights = ctx.saved_tensors[:levels], ctx.saved_tensors[levels:]
        to_features, to_weights, to_biases = [], [], []
        parts = gradient.contiguous().split(ctx.per_level, dim=1)
        for part, x, w, (batch, channels, height, width) in zip(parts, rows, weights, ctx.shapes):
            level = part.view(batch, -1, len(w))  # [B, H*W*A, C] -> [B, H*W, A*C]
            to_feature = torch.bmm(level, w.expand(batch, -1, -1))
            # [B, H*W, K] -> [B, H, W, K] -> [B, K, H, W], channels-last
            to_features.append(to_feature.view(batch, height, width, channels).permute(0, 3, 1, 2))
            # Image by image: one product over the batch would copy the level's rows together first, and sum() is slow.
            # Half precision is summed over the images in float32.
            exact = torch.promote_types(w.dtype, torch.float32)
            ones = x.new_ones(x.shape[1])
            to_weight, to_bias = torch.zeros_like(w, dtype=exact), torch.zeros(len(w), dtype=exact, device=w.device)
            for b in range(batch):
                to_weight += level[b].t() @ x[b]
                to_bias += level[b].t() @ ones
            to_weights.append(to_weight.to(w.dtype))
            to_biases.append(to_bias.to(w.dtype))
        return (None, *to_features, *to_weights, *to_biases)
