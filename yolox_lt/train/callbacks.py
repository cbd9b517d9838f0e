"""Functions that an experiment may add to follow or steer a run.

An `Exp` that has a method of one of these names gets it called, on every rank:

| method | when |
|---|---|
| on_train_start(trainer) | everything is built, before the first iteration |
| on_iteration_end(trainer, losses) | after an optimiser step; losses of this rank by name |
| on_evaluation_end(trainer, report) | after an evaluation; the report is None on ranks other than 0 |
| on_epoch_end(trainer, epoch) | after evaluation and checkpoints; epoch counts from 1 |
| on_train_end(trainer) | after the last epoch |
"""

from __future__ import annotations

from typing import Any

from yolox_lt.errors import UserError

NAMES = ("on_train_start", "on_iteration_end", "on_evaluation_end", "on_epoch_end", "on_train_end")


def call(exp: Any, name: str, *arguments: Any) -> None:
    """Call the experiment's method `name` if it has one.

    Raises:
        UserError: the method failed; its name and error are given.
    """
    method = getattr(exp, name, None)
    if method is None:
        return
    try:
        method(*arguments)
    except Exception as error:
        raise UserError(
            f"callback {name} of {exp.exp_name} failed: {type(error).__name__}: {error}; fix it in the experiment file"
        ) from error
