"""From boxes to features of one size: which level of a pyramid a box looks at, and RoIAlign there.

Lin et al., Feature Pyramid Networks (arXiv 1612.03144), Eq. 1; He et al., Mask R-CNN (arXiv 1703.06870), section 3.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

STRIDES = (4, 8, 16, 32)
"""Pixels between the cells of P2, P3, P4, P5."""

FINEST_SIDE = 56
"""sqrt(width * height) in pixels up to twice of which a box belongs to P2; each further level doubles it."""

BINS = 7
"""Rows and columns of an aligned feature."""


def roi_levels(boxes: Tensor) -> Tensor:
    """Level of each box [R, 4]: floor(log2(sqrt(w h) / 56 + 1e-6)) in 0..3 (P2..P5), int64 [R]."""
    width, height = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    level = torch.floor(torch.log2((width * height).sqrt() / FINEST_SIDE + 1e-6))
    return level.clamp(min=0, max=len(STRIDES) - 1).to(torch.int64)


def roi_align(maps: Sequence[Tensor], rois: Tensor) -> Tensor:
    """Features [R, K, 7, 7] of `rois` [R, 5] (image index, x1 y1 x2 y2 in input pixels), each from its own level.

    Averages of ceil(side / 7) bilinear samples per bin and axis, at half-pixel positions ("aligned").

    Args:
        maps: P2, P3, P4, P5, each [B, K, H, W] of strides 4, 8, 16, 32.
    """
    from torchvision.ops import roi_align as align  # slow to load

    level = roi_levels(rois[:, 1:])
    rows, parts = [], []
    for k, stride in enumerate(STRIDES):
        own = (level == k).nonzero().squeeze(1)
        rows.append(own)
        parts.append(align(maps[k], rois[own], BINS, spatial_scale=1 / stride, sampling_ratio=0, aligned=True))
    place = torch.cat(rows)  # feature i belongs to RoI place[i]
    order = torch.empty_like(place)
    order[place] = torch.arange(len(place), device=place.device)
    return torch.cat(parts)[order]
