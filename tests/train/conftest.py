"""What the tests of whole runs share."""

from __future__ import annotations

import pytest
from loguru import logger

from tests.tiny import tiny_data
from yolox_lt.train.callbacks.report import ReportCallback


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Folder of the tiny glyph set."""
    return tiny_data(tmp_path_factory)


@pytest.fixture
def log():
    """Messages that are logged from now on."""
    lines: list[str] = []
    handler = logger.add(lambda message: lines.append(message.record["message"]), level="INFO")
    yield lines
    logger.remove(handler)


@pytest.fixture
def without_report(monkeypatch):
    """No report page: it costs more than a tiny training, and tests/report makes it."""
    monkeypatch.setattr(ReportCallback, "write_report", lambda self: None)
