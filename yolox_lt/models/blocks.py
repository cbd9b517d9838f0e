"""Convolution blocks of CSPDarknet, the PAFPN neck and the head (Ge et al., YOLOX, arXiv 2107.08430).

Attribute names (`conv`, `bn`, `dconv`, `pconv`, `conv1`, `m`) are those of official YOLOX checkpoints. All maps are
[B, C, H, W] in any memory format.
"""

from __future__ import annotations

import copy
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

from yolox_lt.errors import UserError

BATCH_NORM_EPS = 1e-3
"""As in official YOLOX and the released models; the framework's 1e-5 gives visibly different outputs."""

BATCH_NORM_MOMENTUM = 0.03
"""As in official YOLOX and the released models; the framework's default is 0.1."""

LEAKY_SLOPE = 0.1
"""Negative slope of "lrelu", as in official YOLOX."""

ACTIVATIONS = ("silu", "relu", "lrelu")

M = TypeVar("M", bound=nn.Module)


def make_activation(act: str) -> nn.Module:
    """The activation named "silu", "relu" or "lrelu".

    Those whose gradient needs the result alone overwrite their input, which is always a fresh tensor here; autograd
    would copy the input of a SiLU that did.

    Raises:
        UserError: any other name.
    """
    if act == "silu":
        return nn.SiLU()
    if act == "relu":
        return nn.ReLU(inplace=True)
    if act == "lrelu":
        return nn.LeakyReLU(LEAKY_SLOPE, inplace=True)
    raise UserError(f"act is {act!r}: choose one of {', '.join(ACTIVATIONS)}.")


def scale_channels(channels: int, width: float) -> int:
    """Number of channels (at least 1) at a width multiplier; `channels` is a multiple of 64.

    Equal to int(channels * width), the rule of official YOLOX, where width is a multiple of 1/64. Other widths are
    rounded down to one, so that backbone, neck and head always fit together (in official YOLOX they then do not).

    Raises:
        UserError: a width below 1/64.
    """
    base = int(64 * width)
    if base < 1:
        raise UserError(f"width is {width}: give at least 1/64 (released and official models use 0.25 to 1.25).")
    return base * channels // 64


class ConvBlock(nn.Module):
    """Convolution without bias ("same" padding for odd kernels), BatchNorm, activation."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, stride: int = 1, groups: int = 1, act: str = "silu"
    ) -> None:
        super().__init__()
        padding = kernel_size // 2
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding, groups=groups, bias=False)
        # Replaced by the identity, with the shift moved to the convolution's bias, in `fuse_conv_bn`.
        self.bn: nn.Module = nn.BatchNorm2d(out_channels, eps=BATCH_NORM_EPS, momentum=BATCH_NORM_MOMENTUM)
        self.act = make_activation(act)

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.bn(self.conv(x)))


class DepthwiseConvBlock(nn.Module):
    """Depthwise block followed by a 1x1 block, each with BatchNorm and activation (YOLOX-Nano)."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, stride: int = 1, act: str = "silu"
    ) -> None:
        super().__init__()
        self.dconv = ConvBlock(in_channels, in_channels, kernel_size, stride, groups=in_channels, act=act)
        self.pconv = ConvBlock(in_channels, out_channels, 1, act=act)

    def forward(self, x: Tensor) -> Tensor:
        return self.pconv(self.dconv(x))


def spatial_block(
    in_channels: int, out_channels: int, kernel_size: int, stride: int, act: str, depthwise: bool
) -> nn.Module:
    """The block used wherever a kernel is larger than one pixel: depthwise or plain."""
    if depthwise:
        return DepthwiseConvBlock(in_channels, out_channels, kernel_size, stride, act=act)
    return ConvBlock(in_channels, out_channels, kernel_size, stride, act=act)


class Bottleneck(nn.Module):
    """1x1 block, 3x3 block, and with `shortcut` the input added; the number of channels stays."""

    def __init__(self, channels: int, shortcut: bool, act: str = "silu", depthwise: bool = False) -> None:
        super().__init__()
        self.conv1 = ConvBlock(channels, channels, 1, act=act)
        self.conv2 = spatial_block(channels, channels, 3, 1, act, depthwise)
        self.shortcut = shortcut

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv2(self.conv1(x))
        return x + y if self.shortcut else y


class CSPLayer(nn.Module):
    """Cross-stage partial layer: half of the channels pass `num_bottlenecks` bottlenecks, half go round them."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        num_bottlenecks: int,
        shortcut: bool = True,
        act: str = "silu",
        depthwise: bool = False,
    ) -> None:
        super().__init__()
        hidden = out_channels // 2
        self.conv1 = ConvBlock(in_channels, hidden, 1, act=act)
        self.conv2 = ConvBlock(in_channels, hidden, 1, act=act)
        self.conv3 = ConvBlock(2 * hidden, out_channels, 1, act=act)
        self.m = nn.Sequential(*(Bottleneck(hidden, shortcut, act, depthwise) for _ in range(num_bottlenecks)))

    def forward(self, x: Tensor) -> Tensor:
        return self.conv3(torch.cat([self.m(self.conv1(x)), self.conv2(x)], dim=1))


class SPPBottleneck(nn.Module):
    """Spatial pyramid pooling: the map beside its maxima over 5x5, 9x9 and 13x13 windows."""

    def __init__(self, in_channels: int, out_channels: int, act: str = "silu") -> None:
        super().__init__()
        hidden = in_channels // 2
        self.conv1 = ConvBlock(in_channels, hidden, 1, act=act)
        self.conv2 = ConvBlock(4 * hidden, out_channels, 1, act=act)

    def forward(self, x: Tensor) -> Tensor:
        maps = [self.conv1(x)]
        # Two 5x5 maxima in a row are exactly the 9x9 maximum and three the 13x13 one, with far fewer comparisons.
        for _ in range(3):
            maps.append(F.max_pool2d(maps[-1], kernel_size=5, stride=1, padding=2))
        return self.conv2(torch.cat(maps, dim=1))


class Focus(nn.Module):
    """Space to depth, then one block: [B, C, H, W] -> [B, out, H/2, W/2]; H and W even.

    Channel groups of the four pixels of each 2x2 square: top-left, bottom-left, top-right, bottom-right, as in official
    YOLOX (released EFL files: top-left, top-right, bottom-left, bottom-right).
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, act: str = "silu") -> None:
        super().__init__()
        self.conv = ConvBlock(4 * in_channels, out_channels, kernel_size, act=act)

    def forward(self, x: Tensor) -> Tensor:
        pixels = [x[..., row::2, column::2] for column in (0, 1) for row in (0, 1)]
        return self.conv(torch.cat(pixels, dim=1))  # 4 x [B, C, H/2, W/2] -> [B, 4*C, H/2, W/2]


def fuse_conv_bn(model: M) -> M:
    """A copy of `model` in evaluation mode with every BatchNorm folded into the convolution before it.

    Known are ConvBlocks and torchvision's ResNet: its stem, blocks and shortcuts. Same outputs up to rounding, fewer
    memory passes; for inference only. The copy's state dict has biases instead of BatchNorm entries. `model` itself is
    unchanged.
    """
    fused = copy.deepcopy(model).eval()
    for module in list(fused.modules()):
        for conv, norm in conv_bn_names(module):
            pair = getattr(module, conv), getattr(module, norm)
            if isinstance(pair[0], nn.Conv2d) and isinstance(pair[1], nn.BatchNorm2d):
                setattr(module, conv, fuse_conv_bn_eval(*pair))
                setattr(module, norm, nn.Identity())
    return fused


def conv_bn_names(module: nn.Module) -> list[tuple[str, str]]:
    """Names of a module's convolutions, each with that of the BatchNorm that follows it."""
    if isinstance(module, ConvBlock):
        return [("conv", "bn")]
    if isinstance(module, nn.Sequential) and len(module) == 2:  # a ResNet's shortcut
        return [("0", "1")]
    from torchvision.models import resnet  # slow to load, and needed here alone

    counts = {resnet.ResNet: 1, resnet.BasicBlock: 2, resnet.Bottleneck: 3}
    return [(f"conv{i}", f"bn{i}") for i in range(1, 1 + counts.get(type(module), 0))]
