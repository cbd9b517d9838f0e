"""The same seed gives the same run: over repetitions and numbers of loader processes, and with the switch for GPUs."""

from __future__ import annotations

import pytest
import torch

from benchmarks.run_difference import differences
from tests.tiny import tiny_data, tiny_exp
from yolox_lt.distributed.processes import use_fast_products
from yolox_lt.exp import Exp, ResNetExp
from yolox_lt.models import build_resnet, build_yolox
from yolox_lt.train.build import settle_buckets
from yolox_lt.train.engine import Trainer
from yolox_lt.train.options import TrainOptions


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


@pytest.mark.parametrize("family", ["yolox", "resnet"])
def test_settled_buckets__touch_every_parameter_and_change_nothing(family):
    model = build_yolox(3, 0.33, 0.125) if family == "yolox" else build_resnet(3, depth=18, channels=32)
    model.train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    reached = set()
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    for name, parameter in trained.items():
        parameter.register_hook(lambda gradient, name=name: reached.add(name))
    settle_buckets(model, torch.device("cpu"))
    assert reached == set(trained)
    assert model.training
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_products__on_a_gpu_follow_the_experiment_and_on_a_cpu_nothing_changes(deterministic_off):
    def state():
        backends = torch.backends
        return torch.get_float32_matmul_precision(), backends.cudnn.allow_tf32, backends.cudnn.benchmark

    before = state()
    use_fast_products(torch.device("cpu"), not before[1], True)
    assert state() == before
    try:
        found = []
        for tf32, fixed_size, deterministic in ((True, True, False), (False, False, False), (True, True, True)):
            torch.use_deterministic_algorithms(deterministic)
            use_fast_products(torch.device("cuda"), tf32, fixed_size)
            found.append(state())
        assert found == [("high", True, True), ("highest", False, False), ("high", True, False)]
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.backends.cudnn.allow_tf32, torch.backends.cudnn.benchmark = before[1:]


@pytest.mark.parametrize(
    ("settings", "fixed"),
    [
        ({}, False),
        ({"multiscale_range": 0}, True),
        ({"random_size": (10, 20)}, False),
        ({"random_size": (20, 20)}, True),
    ],
)
def test_sizes__of_yolox_are_fixed_without_multiscale(settings, fixed):
    exp = Exp()
    for name, value in settings.items():
        setattr(exp, name, value)
    assert exp.has_fixed_size() == fixed
    if fixed:
        assert len({exp.random_resize(iteration) for iteration in range(0, 200, 10)}) == 1


def test_sizes__of_resnet_models_vary():
    assert not ResNetExp().has_fixed_size()
