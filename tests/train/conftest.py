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
def with_report():
    """The report page is made, as in every run of a user."""


@pytest.fixture(autouse=True)
def without_report(request, monkeypatch):
    """No report page unless a test asks `with_report`: it costs more than a tiny training."""
    if "with_report" not in request.fixturenames:
        monkeypatch.setattr(ReportCallback, "write_report", lambda self: None)
