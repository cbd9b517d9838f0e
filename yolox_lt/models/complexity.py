"""Parameters and floating-point operations of a detector."""

from __future__ import annotations

import copy
import warnings

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

PROFILE_SIDE = 64
"""Operations are counted on a small square image and scaled by area, as in official YOLOX."""


def model_info(model: nn.Module, test_size: tuple[int, int]) -> str:
    """Parameters in millions and GFLOPs (two operations per multiply-add) at `test_size` (height, width), as one line.

    Counted by thop as official YOLOX does; where thop cannot be imported by torch, which leaves out what is neither a
    convolution nor a matrix product: 1 % of a YOLOX-S, 5 % of a Nano.
    """
    millions = sum(p.numel() for p in model.parameters()) / 1e6
    giga = operations(without_values(model).eval()) * test_size[0] * test_size[1] / PROFILE_SIDE**2 / 1e9
    return f"Params: {millions:.2f}M, Gflops: {giga:.2f}"


def operations(model: nn.Module) -> float:
    """Operations of a model on the device meta for an image of PROFILE_SIDE pixels a side."""
    image = torch.zeros(1, 3, PROFILE_SIDE, PROFILE_SIDE, device="meta")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # thop imports distutils
            from thop import profile
    except ImportError:
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            model(image)
        return float(counter.get_total_flops())
    return 2 * float(profile(model, inputs=(image,), verbose=False)[0])


def without_values(model: nn.Module) -> nn.Module:
    """A copy on the device meta, whose operations compute shapes only."""
    parameters = {id(p): nn.Parameter(p.to("meta"), p.requires_grad) for p in model.parameters()}
    buffers = {id(b): b.to("meta") for b in model.buffers()}
    return copy.deepcopy(model, parameters | buffers)
