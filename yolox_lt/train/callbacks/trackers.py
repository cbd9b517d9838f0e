"""Loggers of other projects beside the run's own files: Weights & Biases and MLflow, if installed and asked for.

They get the same numbers as metrics.jsonl and metrics.csv. Where they write to is their own configuration (WANDB_MODE,
MLFLOW_TRACKING_URI and so on). A tracker that fails is reported once and left out from then on: it never ends a run.
"""

from __future__ import annotations

import importlib
import importlib.util
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from loguru import logger

from yolox_lt.errors import UserError
from yolox_lt.train.callbacks.callback import Callback, EpochRecord
from yolox_lt.train.state import RunState

PROJECT = "yolox_lt"
"""Project (Weights & Biases) or experiment (MLflow) to which all runs belong."""

PARAMS_AT_ONCE = 100
PARAM_LENGTH = 500
"""MLflow's servers refuse larger requests and longer values."""


class Tracker(Protocol):
    """One logger. Every method may raise anything."""

    def start(self, run_name: str, config: Mapping[str, Any]) -> None:
        """Once, before the first `log`; config: the settings of the run by name."""

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Numbers by name after iteration `step`, which never falls."""

    def finish(self) -> None:
        """Once, after the last `log`."""


class WandbTracker(Tracker):
    """Weights & Biases. module: the package; folder: where it keeps its files."""

    def __init__(self, module: Any, folder: Path) -> None:
        self.module = module
        self.folder = folder

    def start(self, run_name: str, config: Mapping[str, Any]) -> None:
        self.run = self.module.init(project=PROJECT, name=run_name, config=dict(config), dir=str(self.folder))

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self.run.log(dict(values), step=step)

    def finish(self) -> None:
        self.run.finish()


class MlflowTracker(Tracker):
    """MLflow. module: the package; its files are where its tracking address says, so `folder` is not used."""

    def __init__(self, module: Any, folder: Path) -> None:
        self.module = module

    def start(self, run_name: str, config: Mapping[str, Any]) -> None:
        self.module.set_experiment(PROJECT)
        self.module.start_run(run_name=run_name)
        items = [(name, str(value)[:PARAM_LENGTH]) for name, value in config.items()]
        for first in range(0, len(items), PARAMS_AT_ONCE):
            self.module.log_params(dict(items[first : first + PARAMS_AT_ONCE]))

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self.module.log_metrics(dict(values), step=step)

    def finish(self) -> None:
        self.module.end_run()


TRACKERS: dict[str, Callable[[Any, Path], Tracker]] = {"wandb": WandbTracker, "mlflow": MlflowTracker}
"""Name of the setting, and of the package -> how its tracker is made."""


class Trackers(Tracker):
    """Several trackers as one that never raises. The one that fails is named in a warning and asked no more."""

    def __init__(self, trackers: Mapping[str, Tracker]) -> None:
        self.trackers = dict(trackers)

    def start(self, run_name: str, config: Mapping[str, Any]) -> None:
        self.ask_all(lambda tracker: tracker.start(run_name, config))

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """As `Tracker.log`; values that are not finite are left out."""
        finite = {name: float(value) for name, value in values.items() if math.isfinite(value)}
        self.ask_all(lambda tracker: tracker.log(step, finite))

    def finish(self) -> None:
        self.ask_all(lambda tracker: tracker.finish())

    def ask_all(self, ask: Callable[[Tracker], None]) -> None:
        """Let every tracker do something; the one that raises is left out from then on."""
        for name, tracker in list(self.trackers.items()):
            try:
                ask(tracker)
            except Exception as error:
                del self.trackers[name]
                logger.warning(f"tracker {name} failed and is left out: {type(error).__name__}: {error}")


def check_trackers(names: Sequence[str]) -> None:
    """Whether all trackers are there, without importing them.

    Raises:
        UserError: an unknown name, or a package that is not installed.
    """
    for name in names:
        if name not in TRACKERS:
            raise UserError(f"trackers: {name!r} is unknown; choose from {', '.join(TRACKERS)}")
        found = importlib.util.find_spec(name)
        if found is None or found.origin is None:  # a mere folder ./wandb of earlier runs has no origin
            raise UserError(f"trackers: {name} is not installed; pip install {name}, or take it out of trackers")


def make_trackers(names: Sequence[str], folder: Path) -> Trackers:
    """The trackers that an experiment asks for; `folder` is that of the run.

    Raises:
        UserError: as `check_trackers`, or a package that cannot be imported.
    """
    check_trackers(names)
    made: dict[str, Tracker] = {}
    for name in names:
        try:
            module = importlib.import_module(name)
        except Exception as error:
            raise UserError(
                f"trackers: {name} cannot be imported ({error}); repair it, or take it out of trackers"
            ) from error
        made[name] = TRACKERS[name](module, folder)
    return Trackers(made)


class TrackerCallback(Callback):
    """Gives the numbers of metrics.jsonl and metrics.csv to the trackers.

    Args:
        names: of the trackers. folder: of the run.

    Raises:
        UserError: as `make_trackers`.
    """

    def __init__(self, names: Sequence[str], folder: Path) -> None:
        self.trackers = make_trackers(names, folder)

    def on_train_start(self, run: RunState) -> None:
        self.trackers.start(run.exp.exp_name, run.exp.attributes())

    def on_log(self, run: RunState, values: dict[str, float]) -> None:
        self.trackers.log(run.iteration, values)

    def on_epoch_record(self, run: RunState, record: EpochRecord) -> None:
        self.trackers.log(run.iteration, {f"epoch/{name}": value for name, value in record.row.items()})

    def close(self, run: RunState) -> None:
        self.trackers.finish()
