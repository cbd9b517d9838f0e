"""The gradient statistic that steers EFL, EQFL and EQLv2: what each category has been pulled up and pushed down so far.

Equalized Focal Loss, section 3.2 and Eq. 6. As in the released models the sums hold the real gradient of the
classification loss, with alpha, weighting factor and normaliser, and never decay unless a horizon is given. The values
come from the closed form, so neither hooks nor loss scaling nor the order of backward calls can disturb them.
"""

from __future__ import annotations

import math

import torch
import torch.distributed as dist
from torch import Tensor, nn

from yolox_lt.losses.ratios import RatioRule, gradient_ratio


class StepState(nn.Module):
    """State of a loss that changes once an optimiser step: contributions of forward passes wait for `commit`.

    With `auto_commit` (the default) every contribution is committed at once. A trainer that accumulates batches, or may
    drop a step, sets it to False and calls `commit` or `discard` once per optimiser step; all ranks commit together.
    A subclass says in `change` what a contribution does; the sum over the batches and the ranks of the default process
    group comes there.

    skipped: int64 [], a buffer: contributions that were left out because they were not finite.
    """

    skipped: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.auto_commit = True
        self._pending: Tensor | None = None

    def empty_contribution(self) -> Tensor:
        """Zeros of the shape of a contribution."""
        raise NotImplementedError

    def change(self, contribution: Tensor, finite: Tensor) -> None:
        """Take a contribution into the state; zeros where `finite`, bool [] on the device, is False."""
        raise NotImplementedError

    def contribute(self, contribution: Tensor) -> None:
        """Take what one forward pass adds."""
        contribution = contribution.detach()
        self._pending = contribution if self._pending is None else self._pending + contribution
        if self.auto_commit:
            self.commit()

    def commit(self) -> None:
        """Change the state by what is pending; a contribution that is not finite changes nothing."""
        pending = self.empty_contribution() if self._pending is None else self._pending
        self._pending = None
        if dist.is_available() and dist.is_initialized():
            dist.all_reduce(pending)
        # The guard stays on the device: no synchronisation, and after the reduction every rank decides alike.
        finite = torch.isfinite(pending).all()
        self.change(torch.where(finite, pending, torch.zeros_like(pending)), finite)
        self.skipped += (~finite).to(self.skipped)

    def discard(self) -> None:
        """Forget what is pending, for a step that was dropped (an fp16 overflow)."""
        self._pending = None


class GradientBalance(StepState):
    """Per-category sums of absolute gradients and their ratio g.

    Buffers (saved with the criterion, never averaged): pos_grad, neg_grad float32 [C], zeros at the start; ratio
    float32 [C], `initial_ratio` at the start (1 for EFL, so that the first iteration is a plain focal loss).

    Args:
        num_classes: C.
        initial_ratio: ratio before the first contribution.
        rule: from the two sums to the ratio (EFL's by default).
        horizon: commits after which the sums have forgotten a contribution to 1/e; 0: never, as in the released models.
    """

    pos_grad: Tensor
    neg_grad: Tensor
    ratio: Tensor

    def __init__(
        self,
        num_classes: int,
        initial_ratio: float = 1.0,
        rule: RatioRule = gradient_ratio,
        horizon: int = 0,
    ) -> None:
        super().__init__()
        self.rule = rule
        self.keep = math.exp(-1 / horizon) if horizon else 1.0
        self.register_buffer("pos_grad", torch.zeros(num_classes))
        self.register_buffer("neg_grad", torch.zeros(num_classes))
        self.register_buffer("ratio", torch.full((num_classes,), float(initial_ratio)))
        self.register_buffer("skipped", torch.zeros((), dtype=torch.int64))

    def empty_contribution(self) -> Tensor:
        """Zeros [2, C]."""
        return torch.zeros_like(torch.stack([self.pos_grad, self.neg_grad]))

    def accumulate(self, pos: Tensor, neg: Tensor) -> None:
        """Take the sums of |dL/dlogit| over positive and negative entries of one forward pass, each [C]."""
        self.contribute(torch.stack([pos, neg]).to(self.pos_grad))

    def change(self, contribution: Tensor, finite: Tensor) -> None:
        """Forget by the horizon, add [2, C] to the running sums and renew the ratio."""
        kept = torch.where(finite, self.keep, 1.0)  # [], 1 without a horizon
        self.pos_grad *= kept
        self.neg_grad *= kept
        self.pos_grad += contribution[0]
        self.neg_grad += contribution[1]
        self.ratio.copy_(torch.where(finite, self.rule(self.pos_grad, self.neg_grad), self.ratio))

    def columns(self, focusing: Tensor, weight: Tensor) -> dict[str, Tensor]:
        """What the history keeps, each [C]: the sums, g, the exponent and the weight of negatives that g gives."""
        sums = {"pos_grad": self.pos_grad, "neg_grad": self.neg_grad, "ratio": self.ratio}
        return sums | {"focusing": focusing, "weight": weight}


class CategoryCounts(StepState):
    """How many regions of each category there were, over all ranks and steps: Seesaw's N.

    Buffers: counts float32 [C], zeros at the start; skipped stays 0. The loss needs the current step's regions of all
    ranks before the step ends, so ranks add them up in `including`, together, and `commit` adds nothing up.

    Args:
        num_classes: C.
    """

    counts: Tensor

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.register_buffer("counts", torch.zeros(num_classes))
        self.register_buffer("skipped", torch.zeros((), dtype=torch.int64))

    def including(self, labels: Tensor) -> Tensor:
        """The counts [C] with those of labels int64 [N] of all ranks; negative labels are left out."""
        new = torch.bincount(labels[labels >= 0], minlength=len(self.counts)).to(self.counts)
        if dist.is_available() and dist.is_initialized():
            dist.all_reduce(new)
        counts = self.counts + new if self._pending is None else self.counts + self._pending + new
        self.contribute(new)
        return counts

    def commit(self) -> None:
        """Keep what is pending."""
        if self._pending is not None:
            self.counts += self._pending
        self._pending = None
