"""Box arithmetic: conversion, area, IoU, GIoU, clipping, scaling. Imports nothing of ours.

Boxes are x1 y1 x2 y2 in pixels unless a name says otherwise. Two conventions exist (as in the released models):
`legacy=True` counts pixels, width = x2 - x1 + 1 (ResNet models); `legacy=False` is continuous, width = x2 - x1 (YOLOX).
Every function returns new tensors and works in the dtype it is given.
"""

from __future__ import annotations

import torch
from torch import Tensor


def xywh_to_xyxy(boxes: Tensor) -> Tensor:
    """[N, 4] x y width height -> x1 y1 x2 y2 (continuous)."""
    return torch.cat([boxes[..., :2], boxes[..., :2] + boxes[..., 2:]], dim=-1)


def xyxy_to_xywh(boxes: Tensor) -> Tensor:
    """[N, 4] x1 y1 x2 y2 -> x y width height (continuous)."""
    return torch.cat([boxes[..., :2], boxes[..., 2:] - boxes[..., :2]], dim=-1)


def cxcywh_to_xyxy(boxes: Tensor) -> Tensor:
    """[N, 4] centre x, centre y, width, height -> x1 y1 x2 y2 (continuous)."""
    half = boxes[..., 2:] / 2
    return torch.cat([boxes[..., :2] - half, boxes[..., :2] + half], dim=-1)


def xyxy_to_cxcywh(boxes: Tensor) -> Tensor:
    """[N, 4] x1 y1 x2 y2 -> centre x, centre y, width, height (continuous)."""
    return torch.cat([(boxes[..., :2] + boxes[..., 2:]) / 2, boxes[..., 2:] - boxes[..., :2]], dim=-1)


def area(boxes: Tensor, legacy: bool = False) -> Tensor:
    """Area [...] in square pixels of boxes [..., 4]."""
    size = boxes[..., 2:] - boxes[..., :2] + float(legacy)
    return size[..., 0] * size[..., 1]


def clip(boxes: Tensor, image_size: tuple[int, int]) -> Tensor:
    """Clip boxes [..., 4] to an image of (height, width): to [0, W] x [0, H]."""
    height, width = image_size
    return torch.minimum(boxes.clamp(min=0), boxes.new_tensor([width, height, width, height]))


def scale(boxes: Tensor, factor_x: float, factor_y: float) -> Tensor:
    """Multiply the x coordinates of boxes [..., 4] by `factor_x` and the y coordinates by `factor_y`."""
    return boxes * boxes.new_tensor([factor_x, factor_y, factor_x, factor_y])


def _intersection(a: Tensor, b: Tensor, legacy: bool) -> Tensor:
    """Intersection area of broadcastable boxes [..., 4], never negative."""
    size = torch.minimum(a[..., 2:], b[..., 2:]) - torch.maximum(a[..., :2], b[..., :2]) + float(legacy)
    size = size.clamp(min=0)
    return size[..., 0] * size[..., 1]


def iou(a: Tensor, b: Tensor, legacy: bool = False, min_union: float = 1e-6) -> Tensor:
    """IoU [...] of broadcastable boxes [..., 4], element by element; the union is floored at `min_union`.

    As in the released models the floor is 1e-6 for quality targets and, inside the assigner, 1 (legacy) or 0.
    Two boxes without area have IoU 0, also with a floor of 0.
    """
    inter = _intersection(a, b, legacy)
    union = (area(a, legacy) + area(b, legacy) - inter).clamp(min=min_union)
    return torch.where(inter > 0, inter / union, torch.zeros_like(inter))


def pairwise_iou(a: Tensor, b: Tensor, legacy: bool = False, min_union: float = 1e-6) -> Tensor:
    """IoU matrix [N, M] of boxes [N, 4] and [M, 4]."""
    return iou(a[:, None], b[None], legacy, min_union)  # [N, 1, 4] x [1, M, 4] -> [N, M]


def giou(a: Tensor, b: Tensor, legacy: bool = False, min_union: float = 1.0) -> Tensor:
    """Generalised IoU [...] in [-1, 1] of boxes [..., 4], element by element, differentiable.

    GIoU = IoU - (E - U) / E with E the area of the enclosing box plus 1e-9 and U the union. Inside IoU the union is
    floored at `min_union`: one square pixel, as in the released models.
    """
    inter = _intersection(a, b, legacy)
    union = area(a, legacy) + area(b, legacy) - inter
    size = torch.maximum(a[..., 2:], b[..., 2:]) - torch.minimum(a[..., :2], b[..., :2]) + float(legacy)
    enclosing = size[..., 0] * size[..., 1] + 1e-9
    return inter / union.clamp(min=min_union) - (enclosing - union) / enclosing
