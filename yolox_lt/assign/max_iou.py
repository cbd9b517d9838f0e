"""Assignment by fixed IoU thresholds, as in RetinaNet (Lin et al., Focal Loss for Dense Object Detection, section 4).

The rule for low-quality matches comes from Faster R-CNN (Ren et al., 2015, section 3.1.2). RetinaNet's paper does not
name it; it is on by default here, our choice.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from yolox_lt import boxes as box_ops
from yolox_lt.assign.base import BaseAssigner, Objects
from yolox_lt.errors import UserError
from yolox_lt.types import BACKGROUND, IGNORED, Assignment, Predictions, Priors

OBJECTS_PER_BLOCK = 16
"""Objects compared with all priors at once: with 201,600 priors one IoU matrix of a block takes 13 MB."""


@dataclass(frozen=True)
class MaxIoUAssigner(BaseAssigner):
    """The object of the highest IoU, if that is high enough.

    1. Objects of at most one pixel in width or height take no part.
    2. A prior's highest IoU over the objects decides: >= `pos_iou` positive for that object (the lowest index on
       equality), < `neg_iou` background, between the two ignored.
    3. With `low_quality`, every prior whose IoU with an object equals that object's largest IoU, and is above 0,
       becomes positive for that object, whatever step 2 said. A prior that is the best of several objects goes to the
       one with the highest IoU, the lowest index on equality. That step 3 takes a prior from another object, and who
       wins a conflict, are our choice: the papers leave both open.

    So an object can stay without a prior: if it touches none, or if it loses its best one to another object.

    Raises:
        UserError: unless 0 < neg_iou <= pos_iou <= 1.
    """

    pos_iou: float = 0.5
    neg_iou: float = 0.4
    low_quality: bool = True

    def __post_init__(self) -> None:
        if not 0 < self.neg_iou <= self.pos_iou <= 1:
            raise UserError(
                f"pos_iou is {self.pos_iou} and neg_iou is {self.neg_iou}: choose 0 < neg_iou <= pos_iou <= 1, "
                "for example 0.5 and 0.4."
            )

    @torch.no_grad()
    def assign_image(self, priors: Priors, objects: Objects, predictions: Predictions | None) -> Assignment:
        """Assign one image; `gt_boxes` are all that it looks at beside the priors.

        Returns:
            gt_index [P] with -1 for background and -2 for ignored priors; iou [P] with the assigned object, 0 where
            there is none.
        """
        num_priors, device = len(priors.boxes), priors.boxes.device
        legacy = float(priors.legacy)
        boxes = objects.boxes.reshape(-1, 4).to(device, torch.float32)
        usable = ((boxes[:, 2:] - boxes[:, :2] + legacy) > 1).all(dim=1).nonzero().squeeze(1)

        best_iou = torch.zeros(num_priors, device=device)
        best_index = torch.full((num_priors,), BACKGROUND, device=device)
        forced_iou, forced_index = best_iou, best_index
        for start in range(0, len(usable), OBJECTS_PER_BLOCK):
            index = usable[start : start + OBJECTS_PER_BLOCK]
            overlap = box_ops.pairwise_iou(boxes[index], priors.boxes, priors.legacy, min_union=legacy)  # [block, P]
            best_iou, best_index = keep_best(best_iou, best_index, overlap, index)
            if self.low_quality:
                overlap = overlap * (overlap == overlap.amax(dim=1, keepdim=True))
                forced_iou, forced_index = keep_best(forced_iou, forced_index, overlap, index)

        gt_index = torch.where(best_iou < self.neg_iou, BACKGROUND, IGNORED)
        gt_index = torch.where(best_iou >= self.pos_iou, best_index, gt_index)
        gt_index = torch.where(forced_index >= 0, forced_index, gt_index)
        iou = torch.where(forced_index >= 0, forced_iou, best_iou)
        return Assignment(gt_index, torch.where(gt_index >= 0, iou, 0.0))


def keep_best(best_iou: Tensor, best_index: Tensor, overlap: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
    """Take a further block of objects into the running best of each prior; earlier objects win on equality.

    best_iou: float [P]. best_index: int64 [P]. overlap: float [block, P]. index: int64 [block], ascending, the block's
    objects. Returns the new (best_iou, best_index).
    """
    iou, row = overlap.max(dim=0)  # the first row on equality
    better = iou > best_iou
    return torch.where(better, iou, best_iou), torch.where(better, index[row], best_index)
