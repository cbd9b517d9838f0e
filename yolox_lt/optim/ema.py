"""Exponential moving average of the weights."""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor, nn


class ModelEMA:
    """ema = d ema + (1 - d) model with d = decay (1 - exp(-n / ramp)) at update n.

    Every floating parameter and buffer is averaged, BatchNorm statistics included; integer buffers keep their value
    from the start. Only the model is averaged, never the criterion.

    The tensors are looked up once, which takes as long as averaging them: the followed model must keep its own, as it
    does while it is trained, and not be moved to another device after the first update.

    Args:
        model: to be followed; the average starts as a copy.
        decay: final decay.
        first: number of the first update: 0 in the released EFL models (it copies the model), 1 in official YOLOX.
        ramp: updates over which the decay rises to its final value.
    """

    def __init__(self, model: nn.Module, decay: float = 0.9998, first: int = 1, ramp: float = 2000.0) -> None:
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self.decay = decay
        self.next = first
        self.ramp = ramp
        self.ours = self.floats(self.model)
        self.followed: nn.Module | None = None

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Move the average towards `model` by one update."""
        d = self.decay_at(self.next)
        self.next += 1
        if self.followed is not model:
            self.followed, self.theirs = model, self.floats(model)
        torch._foreach_lerp_(self.ours, self.theirs, 1 - d)

    def decay_at(self, n: int) -> float:
        """Decay of update number n: small at first, `decay` in the end."""
        return self.decay * (1 - math.exp(-n / self.ramp))

    @staticmethod
    def floats(model: nn.Module) -> list[Tensor]:
        """Parameters and floating-point buffers in the order of the state dict."""
        return [v for v in model.state_dict(keep_vars=True).values() if v.is_floating_point()]
