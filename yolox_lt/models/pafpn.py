"""Path aggregation neck of YOLOX (Liu et al., PANet, arXiv 1803.01534; Ge et al., YOLOX, arXiv 2107.08430)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from yolox_lt.models.blocks import ConvBlock, CSPLayer, scale_channels, spatial_block
from yolox_lt.models.darknet import CSPDarknet


def _upsample(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2, mode="nearest")  # [B, C, H, W] -> [B, C, 2H, 2W]


class YOLOPAFPN(nn.Module):
    """CSPDarknet (`backbone`) with a top-down and a bottom-up path. Module names as in official YOLOX.

    Args:
        depth, width, act, depthwise: see CSPDarknet. The neck has round(3 * depth) bottlenecks per layer.
        shortcut: residual shortcut in the neck's bottlenecks: True in the released EFL models, False in official YOLOX.
            It has no parameters, so a checkpoint loads either way; only one way gives its accuracy.
    """

    def __init__(
        self, depth: float, width: float, act: str = "silu", depthwise: bool = False, shortcut: bool = False
    ) -> None:
        super().__init__()
        fine, middle, coarse = (scale_channels(channels, width) for channels in (256, 512, 1024))
        repeats = round(3 * depth)

        def csp(in_channels: int, out_channels: int) -> CSPLayer:
            return CSPLayer(in_channels, out_channels, repeats, shortcut, act, depthwise)

        self.backbone = CSPDarknet(depth, width, act, depthwise)
        self.lateral_conv0 = ConvBlock(coarse, middle, 1, act=act)
        self.C3_p4 = csp(2 * middle, middle)
        self.reduce_conv1 = ConvBlock(middle, fine, 1, act=act)
        self.C3_p3 = csp(2 * fine, fine)
        self.bu_conv2 = spatial_block(fine, fine, 3, 2, act, depthwise)
        self.C3_n3 = csp(2 * fine, middle)
        self.bu_conv1 = spatial_block(middle, middle, 3, 2, act, depthwise)
        self.C3_n4 = csp(2 * middle, coarse)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """[B, 3, H, W] -> [B, 256w, H/8, W/8], [B, 512w, H/16, W/16], [B, 1024w, H/32, W/32]; H, W multiples of 32."""
        stride8, stride16, stride32 = self.backbone(images)
        top32 = self.lateral_conv0(stride32)
        top16 = self.reduce_conv1(self.C3_p4(torch.cat([_upsample(top32), stride16], dim=1)))
        out8 = self.C3_p3(torch.cat([_upsample(top16), stride8], dim=1))
        out16 = self.C3_n3(torch.cat([self.bu_conv2(out8), top16], dim=1))
        out32 = self.C3_n4(torch.cat([self.bu_conv1(out16), top32], dim=1))
        return out8, out16, out32
