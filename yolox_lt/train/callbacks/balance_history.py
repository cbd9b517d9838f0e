"""The gauge of the tail: how the balance of every category moved, epoch by epoch, and whether it moves at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from loguru import logger
from torch import Tensor

from yolox_lt.losses import DenseLoss, EQLv2FocalLoss
from yolox_lt.losses.equalized import EqualizedLoss
from yolox_lt.train.callbacks.base import Callback, EpochRecord
from yolox_lt.train.state import RunState

FILE = "balance.npz"

CHECK_AFTER = 500
"""Iterations after which a balance that has not moved is reported."""

STUCK_SHARE = 0.99
"""Share of categories at g = 1 above which the equalized loss is no more than its plain form."""

GROUP_NAMES = {"r": "rare", "c": "common", "f": "frequent"}

COLUMNS = ("pos_grad", "neg_grad", "ratio", "focusing", "weight")


def balance_columns(loss: DenseLoss) -> dict[str, np.ndarray] | None:
    """The state of a loss with a balance, each float32 [C]; None for a loss without one.

    pos_grad, neg_grad: sums of absolute gradients. ratio: g. focusing: the exponent of negatives. weight: the factor
    on negatives (EFL and EQFL: on positives too).
    """
    if isinstance(loss, EqualizedLoss):
        focusing, weight = loss.category_factors()
    elif isinstance(loss, EQLv2FocalLoss):
        _, weight = loss.category_weights()
        focusing = weight.new_full(weight.shape, loss.gamma)
    else:
        return None
    balance = loss.balance
    values = (balance.pos_grad, balance.neg_grad, balance.ratio, focusing, weight)
    return {name: host(value) for name, value in zip(COLUMNS, values)}


def host(value: Tensor) -> np.ndarray:
    """float32 copy of a tensor in the memory of the host."""
    return value.detach().float().cpu().numpy().copy()


class BalanceHistory(Callback):
    """Writes `balance.npz` in the run's folder: epochs int64 [E] and the columns of `balance_columns`, each [E, C].

    Args:
        folder: of the run.
        loss: the classification loss; without a balance every method does nothing.
        groups: "r", "c" or "f" per category [C], None where unknown.
        resume_epoch: rows of later epochs are dropped; they come again.
    """

    def __init__(self, folder: Path, loss: DenseLoss, groups: np.ndarray | None, resume_epoch: int = 0) -> None:
        self.path = folder / FILE
        self.loss = loss
        self.groups = groups
        self.rows = read_rows(self.path, resume_epoch) if resume_epoch else []

    def on_iteration_end(self, run: RunState, losses: dict[str, float]) -> None:
        self.check(run.iteration)

    def on_epoch_record(self, run: RunState, record: EpochRecord) -> None:
        skipped = sum(int(balance.skipped) for balance in run.criterion.balances())
        if skipped:
            logger.warning(f"{skipped} contributions to the loss's statistic were not finite and left out so far")
        self.add(record.epoch)

    def check(self, iteration: int) -> None:
        """After CHECK_AFTER iterations of a run: warn when the balance does not do its work."""
        state = balance_columns(self.loss) if iteration == CHECK_AFTER else None
        if state is None:
            return
        if not state["pos_grad"].any() and not state["neg_grad"].any():
            logger.warning(f"g has not moved in {iteration} iterations: the loss receives no gradient; check assigner")
        elif (state["ratio"] == 1).mean() > STUCK_SHARE:
            logger.warning(
                f"g is 1 for more than {STUCK_SHARE:.0%} of the categories after {iteration} iterations, so the "
                "equalized loss is its plain form; a larger prior_prob leaves negatives more gradient"
            )

    def add(self, epoch: int) -> None:
        """Keep the state at the end of an epoch and log a line for each frequency group."""
        state = balance_columns(self.loss)
        if state is None:
            return
        self.rows.append((epoch, state))
        columns: dict[str, Any] = {name: np.stack([row[name] for _, row in self.rows]) for name in COLUMNS}
        temporary = self.path.with_name(f".{self.path.name}")
        with open(temporary, "wb") as file:
            np.savez_compressed(file, epochs=np.array([e for e, _ in self.rows]), **columns)
        temporary.replace(self.path)
        for line in group_lines(state, self.groups):
            logger.info(line)


def group_lines(state: dict[str, np.ndarray], groups: np.ndarray | None) -> list[str]:
    """Median g, exponent and weight of each group that has categories, one line each."""
    members = {"all": np.ones(len(state["ratio"]), bool)}
    if groups is not None:
        members = {GROUP_NAMES[g]: groups == g for g in "rcf" if (groups == g).any()}
    return [
        f"balance {name:<8} ({int(of.sum()):,}): median g {np.median(state['ratio'][of]):.3f}, "
        f"gamma {np.median(state['focusing'][of]):.2f}, weight {np.median(state['weight'][of]):.2f}"
        for name, of in members.items()
    ]


def read_rows(path: Path, last_epoch: int) -> list[tuple[int, dict[str, np.ndarray]]]:
    """(epoch, columns) of `balance.npz` up to an epoch; empty without the file."""
    if not path.is_file():
        return []
    with np.load(path, allow_pickle=False) as archive:
        epochs, columns = archive["epochs"].tolist(), {name: archive[name] for name in COLUMNS}
    return [(e, {name: c[i] for name, c in columns.items()}) for i, e in enumerate(epochs) if e <= last_epoch]
