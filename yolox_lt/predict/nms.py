"""Non-maximum suppression inside each category."""

from __future__ import annotations

from torch import Tensor
from torchvision.ops import nms


def category_nms(boxes: Tensor, scores: Tensor, labels: Tensor, threshold: float) -> Tensor:
    """Indices of the kept boxes, best score first; a box suppresses only boxes of its own label.

    boxes [N, 4] x1 y1 x2 y2, scores [N], labels int64 [N]. A box goes when its IoU with a better one is above
    `threshold`. Categories are kept apart by shifting the boxes in float64: with 1203 categories a float32 shift would
    leave coordinates a resolution of half a pixel.
    """
    if len(boxes) == 0:
        return labels.new_empty(0)
    shifted = boxes.double()
    span = shifted.max() - shifted.min() + 1
    return nms(shifted + (labels * span)[:, None], scores.double(), threshold)
