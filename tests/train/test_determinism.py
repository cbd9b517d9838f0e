"""The same seed gives the same run: over repetitions and numbers of loader processes, and with the switch for GPUs."""

from __future__ import annotations

import pytest
import torch

from benchmarks.run_difference import differences
from tests.tiny import tiny_data, tiny_exp
from yolox_lt.train.options import TrainOptions
from yolox_lt.train.trainer import Trainer

pytestmark = pytest.mark.usefixtures("without_report")


@pytest.fixture
def deterministic_off():
    yield
    torch.use_deterministic_algorithms(False)


def test_two_runs__one_with_loader_processes_and_the_switch_leave_the_same_bits(
    tmp_path_factory, tmp_path, deterministic_off
):
    data = tiny_data(tmp_path_factory)
    settings = {"max_iter": 4, "max_epoch": 1}
    Trainer(tiny_exp(data, tmp_path / "a", **settings), TrainOptions(4)).train()
    assert not torch.are_deterministic_algorithms_enabled()
    torch.manual_seed(1234)  # whatever happened before a run
    exp = tiny_exp(data, tmp_path / "b", data_num_workers=4, deterministic=True, **settings)
    Trainer(exp, TrainOptions(4)).train()
    assert torch.are_deterministic_algorithms_enabled()
    assert not torch.backends.cudnn.benchmark
    found = differences(tmp_path / "a/tiny", tmp_path / "b/tiny")
    assert {line.rpartition("/")[2] for line in found} == {"data_num_workers", "deterministic"}
