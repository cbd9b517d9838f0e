"""The gauge of the tail: how the state of every category moved, epoch by epoch, and whether it moves at all."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from loguru import logger

from yolox_lt.losses import CategoryLoss
from yolox_lt.report.analysis.balance_file import (
    FILE,
    LOW_RATIO,
    STUCK_SHARE,
    balance_columns,
    group_lines,
    group_medians,
    read_rows,
    write_balance,
)
from yolox_lt.train.callbacks.callback import Callback, EpochRecord
from yolox_lt.train.state import RunState

CHECK_AFTER = 500
"""Iterations after which a balance that has not moved is reported."""


class BalanceHistory(Callback):
    """Writes `balance.npz` in the run's folder: epochs int64 [E] and what the loss remembers of its categories, [E, C].

    Args:
        folder: of the run.
        loss: the classification loss; for one that remembers nothing every method does nothing.
        groups: "r", "c" or "f" per category, None where unknown.
        resume_epoch: rows of later epochs are dropped; they come again.
        in_order: column [C] of the model's categories -> the same for those of `groups` and per_category.csv.
    """

    def __init__(
        self,
        folder: Path,
        loss: CategoryLoss,
        groups: np.ndarray | None,
        resume_epoch: int = 0,
        in_order: Callable[[np.ndarray], np.ndarray] = lambda column: column,
    ) -> None:
        self.path = folder / FILE
        self.loss = loss
        self.groups = groups
        self.in_order = in_order
        self.rows = read_rows(self.path, resume_epoch) if resume_epoch else []

    def on_iteration_end(self, run: RunState, losses: dict[str, float]) -> None:
        self.check(run.iteration)

    def on_epoch_record(self, run: RunState, record: EpochRecord) -> None:
        skipped = sum(int(state.skipped) for state in run.criterion.step_states())
        if skipped:
            logger.warning(f"{skipped} contributions to the loss's statistic were not finite and left out so far")
        self.add(record.epoch)

    def check(self, iteration: int) -> None:
        """After CHECK_AFTER iterations of a run: warn when a gradient balance does not do its work."""
        state = balance_columns(self.loss) if iteration == CHECK_AFTER else {}
        if "ratio" not in state:
            return
        if not state["pos_grad"].any() and not state["neg_grad"].any():
            logger.warning(f"g has not moved in {iteration} iterations: the loss receives no gradient; check assigner")
        elif (state["ratio"] == 1).mean() > STUCK_SHARE:
            logger.warning(
                f"g is 1 for more than {STUCK_SHARE:.0%} of the categories after {iteration} iterations, so the "
                "equalized loss is its plain form; a larger prior_prob leaves negatives more gradient"
            )
        else:
            medians = group_medians(self.in_order(state["ratio"]), self.groups)
            if max(medians.values()) < LOW_RATIO:
                said = ", ".join(f"{group} {median:.3f}" for group, median in medians.items())
                logger.warning(
                    f"g is near 0 in every group after {iteration} iterations (medians: {said}), so exponent and "
                    "weight are raised for all categories alike and the loss is only made harder; fresh_std 0.001 or a "
                    "smaller prior_prob takes gradient from the first negatives, cls_loss qfl does without g"
                )

    def add(self, epoch: int) -> None:
        """Keep the state at the end of an epoch and log a line for each frequency group."""
        state = {name: self.in_order(column) for name, column in balance_columns(self.loss).items()}
        if not state:
            return
        self.rows.append((epoch, state))
        write_balance(self.path, self.rows)
        for line in group_lines(state, self.groups):
            logger.info(line)
