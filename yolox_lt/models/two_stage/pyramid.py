"""The feature pyramid of the two-stage detectors: P2..P5 of C2..C5, and P6 (Lin et al., arXiv 1612.03144)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from yolox_lt.models.init import init_convs
from yolox_lt.models.resnet_fpn import ResNetFPN, merge_top_down


class FinePyramid(nn.Module):
    """P2..P5 from C2..C5 without norm or activation, and P6, every second cell of P5. Weights Xavier-uniform, biases 0.

    Args:
        in_channels: channels of C2..C5.
        channels: of every output.
    """

    def __init__(self, in_channels: Sequence[int], channels: int) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(nn.Conv2d(own, channels, 1) for own in in_channels)
        self.output = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=1) for _ in in_channels)
        init_convs(self, nn.init.xavier_uniform_)

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """C2..C5 [B, in_channels, H, W], finest first -> P2..P6 [B, channels, H, W]."""
        laterals = [lateral(feature) for lateral, feature in zip(self.lateral, features)]
        levels = [output(x) for output, x in zip(self.output, merge_top_down(laterals))]
        return [*levels, nn.functional.max_pool2d(levels[-1], kernel_size=1, stride=2)]


class FineResNetFPN(ResNetFPN):
    """torchvision's ResNet with a pyramid on strides 4, 8, 16, 32, 64; arguments as `ResNetFPN`."""

    def make_fpn(self, c5: int, channels: int) -> nn.Module:
        return FinePyramid((c5 // 8, c5 // 4, c5 // 2, c5), channels)

    def resnet_features(self, images: Tensor) -> tuple[Tensor, ...]:
        """[B, 3, H, W] -> C2..C5 at strides 4, 8, 16, 32."""
        return self.stages(images)
