"""Parameters and floating-point operations of a detector."""

from __future__ import annotations

import copy
import warnings

import torch
from torch import nn

PROFILE_SIDE = 64
"""Operations are counted on a small square image and scaled by area, as in official YOLOX."""


def model_info(model: nn.Module, test_size: tuple[int, int]) -> str:
    """Parameters in millions and GFLOPs (two operations per multiply-add) at `test_size` (height, width), as one line.

    Counted by thop as official YOLOX does; where thop cannot be imported only the parameters are given.
    """
    millions = sum(p.numel() for p in model.parameters()) / 1e6
    text = f"Params: {millions:.2f}M"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # thop imports distutils
            from thop import profile
    except ImportError as error:
        return f"{text}, Gflops: unknown ({error})"
    image = torch.zeros(1, 3, PROFILE_SIDE, PROFILE_SIDE, device="meta")
    operations, _ = profile(without_values(model), inputs=(image,), verbose=False)
    giga = 2 * operations * test_size[0] * test_size[1] / PROFILE_SIDE**2 / 1e9
    return f"{text}, Gflops: {giga:.2f}"


def without_values(model: nn.Module) -> nn.Module:
    """A copy on the device meta, whose operations compute shapes only."""
    parameters = {id(p): nn.Parameter(p.to("meta"), p.requires_grad) for p in model.parameters()}
    buffers = {id(b): b.to("meta") for b in model.buffers()}
    return copy.deepcopy(model, parameters | buffers)
