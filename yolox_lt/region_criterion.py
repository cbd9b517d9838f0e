"""The losses of a two-stage detector: between its stages this chooses the regions that the second one is trained on.

Ren et al., Faster R-CNN (arXiv 1506.01497), section 3.1; Girshick, Fast R-CNN (arXiv 1504.08083), section 2.3; numbers
as in the two-stage systems of the EFL paper. Every normaliser is the rank's own.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from yolox_lt.assign import BalancedSampler, BaseAssigner, RoIAssigner
from yolox_lt.assign.base import Targets
from yolox_lt.coders import Coder
from yolox_lt.criterion import TrainingCriterion
from yolox_lt.losses import RegionLoss, bce_with_logits
from yolox_lt.models.two_stage import RegionPredictions
from yolox_lt.models.two_stage.rpn_head import RPN_CODER
from yolox_lt.types import BACKGROUND, Assignment, Priors

RANKS = 2**16
"""More than there are ranks: each has random numbers of its own."""


class Regions(NamedTuple):
    """The regions of one image that are trained on: positives, then negatives.

    boxes: float32 [R, 4]. labels: int64 [R], -1 background. objects: float32 [M, 4], those of the M positives.
    """

    boxes: Tensor
    labels: Tensor
    objects: Tensor


class TwoStageCriterion(TrainingCriterion):
    """RPN losses, then: propose, assign and sample, classify, and the second stage's losses.

    The random choices of a step are a function of the seed, the rank and `steps`, so a resumed run makes the same.

    Args:
        cls_loss: of the regions. coder: of the second stage's boxes.
        rpn_assigner, rpn_sampler: of anchors. roi_assigner, roi_sampler: of regions.
        cls_weight: factor on the regions' classification loss. seed: of the random choices.
    """

    cls_loss: RegionLoss
    steps: Tensor

    def __init__(
        self,
        cls_loss: RegionLoss,
        coder: Coder,
        rpn_assigner: BaseAssigner,
        rpn_sampler: BalancedSampler,
        roi_assigner: RoIAssigner,
        roi_sampler: BalancedSampler,
        cls_weight: float = 1.0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.cls_loss = cls_loss
        self.coder = coder
        self.rpn_assigner = rpn_assigner
        self.rpn_sampler = rpn_sampler
        self.roi_assigner = roi_assigner
        self.roi_sampler = roi_sampler
        self.cls_weight = cls_weight
        self.seed = seed
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def forward(
        self,
        predictions: RegionPredictions,
        priors: Priors,
        gt_boxes: list[Tensor],
        gt_labels: list[Tensor],
        image_sizes: list[tuple[int, int]],
    ) -> dict[str, Tensor]:
        """Losses by name; arguments as `BaseCriterion.forward`."""
        generator = self.next_generator()
        assigned = self.rpn_assigner.assign_batch(priors, Targets(gt_boxes, gt_labels, image_sizes))
        samples = [self.rpn_sampler(each.gt_index, generator) for each in assigned]
        losses = rpn_losses(predictions, priors, assigned, samples, gt_boxes)
        proposals = predictions.propose(image_sizes)
        regions = [
            self.choose(found.boxes, boxes, labels, generator)
            for found, boxes, labels in zip(proposals, gt_boxes, gt_labels)
        ]
        logits, deltas = predictions.classify([each.boxes for each in regions])
        labels = torch.cat([each.labels for each in regions])
        positive = (labels >= 0).nonzero().squeeze(1)
        boxes = torch.cat([each.boxes for each in regions])[positive]
        targets = self.coder.encode(boxes, torch.cat([each.objects for each in regions]))
        losses["cls"] = self.cls_weight * self.cls_loss.sampled(logits, labels, generator)
        losses["box"] = region_box_loss(deltas, labels, targets)
        return losses

    def choose(self, proposals: Tensor, gt_boxes: Tensor, gt_labels: Tensor, generator: torch.Generator) -> Regions:
        """Assign and sample the regions of one image: its objects and proposals [R, 4]."""
        gt_index = self.roi_assigner(proposals, gt_boxes).gt_index
        positive, negative = self.roi_sampler(gt_index, generator)
        boxes = torch.cat([gt_boxes, proposals])
        index = gt_index[positive]
        background = torch.full_like(negative, BACKGROUND)
        return Regions(
            boxes[torch.cat([positive, negative])], torch.cat([gt_labels[index], background]), gt_boxes[index]
        )

    def next_generator(self) -> torch.Generator:
        """The random numbers of the next training step of this rank."""
        rank = dist.get_rank() if dist.is_available() and dist.is_initialized() else 0
        number = (1_000_003 * self.seed + int(self.steps)) * RANKS + rank
        self.steps += 1
        return torch.Generator().manual_seed(number % 2**63)


def rpn_losses(
    predictions: RegionPredictions,
    priors: Priors,
    assigned: list[Assignment],
    samples: list[tuple[Tensor, Tensor]],
    gt_boxes: list[Tensor],
) -> dict[str, Tensor]:
    """Objectness by BCE over the sampled anchors, boxes by L1 on the positives' deltas.

    Both are divided by M = sum over the images of max(positives, 1) + max(negatives, 1).

    Args:
        predictions: of B images. samples: per image rows of positives and negatives, of `assigned`.
    """
    logits, deltas = predictions.cls_logits[..., 0].float(), predictions.box_deltas.float()
    total = sum(max(len(positive), 1) + max(len(negative), 1) for positive, negative in samples)
    objectness, box = logits.sum() * 0, deltas.sum() * 0
    for b, (positive, negative) in enumerate(samples):
        own = torch.cat([logits[b, positive], logits[b, negative]])
        target = torch.cat([torch.ones_like(own[: len(positive)]), torch.zeros_like(own[len(positive) :])])
        objectness = objectness + bce_with_logits(own, target).sum()
        objects = gt_boxes[b][assigned[b].gt_index[positive]]
        wanted = RPN_CODER.encode(priors.boxes[positive], objects)
        box = box + (deltas[b, positive] - wanted).abs().sum()
    return {"rpn_cls": objectness / total, "rpn_box": box / total}


def region_box_loss(deltas: Tensor, labels: Tensor, targets: Tensor) -> Tensor:
    """L1, summed over the positives' four deltas of their own category, over the number of all regions.

    Args:
        deltas: [N, 4C], or [N, 4] for one box a region. labels: int64 [N]. targets: [M, 4] of the positives in order.
    """
    rows = (labels >= 0).nonzero().squeeze(1)
    boxes = deltas.unflatten(1, (-1, 4))  # [N, 4C] -> [N, C, 4]
    column = labels[rows] if boxes.shape[1] > 1 else torch.zeros_like(rows)
    difference = boxes[rows, column] - targets
    dtype = torch.float64 if deltas.dtype == torch.float64 else torch.float32
    return difference.to(dtype).abs().sum() / max(len(labels), 1)
