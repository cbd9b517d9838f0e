"""Building blocks of columns, against answers worked by hand."""

from __future__ import annotations

import numpy as np

from yolox_lt.data.columns import distinct, look_up, offsets_of, pack_strings, run_positions

EMPTY = np.zeros(0, np.int64)


def test_offsets_of__empty_runs() -> None:
    assert offsets_of(np.array([2, 0, 3])).tolist() == [0, 2, 2, 5]
    assert offsets_of(EMPTY).tolist() == [0]


def test_run_positions__empty_runs() -> None:
    assert run_positions(np.array([2, 0, 3])).tolist() == [0, 1, 0, 1, 2]
    assert run_positions(EMPTY).tolist() == []


def test_distinct__unsorted() -> None:
    assert distinct(np.array([5, -1, 5, 3, -1])).tolist() == [-1, 3, 5]
    assert distinct(EMPTY).tolist() == []


def test_look_up__below_between_above() -> None:
    found, present = look_up(np.array([0, 2, 3, 7, 9]), np.array([2, 7]))
    assert found.tolist() == [0, 0, 0, 1, 0]
    assert present.tolist() == [False, True, False, True, False]
    assert look_up(np.array([4]), EMPTY)[1].tolist() == [False]


def test_pack_strings__utf8_and_empty() -> None:
    columns = pack_strings(["ä", "", "cup"], "name")
    assert columns["name_bytes"].tobytes() == "äcup".encode()
    assert columns["name_offsets"].tolist() == [0, 2, 2, 5]
