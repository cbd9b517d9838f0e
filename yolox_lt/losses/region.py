"""What the second stage's classification losses share: the sampled regions of one rank, one label each.

Call: loss(logits [N, num_outputs], labels int64 [N], normalizer) -> scalar, differentiable in the logits. Labels are
0..C-1 or -1 for background; nothing is ignored. `scores(logits)` -> [N, C + 1] in [0, 1], the background last.
"""

from __future__ import annotations

import torch
from torch import Tensor

from yolox_lt.losses.classification import CategoryLoss
from yolox_lt.types import BACKGROUND


class RegionLoss(CategoryLoss):
    """num_classes: C. num_outputs: width of the classifier.

    A subclass gives `forward` and `scores`; N is the rank's own number of regions, as in the reference: no normaliser
    crosses the ranks.
    """

    num_outputs: int

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.num_classes = num_classes

    def scores(self, logits: Tensor) -> Tensor:
        """[N, num_outputs] -> [N, C + 1] in [0, 1], background last."""
        raise NotImplementedError

    def sampled(self, logits: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        """The loss of a training step; a loss that chooses among the regions draws from `generator` (on the CPU)."""
        return self(logits, labels)

    def prepare(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The logits in float32 (float64 stays).

        Raises:
            ValueError: shapes that do not fit or a label outside -1..C-1.
        """
        if logits.ndim != 2 or logits.shape[1] != self.num_outputs or labels.shape != logits.shape[:1]:
            raise ValueError(
                f"expected logits [N, {self.num_outputs}] and labels [N], got {tuple(logits.shape)} and "
                f"{tuple(labels.shape)}"
            )
        # On a GPU this check would wait for the device; the data set has checked the labels already.
        if labels.device.type == "cpu" and len(labels):
            low, high = int(labels.min()), int(labels.max())
            if low < BACKGROUND or high >= self.num_classes:
                raise ValueError(f"labels must be in -1..{self.num_classes - 1}, got {low}..{high}")
        return logits if logits.dtype == torch.float64 else logits.float()


def divisor(labels: Tensor, normalizer: float | Tensor | None) -> float | Tensor:
    """What a sum over the regions is divided by: the normaliser, else their number, at least 1."""
    return max(len(labels), 1) if normalizer is None else normalizer


def background_last(labels: Tensor, num_classes: int) -> Tensor:
    """Labels with -1 as the column C."""
    return torch.where(labels < 0, num_classes, labels)


def one_hot(labels: Tensor, columns: int, dtype: torch.dtype) -> Tensor:
    """[N, columns] with 1 in the column of each label; a row of zeros for a label outside 0..columns-1."""
    return (labels[:, None] == torch.arange(columns, device=labels.device)).to(dtype)  # [N, 1] x [columns]
