"""From the pixels of a batch to the input of a network; one module in training, evaluation, api and exported files."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Preprocessor(nn.Module):
    """BGR 0..255 -> the same as float (YOLOX), or RGB with mean and deviation taken out (ResNet); then resized.

    Traceable: positions are counted from the batch itself.

    Args:
        mean, std: three numbers each, RGB, of values in [0, 1]; None for pixels as they are.
        blank_padding: what lies outside of an image becomes zero, whatever its pixels.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        blank_padding: bool = False,
    ) -> None:
        super().__init__()
        self.normalizes = mean is not None and std is not None
        self.blank_padding = blank_padding
        if mean is not None and std is not None:
            self.register_buffer("mean", torch.tensor(mean)[:, None, None], persistent=False)
            self.register_buffer("std", torch.tensor(std)[:, None, None], persistent=False)

    def forward(
        self, images: Tensor, content_sizes: Tensor | None = None, size: tuple[int, int] | None = None
    ) -> Tensor:
        """uint8 or float [B, 3, H, W] BGR 0..255 -> float32 [B, 3, H, W], or [B, 3, *size] if a size is given.

        Args:
            content_sizes: int64 [B, 2], (height, width) of the image top-left in each; None: no padding.
            size: (height, width) to which the batch is resized, bilinear.
        """
        images = images.float()
        if self.normalizes:
            images = (images.flip(1) / 255 - self.mean) / self.std
        if self.blank_padding and content_sizes is not None:
            rows, columns = count(images[:1, :1, :, :1], 2), count(images[:1, :1, :1], 3)  # [1, 1, H, 1], [1, 1, 1, W]
            height, width = (content_sizes.to(images.device)[:, i, None, None, None] for i in (0, 1))  # [B, 1, 1, 1]
            images = images.masked_fill((rows >= height) | (columns >= width), 0)
        if size is None or images.shape[2:] == torch.Size(size):
            return images
        return F.interpolate(images, size=size, mode="bilinear", align_corners=False)


class FunctionPreprocessor(Preprocessor):
    """A function in place of the normalisation: uint8 [B, 3, H, W] and content sizes -> float [B, 3, H, W]."""

    def __init__(self, function: Callable[[Tensor, Tensor | None], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(
        self, images: Tensor, content_sizes: Tensor | None = None, size: tuple[int, int] | None = None
    ) -> Tensor:
        """As `Preprocessor`."""
        return super().forward(self.function(images, content_sizes), content_sizes, size)


def count(x: Tensor, dim: int) -> Tensor:
    """0, 1, 2, ... along an axis, in the shape and type of `x`."""
    return torch.ones_like(x).cumsum(dim) - 1
