"""A long training neither grows nor keeps files open."""

from __future__ import annotations

import pytest

from benchmarks.long_run import FIRST, GROWTH, Sample, growth, measure, most_tensors


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
        assert max(s.tensors for s in samples) <= most_tensors(name, workers=4), f"{name}: {samples}"


def test_growth__sees_a_leak_below_readings_that_go_up_and_down():
    """Before iteration 200 more of everything; then 100 or 103 MiB and 40 files or one more, in turn."""
    flat = [
        Sample(i, *((200.0, 90) if i < FIRST else (100.0 + 3 * (i % 100 > 0), 40 + (i % 100 > 0))), tensors=0)
        for i in range(50, 2000, 50)
    ]
    leaking = [Sample(s.iteration, s.memory, s.files + (s.iteration > 1000), 0) for s in flat]
    assert growth(flat) == (pytest.approx(0.03), 0)
    assert growth(leaking) == (pytest.approx(0.03), 1)
