"""Selection and NMS with the operations that a traced file can hold: the same result for whole batches at once.

Tracing keeps tensor operations alone: how many rows come out must not depend on the values, so rows that are no
candidates stay, with the score NONE, and of equal scores either may go first.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from yolox_lt.predict.select import NONE
from yolox_lt.types import BACKGROUND


def best_pairs(
    logits: Tensor, quality: Tensor, usable: Tensor, count: int, multi_label: bool, threshold: float
) -> tuple[Tensor, Tensor, Tensor]:
    """As `select.best_pairs`; count may be a traced number."""
    categories = logits.shape[2]
    best_logit, label = logits.max(dim=2)
    scores = (best_logit.sigmoid() * quality).masked_fill(~usable, NONE)
    # The best pairs are pairs of the priors whose best pair is highest: no need to sort all n * C.
    best, prior = scores.topk(count, dim=1)
    if not multi_label:
        label = label.gather(1, prior)
    else:
        pairs = logits.gather(1, prior[..., None].expand(-1, -1, categories)).sigmoid()  # [B, k, C]
        pairs = pairs * quality.gather(1, prior)[..., None]
        pairs = pairs.masked_fill(best[..., None] < 0, NONE)
        best, pair = pairs.flatten(1).topk(count, dim=1)  # [B, k, C] -> [B, k*C], pair = row * C + label
        prior, label = prior.gather(1, pair // categories), pair % categories
    return best.masked_fill(best < threshold, NONE), prior, label


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
    from torchvision.ops import nms  # takes seconds to load: a training starts without it

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
    # The operator takes scores above 0 (OpenCV refuses a threshold below 0); here a score of 0 is a candidate too.
    above = torch.where(scores >= 0, scores.clamp_min(torch.finfo(torch.float32).tiny), scores.new_tensor(0.0))
    spread = torch.where(labels[:, None] == categories, above[:, None], scores.new_tensor(0.0))  # [B, C, K]
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
            g.op("Constant", value_t=torch.tensor([0.0], dtype=torch.float32)),
        )


def best_first(boxes: Tensor, scores: Tensor, labels: Tensor, number: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The `number` best candidates in order, filled up with empty rows; a score below 0 is none.

    boxes [B, K, 4], scores [B, K], labels [B, K] -> boxes, scores, labels with K = `number`, count int64 [B].
    """
    padded = nn.functional.pad(scores, (0, number), value=NONE)  # there may be fewer candidates than rows
    best, row = padded.topk(number, dim=1)
    found = best >= 0
    row = row.masked_fill(~found, 0)
    return (
        boxes.gather(1, row[..., None].expand(-1, -1, 4)).masked_fill(~found[..., None], 0),
        best.masked_fill(~found, 0),
        labels.gather(1, row).masked_fill(~found, BACKGROUND),
        found.sum(dim=1),
    )
