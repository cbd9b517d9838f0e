"""From predictions and objects to a dict of losses. Owns the normalisers and their reduction over ranks.

Three recipes share the steps "assign, gather the positives": `Criterion` is the released models' (dense classification
loss, weighted GIoU, IoU or centre-ness branch), `RetinaNetCriterion` has no third branch and L1 on the deltas,
`YOLOXCriterion` is official YOLOX's (objectness everywhere, classes at positives only).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
import torch.distributed as dist
from torch import Tensor, nn

from yolox_lt import boxes as box_ops
from yolox_lt.assign.base import BaseAssigner, Targets
from yolox_lt.coders import Coder, category_logits
from yolox_lt.losses import (
    CategoryLoss,
    ClassificationLoss,
    SigmoidLoss,
    StepState,
    bce_with_logits,
    giou_loss,
    own_scores,
    square_iou_loss,
)
from yolox_lt.types import Assignment, Predictions, Priors


@dataclass
class Matches:
    """The positives of a batch, M in all, and the label of every prior.

    image, prior: int64 [M]. boxes: float32 [M, 4] of the objects. labels: int64 [B, P] with -1 background, -2 ignored.
    iou: float32 [M], the assigner's overlaps.
    """

    image: Tensor
    prior: Tensor
    boxes: Tensor
    labels: Tensor
    iou: Tensor


def gather_matches(assignments: list[Assignment], gt_boxes: list[Tensor], gt_labels: list[Tensor]) -> Matches:
    """Look up the matched objects of B images."""
    gt_index = torch.stack([a.gt_index for a in assignments])  # [B, P]
    image, prior = (gt_index >= 0).nonzero(as_tuple=True)
    counts = [len(b) for b in gt_boxes]
    first = torch.tensor([sum(counts[:i]) for i in range(len(counts))]).to(gt_index.device, non_blocking=True)
    row = first[image] + gt_index[image, prior]
    labels = gt_index.clone()
    labels[image, prior] = torch.cat(gt_labels).to(gt_index.device)[row]
    iou = torch.stack([a.iou for a in assignments])[image, prior]
    return Matches(image, prior, torch.cat(gt_boxes).to(gt_index.device)[row], labels, iou)


def world_mean(values: Tensor) -> Tensor:
    """Sum of each value over the ranks, floored at 1, divided by the number of ranks (reference normaliser)."""
    values = values.detach().clone()
    world = 1
    if dist.is_available() and dist.is_initialized():
        dist.all_reduce(values)
        world = dist.get_world_size()
    return values.clamp(min=1.0) / world


def centerness(priors: Tensor, boxes: Tensor, inset: float = 0.0) -> Tensor:
    """sqrt(min(l, r) / max(l, r) * min(t, b) / max(t, b)) in [0, 1] of the priors' points in their boxes (FCOS, Eq. 3).

    priors, boxes: plain [M, 4]. Points are the middles of the priors; the distances l, t, r, b to the sides are shorter
    by `inset` pixels, see `Priors.inset`. 0 for a point on a side.
    """
    point = (priors[:, :2] + priors[:, 2:]) / 2
    before, after = ((side - inset).clamp(min=0) for side in (point - boxes[:, :2], boxes[:, 2:] - point))
    ratio = torch.minimum(before, after) / torch.maximum(before, after).clamp(min=1e-6)
    return ratio.prod(dim=1).sqrt()


class TrainingCriterion(nn.Module):
    """What a training asks of a criterion: a call gives the losses by name, arguments as `BaseCriterion.forward`.

    use_l1: switched on by the trainer in the closing epochs of an experiment with l1 "tail".
    """

    cls_loss: CategoryLoss
    use_l1: bool = False

    def step_states(self) -> list[StepState]:
        """What is committed or discarded once per optimiser step: the statistics of the losses."""
        return [module for module in self.modules() if isinstance(module, StepState)]


class BaseCriterion(TrainingCriterion):
    """Assignment and the handling of the losses' gradient statistics; subclasses say what is summed.

    cls_weight: factor on the classification loss. As in the reference its statistic sees it: both sums grow by it,
    their ratio does not change.
    """

    cls_loss: ClassificationLoss

    def __init__(
        self, assigner: BaseAssigner, cls_loss: ClassificationLoss, coder: Coder, use_l1: bool, cls_weight: float = 1.0
    ) -> None:
        super().__init__()
        self.assigner = assigner
        self.cls_loss = cls_loss
        self.coder = coder
        self.use_l1 = use_l1
        self.cls_weight = cls_weight

    def forward(
        self,
        predictions: Predictions,
        priors: Priors,
        gt_boxes: list[Tensor],
        gt_labels: list[Tensor],
        image_sizes: list[tuple[int, int]],
    ) -> dict[str, Tensor]:
        """Losses by name, scalars whose sum is to be minimised.

        Args:
            predictions: of B images. priors: P priors, shared.
            gt_boxes: per image float32 [G, 4], plain. gt_labels: per image int64 [G].
            image_sizes: per image (height, width) of the content.
        """
        targets = Targets([priors.to_own(boxes) for boxes in gt_boxes], gt_labels, image_sizes)
        known = None
        if self.assigner.needs_predictions:
            boxes = priors.to_own(self.coder.decode(priors.plain(), predictions.box_deltas.detach()))
            scores = self.cls_loss.scores if own_scores(self.cls_loss) else None
            known = replace(predictions, cls_logits=category_logits(predictions.cls_logits, scores), boxes=boxes)
        assignments = self.assigner.assign_batch(priors, targets, known)
        return self.losses(predictions, priors, gather_matches(assignments, gt_boxes, gt_labels))

    def losses(self, predictions: Predictions, priors: Priors, matches: Matches) -> dict[str, Tensor]:
        """Losses by name, from the positives of the batch."""
        raise NotImplementedError

    def classification(self, predictions: Predictions, matches: Matches, iou: Tensor, normalizer: Tensor) -> Tensor:
        """The dense classification loss over all priors of the batch; iou [M] is the quality of the positives."""
        quality = torch.zeros(matches.labels.shape, device=iou.device)
        quality[matches.image, matches.prior] = iou
        return self.cls_loss(
            predictions.cls_logits.flatten(0, 1),  # [B, P, W] -> [B*P, W]
            matches.labels.flatten(),
            quality.flatten(),
            normalizer / self.cls_weight,
        )


class Criterion(BaseCriterion):
    """Classification, GIoU (+ L1) and quality branch, as in the released models.

    With G ranks, N = max(positives of all ranks, 1) / G and t the quality target of each positive: cls = cls_loss / N;
    box = box_weight sum t (1 - GIoU) / S with S = max(sum of t over ranks, 1) / G; quality = quality_weight
    sum BCE(t) / N; l1 = mean |delta - target| over the rank's own positives (the YOLOX models, all epochs).

    The soft target that QFL and EQFL give a positive's own category is always the IoU of its current prediction with
    its object.

    Args:
        target: "iou", t is that IoU (released models); "centerness", t is how central the prior's point lies in its
            object (FCOS, Eq. 3).
        box_weight, quality_weight, cls_weight: 1 in the released models.
    """

    def __init__(
        self,
        assigner: BaseAssigner,
        cls_loss: ClassificationLoss,
        coder: Coder,
        use_l1: bool = False,
        target: Literal["iou", "centerness"] = "iou",
        box_weight: float = 1.0,
        quality_weight: float = 1.0,
        cls_weight: float = 1.0,
    ) -> None:
        super().__init__(assigner, cls_loss, coder, use_l1, cls_weight)
        self.target = target
        self.box_weight = box_weight
        self.quality_weight = quality_weight

    def losses(self, predictions: Predictions, priors: Priors, matches: Matches) -> dict[str, Tensor]:
        prior_boxes = priors.plain()[matches.prior]
        deltas = predictions.box_deltas[matches.image, matches.prior].float()
        decoded = self.coder.decode(prior_boxes, deltas)
        iou = box_ops.iou(decoded.detach(), matches.boxes)
        target = iou if self.target == "iou" else centerness(prior_boxes, matches.boxes, priors.inset)
        normalizer, target_normalizer = world_mean(torch.stack([target.new_full((), len(target)), target.sum()]))
        giou = giou_loss(decoded, matches.boxes)
        losses = {
            "cls": self.classification(predictions, matches, iou, normalizer),
            "box": self.box_weight * (target * giou).sum() / target_normalizer,
        }
        if predictions.quality_logits is not None:
            logits = predictions.quality_logits[matches.image, matches.prior]
            losses["quality"] = self.quality_weight * bce_with_logits(logits, target).sum() / normalizer
        if self.use_l1:
            delta_target = self.coder.encode(prior_boxes, matches.boxes)
            losses["l1"] = (deltas - delta_target).abs().sum() / max(delta_target.numel(), 1)
        return losses


class RetinaNetCriterion(BaseCriterion):
    """RetinaNet's losses: classification and L1 on the box deltas, each sum divided by N of `Criterion`.

    Lin et al., Focal Loss for Dense Object Detection, section 4; plain L1 instead of smooth L1 is our choice.
    """

    def __init__(
        self, assigner: BaseAssigner, cls_loss: ClassificationLoss, coder: Coder, cls_weight: float = 1.0
    ) -> None:
        super().__init__(assigner, cls_loss, coder, use_l1=True, cls_weight=cls_weight)

    def losses(self, predictions: Predictions, priors: Priors, matches: Matches) -> dict[str, Tensor]:
        prior_boxes = priors.plain()[matches.prior]
        deltas = predictions.box_deltas[matches.image, matches.prior].float()
        iou = box_ops.iou(self.coder.decode(prior_boxes, deltas.detach()), matches.boxes)
        (normalizer,) = world_mean(iou.new_full((1,), len(iou)))
        difference = deltas - self.coder.encode(prior_boxes, matches.boxes)
        return {
            "cls": self.classification(predictions, matches, iou, normalizer),
            "box": difference.abs().sum() / normalizer,
        }


class YOLOXCriterion(BaseCriterion):
    """Official YOLOX's losses: 5 (1 - IoU^2), objectness and classes by BCE, L1 when `use_l1` (else 0).

    Every sum is divided by the positives of this rank, at least 1. The class target of a positive is the assigner's
    IoU.
    """

    box_weight = 5.0

    def __init__(self, assigner: BaseAssigner, coder: Coder, use_l1: bool = False, cls_weight: float = 1.0) -> None:
        super().__init__(assigner, SigmoidLoss(), coder, use_l1, cls_weight)

    def losses(self, predictions: Predictions, priors: Priors, matches: Matches) -> dict[str, Tensor]:
        if predictions.quality_logits is None:
            raise ValueError("YOLOXCriterion needs a head with objectness")
        prior_boxes = priors.plain()[matches.prior]
        deltas = predictions.box_deltas[matches.image, matches.prior].float()
        normalizer = max(len(matches.prior), 1)
        decoded = self.coder.decode(prior_boxes, deltas)
        objectness = torch.zeros(matches.labels.shape, device=deltas.device)
        objectness[matches.image, matches.prior] = 1.0
        own_labels = matches.labels[matches.image, matches.prior]
        losses = {
            "cls": self.cls_loss(
                predictions.cls_logits[matches.image, matches.prior],
                own_labels,
                matches.iou,
                normalizer / self.cls_weight,
            ),
            "box": self.box_weight * square_iou_loss(decoded, matches.boxes).sum() / normalizer,
            "obj": bce_with_logits(predictions.quality_logits, objectness).sum() / normalizer,
        }
        # Always present, so that the columns of a run's csv stay the same when the closing epochs switch it on.
        target = self.coder.encode(prior_boxes, matches.boxes)
        losses["l1"] = float(self.use_l1) * (deltas - target).abs().sum() / normalizer
        return losses
