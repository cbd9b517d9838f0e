"""Assignment of FCOS: points inside an object's centre, on the level that fits its size.

Tian et al., FCOS: Fully Convolutional One-Stage Object Detection (2019), sections 3.1 and 3.2. Centre sampling is one
of the later improvements of FCOS that Zhang et al. (the ATSS paper) list.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from yolox_lt import boxes as box_ops
from yolox_lt.assign.base import BaseAssigner, Objects
from yolox_lt.errors import UserError
from yolox_lt.types import BACKGROUND, Assignment, Predictions, Priors

OBJECTS_PER_BLOCK = 16
"""Objects compared with all points at once; bounds the memory whatever the number of objects."""


@dataclass(frozen=True)
class FCOSAssigner(BaseAssigner):
    """One point a cell, the smallest object that it lies in the middle of.

    A prior's point is the mean of its corners. With l, t, r, b the distances from the point to the object's left, top,
    right and bottom corner coordinates (the plain ones, also in the legacy convention, as in ATSSAssigner):

    1. Objects of at most one pixel in width or height take no part.
    2. The point lies strictly inside the object, and in x and y strictly within `radius` strides of its centre: the
       centre window is cut by the object itself.
    3. max(l, t, r, b) lies in [lower, upper] of the prior's level, both included. `ranges` are the borders between the
       levels in pixels; the first level starts at 0, the last one has no end.
    4. A point wanted by several objects goes to the one with the smallest area, the lowest index on equality.

    An object between two points, or between the reach of its level's points, gets nothing: there is no fall-back.

    Raises:
        UserError: ranges that do not increase.
    """

    radius: float = 1.5
    ranges: tuple[float, ...] = (64, 128, 256, 512)

    def __post_init__(self) -> None:
        if any(a >= b for a, b in zip(self.ranges, self.ranges[1:])):
            raise UserError(f"ranges are {self.ranges}: give sizes in pixels that increase, for example 64, 128.")

    @torch.no_grad()
    def assign_image(self, priors: Priors, objects: Objects, predictions: Predictions | None) -> Assignment:
        """Assign one image; `gt_boxes` and `priors`, one a cell, are all that it looks at.

        Returns:
            gt_index [P]; iou [P] is 0 everywhere, as no overlap is used.

        Raises:
            ValueError: several priors per cell, or not one border between each two levels.
        """
        if priors.num_anchors != 1:
            raise ValueError(f"FCOSAssigner needs one prior per cell, not {priors.num_anchors}")
        num_priors, device = len(priors.boxes), priors.boxes.device
        lower, upper = self.limits(priors)
        boxes = objects.boxes.reshape(-1, 4).to(device, torch.float32)
        usable = ((boxes[:, 2:] - boxes[:, :2] + float(priors.legacy)) > 1).all(dim=1).nonzero().squeeze(1)
        points = (priors.boxes[:, :2] + priors.boxes[:, 2:]) / 2
        reach = self.radius * priors.strides

        best_area = torch.full((num_priors,), math.inf, device=device)
        gt_index = torch.full((num_priors,), BACKGROUND, device=device)
        for start in range(0, len(usable), OBJECTS_PER_BLOCK):
            index = usable[start : start + OBJECTS_PER_BLOCK]
            block = boxes[index][:, None]  # [block, 1, 4]
            sides = torch.cat([points - block[..., :2], block[..., 2:] - points], dim=-1)  # [block, P, 4] l t r b
            distance = (
                (points - (block[..., :2] + block[..., 2:]) / 2).abs().amax(dim=-1)
            )  # [block, P, 2] -> [block, P]
            longest = sides.amax(dim=-1)
            positive = (sides.amin(dim=-1) > 0) & (distance < reach) & (longest >= lower) & (longest <= upper)
            area, row = torch.where(positive, box_ops.area(block, priors.legacy), math.inf).min(dim=0)
            smaller = area < best_area  # the earlier object stays on equality
            best_area = torch.where(smaller, area, best_area)
            gt_index = torch.where(smaller, index[row], gt_index)
        return Assignment(gt_index, torch.zeros(num_priors, device=device))

    def limits(self, priors: Priors) -> tuple[Tensor, Tensor]:
        """Smallest and largest max(l, t, r, b) of each prior's level, float32 [P] in pixels."""
        levels = len(priors.level_sizes)
        if len(self.ranges) != levels - 1:
            raise ValueError(f"FCOSAssigner has {len(self.ranges)} ranges for {levels} levels, not {levels - 1}")
        borders = torch.tensor([0.0, *self.ranges, math.inf])
        level = torch.repeat_interleave(torch.arange(levels), torch.tensor(priors.level_sizes))  # [P]
        device = priors.boxes.device
        return borders[level].to(device), borders[level + 1].to(device)
