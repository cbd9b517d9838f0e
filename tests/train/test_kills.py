"""Runs that are killed and resumed leave, once they came to their end, what an undisturbed one leaves."""

from __future__ import annotations

import pytest

from benchmarks.kill_moments import MOMENTS
from tests.processes import run_script


def kill(*words):
    """Table of the experiment; it fails for the smallest difference."""
    done = run_script("benchmarks.kills", *words, seconds=3600)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_kills__a_few_with_one_rank_that_leave_no_trace():
    said = kill("--kills", "2", "--ranks", "1")
    assert "| all | 2 |" in said
    assert "differences to the undisturbed run: 0" in said


@pytest.mark.slow
@pytest.mark.parametrize("ranks", ["1", "2"])
def test_kills__fifty_leave_no_trace(ranks):
    said = kill("--kills", "50", "--ranks", ranks)
    assert "| all | 50 |" in said
    for moment in MOMENTS:
        assert f"| {moment} |" in said
