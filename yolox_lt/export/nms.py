"""Non-maximum suppression inside each category, for a batch, inside a traced network."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torchvision.ops import nms


def keep_mask(
    boxes: Tensor, scores: Tensor, labels: Tensor, num_classes: int, threshold: float, max_per_class: int
) -> Tensor:
    """Which candidates stay; one goes when its IoU with a better one of its image and category is above `threshold`.

    boxes [B, K, 4] x1 y1 x2 y2, scores [B, K] (below 0: no candidate), labels int64 [B, K] -> bool [B, K].

    Categories are kept apart without moving boxes in float32, as in `category_nms`: ONNX's operator takes a score for
    every category, elsewhere boxes are moved in float64. `max_per_class` may limit what is kept of a category.
    """
    if torch.onnx.is_in_onnx_export():
        kept = onnx_kept(boxes, scores, labels, num_classes, threshold, max_per_class)
    else:
        kept = torchvision_kept(boxes, scores, labels, num_classes, threshold)
    flat = torch.zeros_like(scores).flatten()  # [B, K] -> [B*K]
    return flat.scatter(0, kept, torch.ones_like(kept, dtype=flat.dtype)).reshape(scores.shape) > 0  # [B*K] -> [B, K]


def torchvision_kept(boxes: Tensor, scores: Tensor, labels: Tensor, num_classes: int, threshold: float) -> Tensor:
    """Indices int64 [n] into the flattened candidates [B*K]."""
    candidate = (scores >= 0).flatten().nonzero().squeeze(1)
    image = torch.ones_like(labels).cumsum(0) - 1  # [B, K]
    groups = (labels + image * num_classes).flatten()[candidate]
    shifted = boxes.double().masked_fill(scores[..., None] < 0, 0)
    span = shifted.max() - shifted.min() + 1
    shifted = shifted.flatten(0, 1)[candidate] + (groups * span)[:, None]  # [B, K, 4] -> [B*K, 4] -> [n, 4]
    return candidate[nms(shifted, scores.flatten()[candidate].double(), threshold)]


def onnx_kept(
    boxes: Tensor, scores: Tensor, labels: Tensor, num_classes: int, threshold: float, max_per_class: int
) -> Tensor:
    """The same from ONNX's operator. Its scores [B, C, K] take less memory than the logits [B, P, C]: K <= P."""
    categories = torch.arange(num_classes, device=labels.device)[None, :, None]
    spread = torch.where(labels[:, None] == categories, scores[:, None], scores.new_tensor(-1.0))  # [B, C, K]
    # The operator swaps corners in the wrong order; in the legacy convention such boxes exist and overlap nothing.
    ordered = torch.cat([boxes[..., :2], torch.maximum(boxes[..., :2], boxes[..., 2:])], dim=-1)
    selected = _NonMaxSuppression.apply(ordered, spread, threshold, max_per_class)  # [n, 3] image, category, candidate
    return selected[:, 0] * scores.shape[1] + selected[:, 2]


class _NonMaxSuppression(torch.autograd.Function):
    """ONNX's NonMaxSuppression: boxes [B, K, 4], scores [B, C, K] -> int64 [n, 3] (image, category, candidate)."""

    @staticmethod
    def forward(ctx: Any, boxes: Tensor, scores: Tensor, threshold: float, max_per_class: int) -> Tensor:
        return torch.zeros(1, 3, dtype=torch.int64)  # while tracing only type and number of axes matter

    @staticmethod
    def symbolic(g: Any, boxes: Any, scores: Any, threshold: float, max_per_class: int) -> Any:
        return g.op(
            "NonMaxSuppression",
            boxes,
            scores,
            g.op("Constant", value_t=torch.tensor([max_per_class])),
            g.op("Constant", value_t=torch.tensor([threshold], dtype=torch.float32)),
            g.op("Constant", value_t=torch.tensor([-0.5], dtype=torch.float32)),  # scores below are no candidates
        )
