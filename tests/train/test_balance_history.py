"""The record of the balance and the functions an experiment may add."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.tiny import tiny_exp
from yolox_lt.errors import UserError
from yolox_lt.exp import get_exp
from yolox_lt.losses import EQLv2FocalLoss, EqualizedFocalLoss, FocalLoss
from yolox_lt.report.analysis.balance_file import balance_columns, group_lines, read_rows
from yolox_lt.train.callbacks.balance_history import CHECK_AFTER, BalanceHistory
from yolox_lt.train.engine import Trainer
from yolox_lt.train.options import TrainOptions


def loss_with(pos, neg):
    loss = EqualizedFocalLoss(len(pos), scale=8.0)
    loss.balance.accumulate(torch.tensor(pos), torch.tensor(neg))
    return loss


def test_columns__by_hand():
    state = balance_columns(loss_with([1.0, 0.0, 5.0], [4.0, 2.0, 5.0]))
    assert state["ratio"].tolist() == [0.25, 0.0, 1.0]
    assert state["focusing"].tolist() == [2 + 8 * 0.75, 10, 2]
    assert state["weight"].tolist() == [4, 5, 1]
    assert balance_columns(FocalLoss()) == {}
    eqlv2 = balance_columns(EQLv2FocalLoss(2))
    assert eqlv2["ratio"].tolist() == [100, 100]
    assert eqlv2["focusing"].tolist() == [2, 2]
    assert eqlv2["weight"].tolist() == [1, 1]  # m(100) = 1


def test_lines__median_of_each_group_that_has_categories():
    state = balance_columns(loss_with([1.0, 0.0, 5.0], [4.0, 2.0, 5.0]))
    assert group_lines(state, np.array(["c", "c", "f"])) == [
        "balance common   (2): median g 0.125, gamma 9.00, weight 4.50",
        "balance frequent (1): median g 1.000, gamma 2.00, weight 1.00",
    ]
    assert group_lines(state, None) == ["balance all      (3): median g 0.250, gamma 8.00, weight 4.00"]


def test_file__one_row_an_epoch_and_later_rows_go_on_resume(tmp_path):
    loss = loss_with([1.0, 0.0], [4.0, 2.0])
    history = BalanceHistory(tmp_path, loss, None)
    for epoch in (1, 2, 3):
        loss.balance.accumulate(torch.tensor([1.0, 0.0]), torch.zeros(2))
        history.add(epoch)
    with np.load(tmp_path / "balance.npz") as archive:
        assert archive["epochs"].tolist() == [1, 2, 3]
        np.testing.assert_allclose(archive["ratio"], [[0.5, 0], [0.75, 0], [1, 0]])
        assert archive["pos_grad"].shape == (3, 2)
    resumed = BalanceHistory(tmp_path, loss, None, resume_epoch=2)
    assert [epoch for epoch, _ in resumed.rows] == [1, 2]
    assert [epoch for epoch, _ in read_rows(tmp_path / "none.npz", 9)] == []
    fresh = BalanceHistory(tmp_path, loss, None)
    assert fresh.rows == []


@pytest.mark.parametrize(
    ("pos", "neg", "message"),
    [
        ([0.0, 0.0], [0.0, 0.0], "g has not moved in 500 iterations"),
        ([9.0, 9.0], [1.0, 1.0], "g is 1 for more than 99% of the categories after 500 iterations"),
        ([1.0, 0.0], [9.0, 1.0], "g is near 0 in every group after 500 iterations (medians: all 0.056)"),
        ([9.0, 0.0], [1.0, 1.0], None),
    ],
)
def test_check__warns_once_where_the_balance_does_nothing(tmp_path, log, pos, neg, message):
    history = BalanceHistory(tmp_path, loss_with(pos, neg), None)
    for iteration in (1, CHECK_AFTER - 1, CHECK_AFTER, CHECK_AFTER + 1):
        history.check(iteration)
    assert [message in line for line in log] == ([True] if message else [])


def test_check__one_group_that_g_has_reached_is_enough(tmp_path, log):
    loss = loss_with([1.0, 0.0, 3.0], [9.0, 1.0, 9.0])
    BalanceHistory(tmp_path, loss, np.array(["c", "r", "f"])).check(CHECK_AFTER)
    assert log == []  # 0.333 of the frequent one
    BalanceHistory(tmp_path, loss, np.array(["f", "r", "r"])).check(CHECK_AFTER)
    assert "(medians: rare 0.167, frequent 0.111)" in log[0]


def test_run__callbacks_come_in_order_and_the_history_has_a_row_for_each_epoch(data, tmp_path):
    exp = tiny_exp(data, tmp_path, max_iter=2, max_epoch=2, eval_interval=2)
    seen = []
    exp.on_train_start = lambda trainer: seen.append(("start", trainer.iteration))
    exp.on_iteration_end = lambda trainer, losses: seen.append(("step", trainer.iteration, "cls" in losses))
    exp.on_evaluation_end = lambda trainer, report: seen.append(("evaluated", "AP" in report.metrics))
    exp.on_epoch_end = lambda trainer, epoch: seen.append(("epoch", epoch))
    exp.on_train_end = lambda trainer: seen.append(("end", trainer.iteration))
    Trainer(exp, TrainOptions(4)).train()
    assert seen == [
        ("start", 0), ("step", 1, True), ("step", 2, True), ("epoch", 1),
        ("step", 3, True), ("step", 4, True), ("evaluated", True), ("epoch", 2), ("end", 4),
    ]  # fmt: skip
    with np.load(tmp_path / "tiny" / "balance.npz") as archive:
        assert archive["epochs"].tolist() == [1, 2]


def test_callback__that_fails_is_named(data, tmp_path):
    exp = tiny_exp(data, tmp_path, max_iter=1, max_epoch=1)
    exp.on_iteration_end = lambda trainer, losses: losses["no_such_loss"]
    with pytest.raises(UserError, match=r"callback on_iteration_end of tiny failed: KeyError: 'no_such_loss'"):
        Trainer(exp, TrainOptions(4)).train()


def test_callback__misspelt_in_a_file_is_refused(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text("from yolox_lt.exp import Exp as E\nclass Exp(E):\n    def on_epoch_ends(self, t, e): pass\n")
    with pytest.raises(UserError, match=r"mine\.py: has 'on_epoch_ends', which is no callback.*on_epoch_end"):
        get_exp(path)
