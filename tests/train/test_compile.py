"""The network under torch.compile trains as the plain one does."""

from __future__ import annotations

import shutil

import pytest
import torch

from tests.tiny import tiny_data, tiny_exp
from yolox_lt.checkpoint import load_checkpoint
from yolox_lt.train.engine import Trainer
from yolox_lt.train.options import TrainOptions


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler on a CPU")
def test_compile__two_steps_leave_the_same_weights_and_statistic(tmp_path_factory, tmp_path):
    data = tiny_data(tmp_path_factory)
    states = []
    for name, changes in (("plain", {}), ("compiled", {"compile": True})):
        Trainer(tiny_exp(data, tmp_path / name, max_iter=2, max_epoch=1, **changes), TrainOptions(4)).train()
        states.append(load_checkpoint(tmp_path / name / "tiny/latest.pth"))
    for part in ("model", "criterion"):
        assert list(states[0][part]) == list(states[1][part])
        for a, b in zip(states[0][part].values(), states[1][part].values()):
            torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)
