"""Non-maximum suppression inside each category."""

from __future__ import annotations

from torch import Tensor


def category_nms(boxes: Tensor, scores: Tensor, labels: Tensor, threshold: float, limit: int | None = None) -> Tensor:
    """Indices of the kept boxes, best score first; a box suppresses only boxes of its own label.

    boxes [N, 4] x1 y1 x2 y2, scores [N], labels int64 [N]. A box goes when its IoU with a better one is above
    `threshold`; of equal scores the lower index is the better. At most the first `limit` kept boxes are returned.

    Categories are kept apart by shifting the boxes in float64: with 1203 categories a float32 shift would leave
    coordinates a resolution of half a pixel.
    """
    from torchvision.ops import nms  # takes seconds to load: a training starts without it

    if len(boxes) == 0:
        return labels.new_empty(0)
    order = scores.argsort(descending=True, stable=True)
    shifted = boxes[order].double()
    span = shifted.max() - shifted.min() + 1
    shifted, scores = shifted + (labels[order] * span)[:, None], scores[order].double()
    # What is kept of the best n boxes does not depend on the others, and NMS takes time as n^2.
    limit = len(boxes) if limit is None else limit
    n = 2 * limit
    while len(keep := nms(shifted[:n], scores[:n], threshold)) < limit and n < len(boxes):
        n *= 2
    return order[keep[:limit]]
