"""What the tests of whole runs share."""

from __future__ import annotations

import pytest

from yolox_lt.train.follow import Follower


@pytest.fixture
def without_report(monkeypatch):
    """No report page: it costs more than a tiny training, and tests/report makes it."""
    monkeypatch.setattr(Follower, "write_report", lambda self: None)
