"""Numpy building blocks for columns: runs of values with offsets, distinct values, look-up in sorted values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Columns = dict[str, NDArray[Any]]
Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


def offsets_of(counts: Ints) -> Ints:
    """Lengths [I] of consecutive runs -> where each begins, int64 [I + 1]; the last entry is the total."""
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)


def run_positions(counts: Ints) -> Ints:
    """Position of every element inside its run, for consecutive runs of the given lengths: [2, 3] -> 0 1 0 1 2."""
    offsets = offsets_of(counts)
    return np.arange(offsets[-1]) - np.repeat(offsets[:-1], counts)


def distinct(values: Ints) -> Ints:
    """Distinct values, ascending. Sorting beats the hash table of `np.unique` several times on millions of ids."""
    values = np.sort(values)
    return values[np.flatnonzero(np.append(True, values[1:] != values[:-1])[: len(values)])]


def look_up(values: Ints, known: Ints) -> tuple[Ints, Bools]:
    """Where `values` [N] stand in the sorted, distinct `known`, and whether they do (the position is 0 if not)."""
    if len(known) == 0:
        return np.zeros(len(values), np.int64), np.zeros(len(values), bool)
    found = np.searchsorted(known, values).clip(max=len(known) - 1)
    present = known[found] == values
    return np.where(present, found, 0), present


def pack_strings(strings: Sequence[str], name: str) -> Columns:
    """Strings as one run of utf-8 bytes with offsets, so that they live in a mapped file like numbers."""
    encoded = [string.encode() for string in strings]
    lengths = np.array([len(item) for item in encoded], np.int64)
    return {f"{name}_bytes": np.frombuffer(b"".join(encoded), np.uint8), f"{name}_offsets": offsets_of(lengths)}
