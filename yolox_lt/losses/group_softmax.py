"""Balanced Group Softmax: categories compete only with those of about as many instances.

Li et al., Overcoming Classifier Imbalance for Long-tail Object Detection with Balanced Group Softmax (arXiv
2006.10408), section 4.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from yolox_lt.losses.region import RegionLoss


class GroupSoftmaxLoss(RegionLoss):
    """One softmax for each group of categories, with an "others" output in front, and one for foreground or background.

    Groups by training instances n: [0, bins[0]), [bins[0], bins[1]), ... In a category's own group a region's target is
    its slot; in the other groups, and everywhere for background, it is "others". Each group's cross entropy is over its
    own regions and at most int(others_ratio * own) others, divided by their number; a group without own regions
    contributes nothing; the last group uses all regions. Columns: others_0, group 0, others_1, group 1, ...,
    foreground, background. G = len(bins) + 2.

    Args:
        num_classes: C. instance_counts: training instances of each category, [C].
        bins: limits of the groups, ascending. others_ratio: see above.
    """

    category_column: Tensor
    others_column: Tensor
    group_of_category: Tensor

    def __init__(
        self,
        num_classes: int,
        instance_counts: Tensor | Sequence[int],
        bins: Sequence[int] = (10, 100, 1000),
        others_ratio: float = 8.0,
    ) -> None:
        super().__init__(num_classes)
        counts = torch.as_tensor(instance_counts)
        if counts.shape != (num_classes,):
            raise ValueError(f"expected a count for each of {num_classes} categories, got {tuple(counts.shape)}")
        self.others_ratio = others_ratio
        self.num_outputs = num_classes + len(bins) + 3
        group = torch.bucketize(counts, torch.tensor(list(bins)), right=True)  # a count at a limit is above it
        self.sizes: list[int] = [*torch.bincount(group, minlength=len(bins) + 1).tolist(), 1]
        """Categories of each group; the last one holds the background alone."""
        starts = [sum(self.sizes[:g]) + g for g in range(len(self.sizes))]
        column = torch.empty(num_classes, dtype=torch.int64)
        for g, start in enumerate(starts[:-1]):
            own = (group == g).nonzero().squeeze(1)
            column[own] = start + 1 + torch.arange(len(own))
        # Of the data, not of the run: a resumed run computes them again.
        self.register_buffer("category_column", column, persistent=False)
        self.register_buffer("others_column", torch.tensor(starts), persistent=False)
        self.register_buffer("group_of_category", group, persistent=False)

    def targets(self, labels: Tensor) -> Tensor:
        """Slot of every region in every group, 0 for others (in the last: foreground); int64 [G, N]."""
        groups = torch.arange(len(self.sizes), device=labels.device)[:, None]  # [G, 1]
        own = labels.clamp(min=0)
        slot = self.category_column[own] - self.others_column[self.group_of_category[own]]  # [N]
        inside = (labels >= 0) & (self.group_of_category[own] == groups)  # [G, N]
        target = torch.where(inside, slot, 0)
        target[-1] = (labels < 0).to(target.dtype)
        return target

    def select(self, labels: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Regions that count in each group, chosen again in every step: bool [G, N].

        generator: on the CPU; None for the default one.
        """
        target = self.targets(labels)
        selected = target > 0
        for chosen in selected[:-1]:
            others = (~chosen).nonzero().squeeze(1)
            wanted = min(int(self.others_ratio * int(chosen.sum())), len(others))
            if wanted < len(others):
                others = others[torch.randperm(len(others), generator=generator)[:wanted].to(others.device)]
            chosen[others] = True
        selected[-1] = True
        return selected

    def forward(self, logits: Tensor, labels: Tensor, selected: Tensor | None = None) -> Tensor:
        """Scalar loss of logits [N, C + G + 1] and labels [N]; selected: as `select` makes it, None to choose."""
        x = self.prepare(logits, labels)
        return self.group_losses(x, labels, self.select(labels) if selected is None else selected).sum()

    def sampled(self, logits: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        return self(logits, labels, self.select(labels, generator))

    def group_losses(self, logits: Tensor, labels: Tensor, selected: Tensor) -> Tensor:
        """The summands of the loss [G], in the precision of the logits."""
        with torch.autocast(logits.device.type, enabled=False):
            parts = [
                (F.cross_entropy(block, target, reduction="none") * chosen).sum() / chosen.sum().clamp(min=1)
                for block, target, chosen in zip(self.blocks(logits), self.targets(labels), selected)
            ]
            return torch.stack(parts)

    def blocks(self, logits: Tensor) -> list[Tensor]:
        """The columns of every group, others first: G matrices [N, 1 + size]."""
        return list(logits.split([1 + size for size in self.sizes], dim=1))

    def scores(self, logits: Tensor) -> Tensor:
        """Softmax inside each group times the foreground's share, and the background's share; not normalised again."""
        shares = torch.cat([block.softmax(dim=1) for block in self.blocks(logits)], dim=1)
        return torch.cat([shares[:, self.category_column] * shares[:, -2:-1], shares[:, -1:]], dim=1)
