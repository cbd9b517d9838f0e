"""The gradient statistic that steers EFL, EQFL and EQLv2: what each category has been pulled up and pushed down so far.

Equalized Focal Loss, section 3.2 and Eq. 6. As in the released models the sums hold the real gradient of the
classification loss, with alpha, weighting factor and normaliser, and never decay. The values come from the closed form,
so neither hooks nor loss scaling nor the order of backward calls can disturb them.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor, nn


class GradientBalance(nn.Module):
    """Per-category sums of absolute gradients and their ratio g.

    Buffers (saved with the criterion, never averaged): pos_grad, neg_grad float32 [C], zeros at the start; ratio
    float32 [C], `initial_ratio` at the start (1 for EFL, so that the first iteration is a plain focal loss); skipped
    int64 [], the number of contributions that were left out because they were not finite.

    A contribution is added to the running sums by `commit`, summed over the ranks of the default process group when
    there is one. With `auto_commit` (the default) every `accumulate` commits at once. A trainer that accumulates
    several micro-batches, or may drop an overflowing step, sets `auto_commit = False` and calls `commit` or `discard`
    once per optimiser step; all ranks must call `commit` together.

    Args:
        num_classes: C.
        initial_ratio: ratio before the first contribution.
        max_ratio: upper clamp of the ratio (1 in EFL), None for no clamp (EQLv2).
    """

    pos_grad: Tensor
    neg_grad: Tensor
    ratio: Tensor
    skipped: Tensor

    def __init__(self, num_classes: int, initial_ratio: float = 1.0, max_ratio: float | None = 1.0) -> None:
        super().__init__()
        self.max_ratio = max_ratio
        self.auto_commit = True
        self.register_buffer("pos_grad", torch.zeros(num_classes))
        self.register_buffer("neg_grad", torch.zeros(num_classes))
        self.register_buffer("ratio", torch.full((num_classes,), float(initial_ratio)))
        self.register_buffer("skipped", torch.zeros((), dtype=torch.int64))
        self._pending: Tensor | None = None

    def accumulate(self, pos: Tensor, neg: Tensor) -> None:
        """Take the sums of |dL/dlogit| over positive and negative entries of one forward pass, each [C]."""
        contribution = torch.stack([pos, neg]).detach().to(self.pos_grad)  # [2, C]
        self._pending = contribution if self._pending is None else self._pending + contribution
        if self.auto_commit:
            self.commit()

    def commit(self) -> None:
        """Add what is pending to the running sums and renew the ratio; a non-finite contribution changes nothing."""
        pending = self._pending
        if pending is None:
            pending = torch.zeros_like(torch.stack([self.pos_grad, self.neg_grad]))
        self._pending = None
        if dist.is_available() and dist.is_initialized():
            dist.all_reduce(pending)
        # The guard stays on the device: no synchronisation, and after the reduction every rank decides alike.
        finite = torch.isfinite(pending).all()
        pending = torch.where(finite, pending, torch.zeros_like(pending))
        self.pos_grad += pending[0]
        self.neg_grad += pending[1]
        ratio = (self.pos_grad / (self.neg_grad + 1e-10)).clamp(min=0.0, max=self.max_ratio)
        self.ratio.copy_(torch.where(finite, ratio, self.ratio))
        self.skipped += (~finite).to(self.skipped)

    def discard(self) -> None:
        """Forget what is pending, for a step that was dropped (an fp16 overflow)."""
        self._pending = None


class CategoryCounts(nn.Module):
    """How many regions of each category there were, over all ranks and steps: Seesaw's N.

    Buffers (saved with the criterion, never averaged): counts float32 [C], zeros at the start; skipped int64 [], always
    0. What a step adds is pending until `commit`; `auto_commit`, `commit` and `discard` as in `GradientBalance`.

    Args:
        num_classes: C.
    """

    counts: Tensor
    skipped: Tensor

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.auto_commit = True
        self.register_buffer("counts", torch.zeros(num_classes))
        self.register_buffer("skipped", torch.zeros((), dtype=torch.int64))
        self._pending: Tensor | None = None

    def including(self, labels: Tensor) -> Tensor:
        """Count labels int64 [N] (negative ones are left out) of all ranks, which call this together; the counts [C]
        with them.
        """
        new = torch.bincount(labels[labels >= 0], minlength=len(self.counts)).to(self.counts)
        if dist.is_available() and dist.is_initialized():
            dist.all_reduce(new)
        self._pending = new if self._pending is None else self._pending + new
        result = self.counts + self._pending
        if self.auto_commit:
            self.commit()
        return result

    def commit(self) -> None:
        """Keep what is pending."""
        if self._pending is not None:
            self.counts += self._pending
        self._pending = None

    def discard(self) -> None:
        """Forget what is pending, for a step that was dropped."""
        self._pending = None
