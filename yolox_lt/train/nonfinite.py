"""What happens when a loss is not finite."""

from __future__ import annotations

import math

import numpy as np
import torch
from loguru import logger

from yolox_lt.distributed.collectives import any_rank
from yolox_lt.errors import UserError
from yolox_lt.train.state import RunState
from yolox_lt.types import Batch

POLICIES = ("auto", "stop", "skip")


class NonFiniteGuard:
    """Decides on a step whose loss is not finite, the same on every rank.

    dropped_in_a_row: steps just now that were left out.

    Args:
        policy: stop, skip (the step), or auto: skip under float16, whose range a sound step may leave, else stop.
        amp: of the run. limit: steps in a row that may be skipped.

    Raises:
        UserError: an unknown policy.
    """

    def __init__(self, policy: str, amp: torch.dtype | None, limit: int) -> None:
        if policy not in POLICIES:
            raise UserError(f"nonfinite {policy!r} is unknown; choose one of {', '.join(POLICIES)}")
        self.policy = ("skip" if amp == torch.float16 else "stop") if policy == "auto" else policy
        self.limit = limit
        self.dropped_in_a_row = 0

    def must_drop(self, run: RunState, losses: dict[str, float], batch: Batch) -> bool:
        """Whether the step has to be left out because of these losses of this rank.

        Raises:
            UserError: a loss is not finite, and the policy is stop or the limit is reached.
        """
        finite = all(map(math.isfinite, losses.values()))
        if self.policy == "skip":
            anywhere = any_rank(not finite, run.ranks.control)
            if anywhere and self.dropped_in_a_row < self.limit:
                if not finite:
                    logger.warning(f"step left out: {describe(run, losses, batch)}")
                return True
            if anywhere and finite:
                raise UserError("the loss of another rank is not finite; the last checkpoint is complete")
        if finite:
            return False
        for state in run.criterion.step_states():
            state.discard()
        after = f"after {self.dropped_in_a_row} steps left out in a row, " if self.dropped_in_a_row else ""
        raise UserError(
            f"{after}{describe(run, losses, batch)}; lower basic_lr_per_img, set clip_norm, look at these images, or "
            "set nonfinite skip; the last checkpoint is complete"
        )


def describe(run: RunState, losses: dict[str, float], batch: Batch) -> str:
    """Iteration, losses, learning rate, loss scale and images of the step."""
    values = ", ".join(f"{name} {value:.4g}" for name, value in losses.items())
    index = run.data.index
    rows = [np.flatnonzero(index.image_ids == i)[0] for i in batch.image_ids.tolist()]
    names = ", ".join(f"{index.file_name(int(row))} (id {index.image_ids[row]})" for row in rows)
    return (
        f"the loss is not finite at iteration {run.iteration + 1} ({values}; lr {run.schedule(run.iteration):.4g}, "
        f"loss scale {run.scaler.get_scale():.4g}; images {names})"
    )
