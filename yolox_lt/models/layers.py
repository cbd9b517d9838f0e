"""Layers that the framework does not have."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class NormedLinear(nn.Linear):
    """scale * (x / (|x| + eps)) . (w / (|w| + eps)) + b: a linear layer over directions, a cosine classifier.

    Wang et al., Seesaw Loss for Long-Tailed Instance Segmentation (arXiv 2008.10032), section 3.4: how often a category
    occurs then cannot show in the length of its weights. Weights start Normal(0, 0.01), biases at zero.

    Args:
        in_features, out_features: as `nn.Linear`.
        scale: of the cosines, 20 in Seesaw's configurations.
        eps: added to both lengths, so that a vector of zeros gives the bias.
    """

    def __init__(self, in_features: int, out_features: int, scale: float = 20.0, eps: float = 1e-6) -> None:
        super().__init__(in_features, out_features)
        self.scale = scale
        self.eps = eps
        nn.init.normal_(self.weight, std=0.01)
        nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        """[N, in_features] -> [N, out_features]."""
        weight = self.weight / (self.weight.norm(dim=1, keepdim=True) + self.eps)
        direction = x / (x.norm(dim=1, keepdim=True) + self.eps)
        return nn.functional.linear(direction * self.scale, weight, self.bias)

    def extra_repr(self) -> str:
        """Sizes and scale, for printing."""
        return f"{super().extra_repr()}, scale={self.scale}"


def autocast_dtype(device: torch.device) -> torch.dtype | None:
    """The type of the mixed precision that is on for `device` where this is called, None where none is."""
    if not torch.amp.is_autocast_available(device.type) or not torch.is_autocast_enabled(device.type):
        return None
    return torch.get_autocast_dtype(device.type)
