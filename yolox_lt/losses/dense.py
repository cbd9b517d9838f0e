"""The pass over all logits of a dense loss: by the Triton kernel on a GPU, by torch's operations elsewhere."""

from __future__ import annotations

import torch
from torch import Tensor

from yolox_lt.losses import kernel
from yolox_lt.losses.kernel import DenseResult, PositiveTerm


def dense_pass(
    logits: Tensor,
    labels: Tensor,
    quality: Tensor | None,
    positive: PositiveTerm,
    exponent: Tensor | None,
    weight: Tensor,
    normalizer: Tensor,
) -> DenseResult:
    """Loss, gradient and gradient sums of [N, C] logits; arguments as `block_pass`."""
    if logits.device.type == "cuda" and logits.dtype != torch.float64:
        from yolox_lt.losses.gpu_pass import gpu_pass, usable

        if usable(logits.device):
            return gpu_pass(logits, labels, quality, positive, exponent, weight, normalizer)
    return kernel.block_pass(logits, labels, quality, positive, exponent, weight, normalizer)
