"""Trackers: what reaches the packages, and that a failing one never ends a run. Neither package is installed here."""

from __future__ import annotations

import math
import sys
from types import SimpleNamespace
from typing import Any

import pytest
from loguru import logger

from yolox_lt.errors import UserError
from yolox_lt.train.callbacks import trackers
from yolox_lt.train.callbacks.trackers import MlflowTracker, Trackers, WandbTracker, check_trackers, make_trackers


class Recorder:
    """Stands in for an installed package: every function notes its call; those named in `failing` raise."""

    def __init__(self, *failing: str) -> None:
        self.failing = failing
        self.calls: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []

    def __getattr__(self, name: str) -> Any:
        def note(*args: Any, **kwargs: Any) -> Recorder:
            self.calls.append((name, args, kwargs))
            if name in self.failing:
                raise ConnectionError("no route to host")
            return self

        return note

    def names(self) -> list[str]:
        return [name for name, _, _ in self.calls]


@pytest.fixture
def warnings():
    lines: list[str] = []
    sink = logger.add(lambda line: lines.append(line.record["message"]), level="WARNING")
    yield lines
    logger.remove(sink)


def test_wandb__gets_name_settings_and_finite_numbers(tmp_path):
    package = Recorder()
    all_of_them = Trackers({"wandb": WandbTracker(package, tmp_path)})
    all_of_them.start("eqfl", {"seed": 0})
    all_of_them.log(9, {"train/loss": 1.5, "epoch/AP": math.nan})
    all_of_them.finish()
    settings = {"project": "yolox_lt", "name": "eqfl", "config": {"seed": 0}, "dir": str(tmp_path)}
    assert package.calls == [("init", (), settings), ("log", ({"train/loss": 1.5},), {"step": 9}), ("finish", (), {})]


def test_mlflow__gets_settings_in_parts_that_its_servers_take(tmp_path):
    package = Recorder()
    all_of_them = Trackers({"mlflow": MlflowTracker(package, tmp_path)})
    all_of_them.start("eqfl", {f"k{i}": (i, "x" * 600) for i in range(201)})
    all_of_them.log(9, {"train/loss": 2})
    all_of_them.finish()
    assert package.names() == ["set_experiment", "start_run", *["log_params"] * 3, "log_metrics", "end_run"]
    parts = [args[0] for name, args, _ in package.calls if name == "log_params"]
    assert [len(part) for part in parts] == [100, 100, 1]
    assert list(parts[0]) + list(parts[1]) + list(parts[2]) == [f"k{i}" for i in range(201)]
    assert {len(value) for part in parts for value in part.values()} == {500}
    assert package.calls[-2] == ("log_metrics", ({"train/loss": 2.0},), {"step": 9})


@pytest.mark.parametrize("failing", ["init", "log", "finish"])
def test_failing_tracker__warns_once_and_the_others_go_on(failing, tmp_path, warnings):
    broken, whole = Recorder(failing), Recorder()
    all_of_them = Trackers({"wandb": WandbTracker(broken, tmp_path), "mlflow": MlflowTracker(whole, tmp_path)})
    all_of_them.start("eqfl", {})
    for step in range(3):
        all_of_them.log(step, {"loss": 1.0})
    all_of_them.finish()
    assert warnings == ["tracker wandb failed and is left out: ConnectionError: no route to host"]
    assert broken.names()[-1] == failing
    assert broken.names().count(failing) == 1
    assert whole.names() == ["set_experiment", "start_run", *["log_metrics"] * 3, "end_run"]


def test_none_asked_for__nothing_happens(tmp_path):
    none = make_trackers((), tmp_path)
    none.start("eqfl", {})
    none.log(0, {"loss": 1.0})
    none.finish()
    assert none.trackers == {}
    assert list(tmp_path.iterdir()) == []


def test_unknown_or_not_installed__is_one_sentence(tmp_path, monkeypatch):
    with pytest.raises(UserError, match="'tensorbord' is unknown; choose from wandb, mlflow"):
        check_trackers(("tensorbord",))
    monkeypatch.setattr(trackers.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="wandb is not installed; pip install wandb, or take it out"):
        make_trackers(("wandb",), tmp_path)


def test_folder_of_earlier_runs__is_no_installed_package(tmp_path, monkeypatch):
    """Weights & Biases writes to ./wandb, which Python would import as an empty package."""
    monkeypatch.setattr(trackers.importlib.util, "find_spec", lambda name: SimpleNamespace(origin=None))
    with pytest.raises(UserError, match="wandb is not installed"):
        check_trackers(("wandb",))


def test_broken_package__is_one_sentence(tmp_path, monkeypatch):
    (tmp_path / "wandb.py").write_text("import a_module_that_is_not_there\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "wandb", raising=False)
    with pytest.raises(UserError, match=r"wandb cannot be imported .*a_module_that_is_not_there.*repair it"):
        make_trackers(("wandb",), tmp_path)
