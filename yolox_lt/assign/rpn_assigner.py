"""Which anchors of a region proposal network are objects (Ren et al., arXiv 1506.01497, section 3.1.2)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from yolox_lt import boxes as box_ops
from yolox_lt.assign.base import BaseAssigner, Objects
from yolox_lt.errors import UserError
from yolox_lt.types import BACKGROUND, IGNORED, Assignment, Predictions, Priors

OBJECTS_PER_BLOCK = 16
"""Objects compared with all anchors at once: with 243,000 anchors one IoU matrix of a block takes 16 MB."""

PAD_MULTIPLE = 32
"""An image's own padded size is its content rounded up to this."""


@dataclass(frozen=True)
class RPNAssigner(BaseAssigner):
    """IoU thresholds, and every object's best anchors.

    1. An anchor whose highest IoU (the lowest object on equality) is >= `pos_iou` is positive for that object, one
       below `neg_iou` background, between the two ignored.
    2. Objects in order: if an object's largest IoU is >= `min_iou`, all anchors that have exactly this IoU become its
       positives. Later objects overwrite earlier ones and step 1. An object that no anchor fits so well gets nothing.
    3. Anchors of cells beyond an image's own padded size, in a batch of mixed sizes, are ignored. Anchors that cross
       the border take part.

    As in the two-stage systems of the EFL paper; torchvision's rule has no minimum, and an anchor keeps its own best
    object. `MaxIoUAssigner` settles conflicts by the higher IoU.

    Raises:
        UserError: unless 0 < neg_iou <= pos_iou <= 1.
    """

    pos_iou: float = 0.7
    neg_iou: float = 0.3
    min_iou: float = 0.3

    def __post_init__(self) -> None:
        if not 0 < self.neg_iou <= self.pos_iou <= 1:
            raise UserError(
                f"pos_iou is {self.pos_iou} and neg_iou is {self.neg_iou}: choose 0 < neg_iou <= pos_iou <= 1, "
                "for example 0.7 and 0.3."
            )

    @torch.no_grad()
    def assign_image(self, priors: Priors, objects: Objects, predictions: Predictions | None) -> Assignment:
        boxes = objects.boxes.reshape(-1, 4).to(priors.boxes)
        best_iou = priors.boxes.new_zeros(len(priors.boxes))
        best_index = torch.full_like(best_iou, BACKGROUND, dtype=torch.int64)
        forced_iou, forced_index = best_iou, best_index
        for start in range(0, len(boxes), OBJECTS_PER_BLOCK):
            overlap = box_ops.pairwise_iou(boxes[start : start + OBJECTS_PER_BLOCK], priors.boxes)  # [block, P]
            iou, row = overlap.max(dim=0)  # the first row on equality
            better = iou > best_iou
            best_iou = torch.where(better, iou, best_iou)
            best_index = torch.where(better, row + start, best_index)
            largest = overlap.amax(dim=1, keepdim=True)
            forced = (overlap == largest) & (largest >= self.min_iou)
            number = torch.arange(1, len(overlap) + 1, device=overlap.device)[:, None]
            last = (forced * number).amax(dim=0)  # 1 + the last row that claims the anchor, 0 for none
            forced_index = torch.where(last > 0, last - 1 + start, forced_index)
            own = overlap.gather(0, (last - 1).clamp(min=0)[None])[0]
            forced_iou = torch.where(last > 0, own, forced_iou)
        gt_index = torch.where(best_iou < self.neg_iou, BACKGROUND, IGNORED)
        gt_index = torch.where(best_iou >= self.pos_iou, best_index, gt_index)
        gt_index = torch.where(forced_index >= 0, forced_index, gt_index)
        iou = torch.where(forced_index >= 0, forced_iou, best_iou)
        gt_index = gt_index.masked_fill(~inside_padding(priors, objects.size), IGNORED)
        return Assignment(gt_index, torch.where(gt_index >= 0, iou, 0.0))


def inside_padding(priors: Priors, image_size: tuple[int, int]) -> Tensor:
    """bool [P]: anchors of cells within the image's own padded size."""
    height, width = (-(-side // PAD_MULTIPLE) * PAD_MULTIPLE for side in image_size)
    parts = []
    for (rows, columns), stride in zip(priors.feature_sizes, priors.level_strides):
        cells = torch.zeros(rows, columns, priors.num_anchors, dtype=torch.bool, device=priors.boxes.device)
        cells[: -(-height // stride), : -(-width // stride)] = True
        parts.append(cells.flatten())  # [H, W, A] -> [H*W*A]
    return torch.cat(parts)
