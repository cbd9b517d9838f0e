"""Losses and gradients that are not finite: what is said, what is left as it was, when the run ends."""

from __future__ import annotations

import csv
import math

import pytest
import torch

from tests.tiny import tiny_exp
from yolox_lt.errors import UserError
from yolox_lt.train.engine import Trainer
from yolox_lt.train.nonfinite import NonFiniteGuard
from yolox_lt.train.options import TrainOptions


class Poisoned(Trainer):
    """The loss of the iterations in `bad` (from 0) is NaN, and BatchNorm has seen it."""

    bad: tuple[int, ...] = ()

    def forward(self, batch):
        losses = super().forward(batch)
        if self.run.iteration in self.bad:
            self.run.model.backbone.backbone.stem.conv.bn.running_mean.fill_(math.nan)
            losses["box"] = losses["box"] * math.nan
        return losses

    def step(self, batches):
        before = everything(self)
        values = super().step(batches)
        if self.run.iteration - 1 in self.bad:
            assert_same(before, everything(self))
        return values


def everything(trainer):
    """Copies of weights, BatchNorm statistics, average, statistic of the loss, state of the optimiser."""
    states = {"model": trainer.run.model, "ema": trainer.run.ema.model, "criterion": trainer.run.criterion}
    copies = {f"{n}.{k}": v.clone() for n, part in states.items() for k, v in part.state_dict().items()}
    copies = {k: v for k, v in copies.items() if not k.endswith("num_batches_tracked")}
    slots = trainer.run.optimizer.state_dict()["state"]
    return copies | {f"slot.{i}": s["momentum_buffer"].clone() for i, s in slots.items()}


def assert_same(before, after):
    assert before.keys() <= after.keys()
    for key, value in before.items():
        assert torch.equal(value, after[key]), key


def test_stop__says_everything_and_leaves_the_statistic(data, tmp_path):
    trainer = Poisoned(tiny_exp(data, tmp_path, max_iter=4, max_epoch=1), TrainOptions(2))
    trainer.bad = (2,)
    with pytest.raises(UserError) as error:
        trainer.train()
    message = str(error.value)
    index = trainer.run.data.index
    assert message.startswith("the loss is not finite at iteration 3 (cls ")
    assert "box nan" in message
    assert "; lr 0.00125, loss scale 1; images " in message
    listed = message.partition("images ")[2].partition(")); ")[0] + ")"
    known = {f"{index.file_name(i)} (id {index.image_ids[i]})" for i in range(len(index))}
    assert len(listed.split(", ")) == 2
    assert set(listed.split(", ")) <= known
    balance = trainer.run.criterion.step_states()[0]
    assert balance._pending is None
    assert int(balance.skipped) == 0
    assert torch.isfinite(balance.ratio).all()


def test_skip__leaves_the_step_out_and_goes_on(data, tmp_path, log):
    exp = tiny_exp(data, tmp_path, max_iter=5, max_epoch=1, nonfinite="skip", nonfinite_limit=2)
    trainer = Poisoned(exp, TrainOptions(2))
    trainer.bad = (1, 2, 4)
    trainer.train()
    assert sum("step left out: the loss is not finite at iteration" in line for line in log) == 3
    (row,) = csv.DictReader((tmp_path / "tiny/metrics.csv").open())
    assert math.isfinite(float(row["loss"]))  # the mean of the two good steps
    assert trainer.run.progress.segment.batches == 5  # the batches were used up


class PoisonedAtTheEnd(Poisoned):
    """The loss is NaN, BatchNorm is left to itself: the backward pass needs its numbers."""

    def forward(self, batch):
        losses = Trainer.forward(self, batch)
        if self.run.iteration in self.bad:
            losses["box"] = losses["box"] * math.nan
        return losses


@pytest.mark.parametrize("accumulate", [1, 2])
def test_skip__with_the_backward_pass_before_the_losses_are_read_as_on_a_gpu(data, tmp_path, accumulate):
    runs = []
    for name, first in (("gpu", True), ("cpu", False)):
        settings = {"max_iter": 4, "max_epoch": 1, "nonfinite": "skip", "accumulate": accumulate}
        trainer = PoisonedAtTheEnd(tiny_exp(data, tmp_path / name, **settings), TrainOptions(2))
        trainer.bad, trainer.backward_first = (1, 2), first
        trainer.train()
        runs.append(everything(trainer))
    assert_same(*runs)


def test_skip__ends_after_so_many_in_a_row(data, tmp_path):
    exp = tiny_exp(data, tmp_path, max_iter=6, max_epoch=1, nonfinite="skip", nonfinite_limit=2)
    trainer = Poisoned(exp, TrainOptions(2))
    trainer.bad = (0, 2, 3, 4)
    with pytest.raises(UserError, match="after 2 steps left out in a row, the loss is not finite at iteration 5"):
        trainer.train()


def test_policy__unknown_is_refused(data, tmp_path):
    with pytest.raises(UserError, match="nonfinite 'ignore' is unknown; choose one of auto, stop, skip"):
        Trainer(tiny_exp(data, tmp_path, nonfinite="ignore"), TrainOptions(2)).train()


@pytest.mark.parametrize(
    ("policy", "amp", "means"),
    [
        ("auto", None, "stop"),
        ("auto", torch.bfloat16, "stop"),  # its range is float32's
        ("auto", torch.float16, "skip"),
        ("stop", torch.float16, "stop"),
        ("skip", None, "skip"),
    ],
)
def test_policy__auto_skips_where_the_range_is_small(policy, amp, means):
    assert NonFiniteGuard(policy, amp, 10).policy == means


def test_overflow__of_scaled_gradients_leaves_weights_average_and_statistic(data, tmp_path):
    """A real scaler whose scale is too large for float32 gradients at first: it halves until they fit."""
    exp = tiny_exp(data, tmp_path, max_iter=6, max_epoch=1, warmup_epochs=0)
    trainer = Trainer(exp, TrainOptions(2))
    step = trainer.step
    seen = []

    def with_scaler(run):
        run.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**126, backoff_factor=2.0**-60)

    def noted(batches):
        before, scale, updates = everything(trainer), trainer.run.scaler.get_scale(), trainer.run.ema.next
        values = step(batches)
        overflowed = trainer.run.scaler.get_scale() < scale
        seen.append(overflowed)
        if overflowed:
            kept = {k: v for k, v in before.items() if "running_" not in k or k.startswith("ema")}
            assert_same(kept, everything(trainer))
            assert trainer.run.ema.next == updates
            assert trainer.run.criterion.step_states()[0]._pending is None
        else:
            assert trainer.run.ema.next == updates + 1
            assert not torch.equal(
                before["criterion.cls_loss.balance.neg_grad"], trainer.run.criterion.step_states()[0].neg_grad
            )
        return values

    exp.on_train_start, trainer.step = with_scaler, noted
    trainer.train()
    assert seen[0]
    assert not seen[-1]
