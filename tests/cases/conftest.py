"""What the tests of the users' cases share."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def no_page(without_report):
    """No case is about the report page."""
