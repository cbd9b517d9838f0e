"""Which proposals are objects, and which are trained on (Girshick, Fast R-CNN, arXiv 1504.08083, section 2.3)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from yolox_lt import boxes as box_ops
from yolox_lt.types import BACKGROUND, Assignment


@dataclass(frozen=True)
class RoIAssigner:
    """The best object of each region, if its IoU is at least `iou`, else background; nothing is ignored.

    The objects themselves stand in front of the proposals, each as a positive of its own.
    """

    iou: float = 0.5

    @torch.no_grad()
    def __call__(self, proposals: Tensor, gt_boxes: Tensor) -> Assignment:
        """Assign one image.

        Args:
            proposals: float32 [R, 4]. gt_boxes: float32 [G, 4].

        Returns:
            Of G objects followed by R proposals: gt_index int64 [G + R], iou float [G + R].
        """
        own = torch.arange(len(gt_boxes), device=proposals.device)
        if len(gt_boxes) == 0:
            index = torch.full((len(proposals),), BACKGROUND, device=proposals.device)
            return Assignment(index, proposals.new_zeros(len(proposals)))
        best, index = box_ops.pairwise_iou(gt_boxes, proposals).max(dim=0)  # the lowest object on equality
        positive = best >= self.iou
        return Assignment(
            torch.cat([own, torch.where(positive, index, BACKGROUND)]),
            torch.cat([torch.ones_like(own, dtype=best.dtype), torch.where(positive, best, 0.0)]),
        )


@dataclass(frozen=True)
class BalancedSampler:
    """At most `count` of the candidates, at most a share `positives` of them positive, both drawn uniformly.

    Positives are not repeated; negatives fill what they leave. 256 and 0.5 for the RPN, 512 and 0.25 for the RoIs.
    """

    count: int
    positives: float

    def __call__(self, gt_index: Tensor, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """Rows of `gt_index` int64 [P] (>= 0 positive, -1 background, -2 ignored): positives, negatives, int64 each.

        generator: on the CPU; None for the default one.
        """
        positive, negative = (gt_index >= 0).nonzero().squeeze(1), (gt_index == BACKGROUND).nonzero().squeeze(1)
        wanted = min(int(self.count * self.positives), len(positive))
        return (
            draw(positive, wanted, generator),
            draw(negative, min(self.count - wanted, len(negative)), generator),
        )


def draw(rows: Tensor, count: int, generator: torch.Generator | None) -> Tensor:
    """`count` different entries of `rows` in random order; all of them, as they are, where there are no more."""
    if count == len(rows):
        return rows
    # On the CPU, so that one seed gives one choice on every device.
    return rows[torch.randperm(len(rows), generator=generator)[:count].to(rows.device)]
