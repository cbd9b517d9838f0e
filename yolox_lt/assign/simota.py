"""SimOTA, the dynamic assigner of official YOLOX (YOLOX: Exceeding YOLO Series in 2021, section 2.3)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from yolox_lt import boxes as box_ops
from yolox_lt.assign.base import BaseAssigner, Objects
from yolox_lt.types import BACKGROUND, Assignment, Predictions, Priors

OUTSIDE_COST = 1e6
"""Added to the cost of a prior outside an object's centre window: taken only when nothing else is left."""
ENTRIES_PER_BLOCK = 2**18
"""Class scores looked at at once: bounds the memory to a few MiB whatever the number of categories."""


@dataclass(frozen=True)
class SimOTAAssigner(BaseAssigner):
    """Cheapest priors of each object, as many as the sum of its best IoUs.

    1. Candidates: priors whose cell centre lies within `radius` strides of any object's centre, strictly.
    2. Cost of (object, candidate): BCE of sqrt(class score * objectness) against the object's one-hot class, plus
       `iou_weight` * -ln(IoU + 1e-8), plus 1e6 outside the object's own window.
    3. k of an object: the sum of its `topk` largest IoUs, rounded down, at least 1; it takes its k cheapest candidates,
       on equal cost those of lower index.
    4. A candidate taken by several objects goes to the object for which it is cheapest.

    The class cost is the sum over categories of the all-negative BCE, which no object changes, with the object's own
    category exchanged afterwards; so nothing with an axis of categories is ever kept.
    """

    needs_predictions: ClassVar[bool] = True

    radius: float = 1.5
    iou_weight: float = 3.0
    topk: int = 10

    @torch.no_grad()
    def assign_image(self, priors: Priors, objects: Objects, predictions: Predictions | None) -> Assignment:
        """Assign one image with priors of AnchorGrid with scales [1], from predictions with objectness.

        The image's size is not looked at.

        Raises:
            ValueError: without decoded predictions or objectness.
        """
        if predictions is None or predictions.boxes is None or predictions.quality_logits is None:
            raise ValueError("SimOTAAssigner needs predictions with decoded boxes and objectness logits")
        num_priors, gt_boxes = len(priors.boxes), objects.boxes
        gt_index = torch.full((num_priors,), BACKGROUND, device=priors.boxes.device)
        iou = torch.zeros(num_priors, device=priors.boxes.device)
        in_window = self.center_window(priors, gt_boxes)  # [G, P]
        candidates = in_window.any(dim=0).nonzero().squeeze(1)
        if len(gt_boxes) == 0 or len(candidates) == 0:
            return Assignment(gt_index, iou)
        overlap = box_ops.pairwise_iou(gt_boxes, predictions.boxes[candidates].float(), min_union=0.0)  # [G, M]
        cost = class_cost(predictions.cls_logits, predictions.quality_logits, candidates, objects.labels)  # [G, M]
        cost = cost + self.iou_weight * -torch.log(overlap + 1e-8) + OUTSIDE_COST * ~in_window[:, candidates]
        chosen = self.choose(cost, overlap)  # [G, M]
        taken = chosen.any(dim=0)
        owner = torch.where(chosen.sum(dim=0) > 1, cost.argmin(dim=0), chosen.int().argmax(dim=0))  # [M]
        gt_index[candidates[taken]] = owner[taken]
        iou[candidates[taken]] = overlap[owner[taken], taken.nonzero().squeeze(1)]
        return Assignment(gt_index, iou)

    def center_window(self, priors: Priors, gt_boxes: Tensor) -> Tensor:
        """[G, P] whether the centre of the prior's cell is strictly within `radius` strides of the object's centre."""
        points = (priors.boxes[:, :2] + priors.boxes[:, 2:]) / 2 + priors.strides[:, None] / 2  # corner -> cell centre
        centers = (gt_boxes[:, :2] + gt_boxes[:, 2:]) / 2
        reach = self.radius * priors.strides
        # One axis after the other: a [G, P, 2] table would be the largest of all.
        near_x, near_y = ((points[None, :, i] - centers[:, i, None]).abs() < reach for i in (0, 1))
        return near_x & near_y

    def choose(self, cost: Tensor, overlap: Tensor) -> Tensor:
        """[G, M] bool: each object's k cheapest candidates, before conflicts are settled."""
        largest = min(self.topk, overlap.shape[1])
        k = overlap.topk(largest, dim=1).values.sum(dim=1, keepdim=True).long().clamp(1, largest)  # [G, 1]
        last = cost.topk(largest, dim=1, largest=False).values.gather(1, k - 1)  # [G, 1] cost of the k-th cheapest
        cheaper, equal = cost < last, cost == last
        return cheaper | (equal & (equal.cumsum(dim=1) <= k - cheaper.sum(dim=1, keepdim=True)))


def class_cost(cls_logits: Tensor, objectness_logits: Tensor, candidates: Tensor, gt_labels: Tensor) -> Tensor:
    """BCE [G, M] of sqrt(class score * objectness) against each object's one-hot class, summed over classes.

    cls_logits [P, C], objectness_logits [P], of which `candidates` int64 [M] take part; gt_labels int64 [G].
    """
    objectness = objectness_logits[candidates].float()[:, None]  # [M, 1]
    block = max(ENTRIES_PER_BLOCK // cls_logits.shape[1], 1)
    parts = zip(candidates.split(block), objectness.split(block))
    all_negative = torch.cat([log_rest(cls_logits[rows].float(), o).sum(dim=1) for rows, o in parts])  # [M]
    own_logits = cls_logits[candidates[:, None], gt_labels].float()  # [M, G]
    # ln sqrt(a b) = (ln a + ln b) / 2 keeps tiny scores apart where the product would underflow.
    own_score = ((F.logsigmoid(own_logits) + F.logsigmoid(objectness)) / 2).clamp(min=-100)
    return -(all_negative[:, None] + own_score - log_rest(own_logits, objectness)).T  # [M, G] -> [G, M]


def log_rest(logits: Tensor, objectness_logits: Tensor) -> Tensor:
    """ln(1 - sqrt(score * objectness)), at least -100 as in torch's own binary cross entropy."""
    score = (logits.sigmoid() * objectness_logits.sigmoid()).sqrt_()
    return score.neg_().log1p_().clamp_(min=-100)
