"""The moments of a run at which callbacks are called, and how an experiment's own methods become one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from yolox_lt.errors import UserError
from yolox_lt.evaluate.metrics import Report
from yolox_lt.exp.detection import DetectorExp
from yolox_lt.exp.hooks import HOOKS
from yolox_lt.train.state import RunState
from yolox_lt.types import Batch


@dataclass(frozen=True)
class EpochRecord:
    """What is known at the end of an epoch.

    epoch: counts from 1. row: the epoch's row of metrics.csv. report: of its evaluation, None without one and on ranks
    other than 0. is_best: whether this evaluation is the best of the run so far.
    """

    epoch: int
    row: dict[str, float]
    report: Report | None
    is_best: bool


class Callback:
    """Does nothing at any moment; a callback overrides what it needs.

    Every moment comes on every rank, and in the order in which the callbacks stand in `Trainer.callbacks`. Callbacks
    that write (log, history, trackers, report) are on rank 0 alone. An experiment that has methods of these names is a
    callback too; there the first argument is called trainer.
    """

    def on_train_start(self, run: RunState) -> None:
        """Everything is built, before the first iteration."""

    def on_batch(self, run: RunState, batch: Batch) -> None:
        """Before a batch goes to the device; `accumulate` batches make a step."""

    def on_iteration_end(self, run: RunState, losses: dict[str, float]) -> None:
        """After an optimiser step; losses of this rank by name."""

    def on_log(self, run: RunState, values: dict[str, float]) -> None:
        """Every `print_interval` iterations: losses, learning rate, images a second, memory."""

    def on_evaluation_start(self, run: RunState) -> None:
        """All steps of an epoch that is evaluated are done."""

    def on_evaluation_end(self, run: RunState, report: Report | None) -> None:
        """After an evaluation; the report is None on ranks other than 0."""

    def on_epoch_record(self, run: RunState, record: EpochRecord) -> None:
        """The epoch's row is complete, but in no checkpoint yet: what is written now comes again after a crash."""

    def on_epoch_end(self, run: RunState, epoch: int) -> None:
        """After evaluation and checkpoints; epoch counts from 1."""

    def on_stop(self, run: RunState) -> None:
        """Between two steps, a signal has asked the run to stop."""

    def on_train_end(self, run: RunState) -> None:
        """After the last epoch."""

    def close(self, run: RunState) -> None:
        """Once, when the training is over, also when it failed."""


class ExpCallback(Callback):
    """The methods of an experiment that have the name of a moment.

    Raises:
        UserError: one of them failed; its name and error are given.
    """

    def __init__(self, exp: DetectorExp) -> None:
        self.exp_name = exp.exp_name
        for name in HOOKS:
            method = getattr(exp, name, None)
            if method is not None:
                setattr(self, name, self.named(name, method))

    def named(self, name: str, method: Any) -> Any:
        """`method` with its failures told as one sentence."""

        def call(*arguments: Any) -> None:
            try:
                method(*arguments)
            except Exception as error:
                raise UserError(
                    f"callback {name} of {self.exp_name} failed: {type(error).__name__}: {error}; fix it in the "
                    "experiment file"
                ) from error

        return call
