"""The moments of a run: all of them, in their order, for callbacks and for an experiment's own functions alike."""

from __future__ import annotations

import inspect
import os
import re
import signal
from pathlib import Path

import pytest

from tests.tiny import tiny_exp
from yolox_lt.distributed.signals import Stopped
from yolox_lt.exp.hooks import HOOKS
from yolox_lt.train.callbacks.callback import Callback
from yolox_lt.train.engine import Trainer
from yolox_lt.train.options import TrainOptions

GUIDE = Path(__file__).resolve().parents[2] / "docs/guides/callbacks.md"


class Notes(Callback):
    """Writes down every moment that comes."""

    def __init__(self, seen: list[str]) -> None:
        for name in (*HOOKS, "close"):
            setattr(self, name, lambda run, *rest, moment=name: seen.append(moment))


def following(exp, options: TrainOptions) -> tuple[Trainer, list[str], list[str]]:
    """A trainer with a callback behind its own, and what it and the experiment's functions see."""
    of_callback: list[str] = []
    of_exp: list[str] = []
    for name in HOOKS:
        setattr(exp, name, lambda run, *rest, moment=name: of_exp.append(moment))

    class Following(Trainer):
        def call(self, moment, *arguments):
            if moment == "on_train_start":
                self.callbacks.append(Notes(of_callback))
            super().call(moment, *arguments)

    return Following(exp, options), of_callback, of_exp


STEP = ["on_batch", "on_batch", "on_iteration_end"]
EVALUATED = ["on_evaluation_start", "on_evaluation_end"]
END = ["on_epoch_record", "on_epoch_end"]


def test_moments__of_two_epochs_with_accumulated_batches(data, tmp_path):
    """Every second iteration is logged, the second epoch is evaluated."""
    settings = {"accumulate": 2, "max_iter": 2, "max_epoch": 2, "eval_interval": 2, "print_interval": 2}
    trainer, of_callback, of_exp = following(tiny_exp(data, tmp_path, **settings), TrainOptions(4))
    trainer.train()
    logged = [*STEP[:2], "on_log", STEP[2]]
    want = ["on_train_start", *STEP, *logged, *END, *STEP, *logged, *EVALUATED, *END, "on_train_end"]
    assert of_exp == want
    assert of_callback == [*want, "close"]


def test_moments__of_a_run_that_is_stopped_and_of_its_continuation(data, tmp_path):
    settings = {"max_iter": 3, "max_epoch": 1, "eval_interval": 9, "print_interval": 9}
    trainer, of_callback, _ = following(tiny_exp(data, tmp_path, **settings), TrainOptions(4))
    trainer.exp.on_iteration_end = lambda run, losses: os.kill(os.getpid(), signal.SIGTERM)
    with pytest.raises(Stopped):
        trainer.train()
    assert of_callback == ["on_train_start", "on_batch", "on_iteration_end", "on_stop", "close"]
    trainer, of_callback, _ = following(tiny_exp(data, tmp_path, **settings), TrainOptions(4, resume=True))
    trainer.train()
    steps = ["on_batch", "on_iteration_end", "on_batch", "on_log", "on_iteration_end"]
    assert of_callback == ["on_train_start", *steps, *EVALUATED, *END, "on_train_end", "close"]


def test_moments__are_those_that_the_guide_lists_with_their_arguments():
    """In the order of the table, which is that of the class."""
    of_class = {
        name: list(inspect.signature(method).parameters)[2:]
        for name, method in vars(Callback).items()
        if name.startswith("on_")
    }
    assert list(of_class) == list(HOOKS)
    rows = re.findall(r"^\| `(on_\w+)\(trainer(?:, (\w+))?\)`", GUIDE.read_text(encoding="utf-8"), re.MULTILINE)
    assert [(name, [argument] if argument else []) for name, argument in rows] == list(of_class.items())
