"""Adaptive training sample selection (ATSS) over several anchors a cell, as in the released EFL models.

Zhang et al., Bridging the Gap Between Anchor-based and Anchor-free Detection, Algorithm 1; differences of the released
models are marked. Per object:

1. Objects of at most one pixel in width or height take no part (released).
2. Their centre is clamped to the image (released).
3. Candidates: on each level the `topk` priors whose centres are nearest. All A priors of a cell share its point, so
   topk = 18 with A = 2 are the nine nearest cells; on equal distance the lower index wins.
4. Threshold: mean plus standard deviation (divisor n - 1) of the candidates' IoUs, all levels together.
5. Positive: IoU >= threshold and the prior's point more than 0.01 pixels inside the object.
6. A prior wanted by several objects goes to the one with the highest IoU, the first on equality.

There is no fall-back: an object may end up without any prior.

The nearest cells are found by arithmetic. On a regular grid the n cells nearest to a point lie among its n nearest
columns and n nearest rows, so a window of (n + 1)^2 cells is searched whatever the size of the image, and the objects
of all images of a batch are treated together.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from yolox_lt import boxes as box_ops
from yolox_lt.assign.base import BaseAssigner, Targets
from yolox_lt.types import BACKGROUND, Assignment, Predictions, Priors

MIN_INSIDE = 0.01
"""A prior's point must lie at least this many pixels inside its object."""


@dataclass(frozen=True)
class ATSSAssigner(BaseAssigner):
    """ATSS with `topk` candidate priors per level and object (18 in the released models: nine cells, two anchors)."""

    topk: int = 18

    @torch.no_grad()
    def assign_batch(
        self, priors: Priors, targets: Targets, predictions: Predictions | None = None
    ) -> list[Assignment]:
        """The same for B images at once."""
        gt_boxes, _, image_sizes = targets
        num_images, num_priors = len(gt_boxes), len(priors.boxes)
        device = priors.boxes.device
        boxes = torch.cat([b.reshape(-1, 4) for b in gt_boxes]).to(device, torch.float32)  # [G, 4] of all images
        counts = torch.tensor([len(b) for b in gt_boxes])
        image_of = torch.repeat_interleave(torch.arange(num_images), counts).to(device)
        index_of = torch.cat([torch.arange(int(n)) for n in counts]).to(device)
        sizes = torch.tensor(image_sizes, dtype=torch.float32)[:, [1, 0]].to(device)[image_of]  # [G, 2] width, height
        usable = ((boxes[:, 2:] - boxes[:, :2] + float(priors.legacy)) > 1).all(dim=1)
        boxes, image_of, index_of, sizes = boxes[usable], image_of[usable], index_of[usable], sizes[usable]

        centers = torch.minimum(((boxes[:, :2] + boxes[:, 2:]) / 2).clamp(min=0), sizes)
        candidates = self.candidates(priors, centers)  # [G, K]
        overlap = box_ops.iou(
            priors.boxes[candidates], boxes[:, None], priors.legacy, min_union=float(priors.legacy)
        )  # [G, K, 4] x [G, 1, 4] -> [G, K]
        # Written out: torch.std warns when there is no object at all.
        mean = overlap.mean(dim=1)
        deviation = ((overlap - mean[:, None]) ** 2).sum(dim=1).div(overlap.shape[1] - 1).sqrt()
        threshold = mean + deviation
        positive = (overlap >= threshold[:, None]) & inside(priors.boxes[candidates], boxes[:, None])
        pair_gt, pair_column = positive.nonzero(as_tuple=True)
        slot = image_of[pair_gt] * num_priors + candidates[pair_gt, pair_column]  # prior within the whole batch
        gt_index, iou = best_object(slot, index_of[pair_gt], overlap[pair_gt, pair_column], num_images * num_priors)
        return [
            Assignment(g, i) for g, i in zip(gt_index.view(num_images, num_priors), iou.view(num_images, num_priors))
        ]

    def candidates(self, priors: Priors, centers: Tensor) -> Tensor:
        """Indices [G, K] of the nearest priors of each level, nearest first; K is the sum of min(topk, level size)."""
        found, first = [], 0
        for (rows, columns), stride, size in zip(priors.feature_sizes, priors.level_strides, priors.level_sizes):
            origin = (priors.boxes[first, :2] + priors.boxes[first, 2:]) / 2
            cells = nearest_cells(centers, origin, stride, rows, columns, -(-self.topk // priors.num_anchors))
            anchors = torch.arange(priors.num_anchors, device=cells.device)
            level = (cells[:, :, None] * priors.num_anchors + anchors).flatten(1)  # [G, n, A] -> [G, n*A]
            found.append(first + level[:, : min(self.topk, size)])
            first += size
        return torch.cat(found, dim=1)


def nearest_cells(centers: Tensor, origin: Tensor, stride: float, rows: int, columns: int, n: int) -> Tensor:
    """Indices [G, min(n, rows * columns)] of the cells nearest to each of `centers` [G, 2], nearest first.

    Cell (i, j) has its point at origin + stride * (j, i) and the index i * columns + j; equal distances go by index.
    """
    height, width = min(n + 1, rows), min(n + 1, columns)
    position = (centers - origin) / stride  # in cells: x, y
    start = torch.ceil(position - n / 2)
    column = start[:, :1].clamp(0, columns - width) + torch.arange(width, device=centers.device)  # [G, width]
    row = start[:, 1:].clamp(0, rows - height) + torch.arange(height, device=centers.device)  # [G, height]
    dx = centers[:, :1] - (origin[0] + column * stride)
    dy = centers[:, 1:] - (origin[1] + row * stride)
    distance = torch.sqrt(dx[:, None, :] ** 2 + dy[:, :, None] ** 2).flatten(
        1
    )  # [G, height, width] -> [G, height*width]
    index = (row[:, :, None] * columns + column[:, None, :]).flatten(1).long()
    # Row-major windows are in index order, so a stable sort lets the lower index win.
    order = torch.sort(distance, dim=1, stable=True).indices[:, : min(n, rows * columns)]
    return index.gather(1, order)


def inside(priors: Tensor, boxes: Tensor) -> Tensor:
    """Whether the points of `priors` [..., 4] lie inside `boxes` [..., 4] by more than MIN_INSIDE."""
    points = (priors[..., :2] + priors[..., 2:]) / 2
    margins = torch.cat([points - boxes[..., :2], boxes[..., 2:] - points], dim=-1)
    return margins.amin(dim=-1) > MIN_INSIDE


def best_object(slot: Tensor, gt_index: Tensor, iou: Tensor, num_slots: int) -> tuple[Tensor, Tensor]:
    """Give each slot the object with the highest IoU among its candidates, the lowest index on equality.

    slot, gt_index, iou: one entry per (prior, object) pair. Returns (gt_index int64 [num_slots], iou [num_slots]).
    """
    best_iou = iou.new_zeros(num_slots).scatter_reduce_(0, slot, iou, "amax")
    is_best = iou == best_iou[slot]
    none = torch.iinfo(torch.int64).max
    best_index = torch.full((num_slots,), none, device=slot.device)
    best_index.scatter_reduce_(0, slot[is_best], gt_index[is_best], "amin")
    return torch.where(best_index == none, BACKGROUND, best_index), best_iou
