"""What every test may use: golden arrays and the lines of the log. One thread a process: ranks share two cores."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from loguru import logger

from yolox_lt.models import complexity
from yolox_lt.train import run_description
from yolox_lt.train.callbacks.report import ReportCallback

GOLDEN = Path(__file__).parent / "golden"
torch.set_num_threads(1)


@pytest.fixture(scope="session")
def golden() -> Callable[[str], Any]:
    """golden("name.npz") -> dict of arrays; golden("name.json") -> the decoded file."""

    def load(name: str) -> Any:
        if name.endswith(".json"):
            return json.loads((GOLDEN / name).read_text())
        with np.load(GOLDEN / name, allow_pickle=False) as archive:
            return {key: archive[key] for key in archive.files}

    return load


@pytest.fixture
def log() -> Iterator[list[str]]:
    """The lines logged during a test, from INFO on."""
    lines: list[str] = []
    handler = logger.add(lambda message: lines.append(message.record["message"]), level="INFO")
    yield lines
    logger.remove(handler)


@pytest.fixture(scope="session", autouse=True)
def counted_once() -> Iterator[None]:
    """The operations of a model, which every run says, are counted once for each structure: a third of a tiny run."""
    counted: dict[tuple[str, tuple[int, int]], str] = {}

    def model_info(model: torch.nn.Module, test_size: tuple[int, int]) -> str:
        key = str(model), test_size
        if key not in counted:
            counted[key] = complexity.model_info(model, test_size)
        return counted[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_description, "model_info", model_info)
        yield


@pytest.fixture
def without_report(monkeypatch):
    """Trainings make no report page: it costs more than a tiny training, and other tests look at it."""
    monkeypatch.setattr(ReportCallback, "write_report", lambda self: None)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that share a process come first: the largest pieces of work, so both processes end at about one time."""
    items.sort(key=lambda item: item.get_closest_marker("xdist_group") is None)
