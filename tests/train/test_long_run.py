"""A long training neither grows nor keeps files open."""

from __future__ import annotations

import pytest

from benchmarks.long_run import FIRST, GROWTH, growth, measure


@pytest.mark.slow
def test_long_run__memory_and_open_files_of_every_process_are_flat():
    found = measure(iterations=2000, workers=4)
    assert list(found) == ["training process", *(f"loader process {number}" for number in (1, 2, 3, 4))]
    for name, samples in found.items():
        assert samples[0].iteration <= FIRST
        assert samples[-1].iteration >= 1900
        share, files = growth(samples)
        assert share <= GROWTH, f"{name}: {samples}"
        assert files <= 0, f"{name}: {samples}"
