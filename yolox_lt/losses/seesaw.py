"""Seesaw loss: the push on a category is lessened by how rare it is, and raised where it is wrong.

Wang et al., Seesaw Loss for Long-Tailed Instance Segmentation (arXiv 2008.10032), Eq. 4 to 9.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from yolox_lt.losses.balance import CategoryCounts
from yolox_lt.losses.region import RegionLoss, divisor


class SeesawLoss(RegionLoss):
    """C category outputs z, then foreground and background outputs o.

    For a region of category i: S_ij = M_ij D_ij with M_ij = min((N_j / N_i)^p, 1), N cumulative numbers of regions (at
    least 1), and D_ij = max(s_j / max(s_i, eps), 1)^q, s the softmax of z; without gradient. Class loss: cross entropy
    of z_j + ln S_ij. L = (sum over foreground of class loss + sum over all of the 2-way cross entropy of o) / N.

    The current regions are counted before the loss is computed, over all ranks: our choice, since the reference counts
    each rank's own and saves those of rank 0. In training every rank has to call the loss in every step.

    Args:
        num_classes: C.
        p, q, eps: see above; p = 0 or q = 0 switch a factor off.
    """

    def __init__(self, num_classes: int, p: float = 0.8, q: float = 2.0, eps: float = 1e-2) -> None:
        super().__init__(num_classes)
        self.num_outputs = num_classes + 2
        self.p = p
        self.q = q
        self.eps = eps
        self.statistic = CategoryCounts(num_classes)

    @property
    def counts(self) -> Tensor:
        """Regions of each category so far, float [C]."""
        return self.statistic.counts

    def forward(self, logits: Tensor, labels: Tensor, normalizer: float | Tensor | None = None) -> Tensor:
        """Scalar loss of logits [N, C + 2] and labels [N]."""
        parts = self.parts(logits, labels, normalizer)
        return parts["class"] + parts["objectness"]

    def parts(self, logits: Tensor, labels: Tensor, normalizer: float | Tensor | None = None) -> dict[str, Tensor]:
        """The two summands of the loss, "class" and "objectness"."""
        x = self.prepare(logits, labels)
        counts = self.statistic.including(labels) if self.training else self.counts
        with torch.autocast(x.device.type, enabled=False):
            rows = (labels >= 0).nonzero().squeeze(1)
            z, own = x[rows, : self.num_classes], labels[rows]
            seesaw = self.log_factors(z.detach(), own, counts)
            total = divisor(labels, normalizer)
            objectness = F.cross_entropy(x[:, self.num_classes :], (labels < 0).long(), reduction="sum")
            return {
                "class": F.cross_entropy(z + seesaw, own, reduction="sum") / total,
                "objectness": objectness / total,
            }

    @torch.no_grad()
    def log_factors(self, z: Tensor, own: Tensor, counts: Tensor) -> Tensor:
        """ln S_ij of foreground regions [M, C]; 0 in the own column. z: [M, C]. own: int64 [M]. counts: [C]."""
        number = counts.to(z.dtype).clamp(min=1.0).log()  # [C]
        log_s = z.log_softmax(dim=1)
        reference = log_s.exp().gather(1, own[:, None]).clamp(min=self.eps).log()  # [M, 1]
        mitigation = self.p * (number - number[own, None]).clamp(max=0.0)
        compensation = self.q * (log_s - reference).clamp(min=0.0)
        return mitigation + compensation

    def category_state(self) -> dict[str, Tensor]:
        """Regions of each category so far, [C]."""
        return {"counts": self.counts}

    def scores(self, logits: Tensor) -> Tensor:
        """softmax(z)_c times the foreground's share, and the background's share; they sum to 1."""
        foreground, background = logits[:, self.num_classes :].softmax(dim=1).split(1, dim=1)
        return torch.cat([logits[:, : self.num_classes].softmax(dim=1) * foreground, background], dim=1)
