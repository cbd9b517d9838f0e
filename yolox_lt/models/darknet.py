"""CSPDarknet, the backbone of YOLOX (Ge et al., arXiv 2107.08430)."""

from __future__ import annotations

from torch import Tensor, nn

from yolox_lt.models.blocks import CSPLayer, Focus, SPPBottleneck, scale_channels, spatial_block


class CSPDarknet(nn.Module):
    """Maps of strides 8, 16 and 32 with 256, 512 and 1024 times `width` channels.

    Module names and layout as in official YOLOX and the released models.

    Args:
        depth: multiplies the number of bottlenecks per stage (3, 9, 9, 3 at depth 1; at least one third of that).
        width: multiplies the number of channels; see `scale_channels`.
        act: "silu", "relu" or "lrelu".
        depthwise: depthwise instead of plain 3x3 convolutions, except in the stem.
    """

    def __init__(self, depth: float, width: float, act: str = "silu", depthwise: bool = False) -> None:
        super().__init__()
        base = scale_channels(64, width)
        repeats = max(round(3 * depth), 1)
        self.stem = Focus(3, base, 3, act)
        self.dark2 = nn.Sequential(
            spatial_block(base, 2 * base, 3, 2, act, depthwise),
            CSPLayer(2 * base, 2 * base, repeats, act=act, depthwise=depthwise),
        )
        self.dark3 = nn.Sequential(
            spatial_block(2 * base, 4 * base, 3, 2, act, depthwise),
            CSPLayer(4 * base, 4 * base, 3 * repeats, act=act, depthwise=depthwise),
        )
        self.dark4 = nn.Sequential(
            spatial_block(4 * base, 8 * base, 3, 2, act, depthwise),
            CSPLayer(8 * base, 8 * base, 3 * repeats, act=act, depthwise=depthwise),
        )
        self.dark5 = nn.Sequential(
            spatial_block(8 * base, 16 * base, 3, 2, act, depthwise),
            SPPBottleneck(16 * base, 16 * base, act),
            CSPLayer(16 * base, 16 * base, repeats, shortcut=False, act=act, depthwise=depthwise),
        )

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """[B, 3, H, W] -> [B, 256w, H/8, W/8], [B, 512w, H/16, W/16], [B, 1024w, H/32, W/32]."""
        stride8 = self.dark3(self.dark2(self.stem(images)))
        stride16 = self.dark4(stride8)
        return stride8, stride16, self.dark5(stride16)
