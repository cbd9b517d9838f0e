"""Two run folders compared bit by bit, without measured times and memory."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch

MEASURED = {"seconds", "images_per_second", "memory_MB", "images/s"}
OWN = ("/exp/output_dir", "/open_epoch/seconds", "/launch")


def differences(a: Path, b: Path) -> list[str]:
    """What differs between the runs in `a` and `b`, one line each; empty for equal runs."""
    found = []
    names = [sorted(p.name for p in folder.glob("*.pth")) for folder in (a, b)]
    if names[0] != names[1]:
        found.append(f"{b}: has {names[1]} instead of {names[0]}")
    for name in set(names[0]) & set(names[1]):
        contents = (torch.load(folder / name, weights_only=True) for folder in (a, b))
        found += [f"{b / name}: {key}" for key in different_keys(*contents)]
    for name, read in (("metrics.csv", read_csv), ("metrics.jsonl", read_json), ("balance.npz", read_arrays)):
        found += [f"{b / name}: {key}" for key in different_keys(read(a / name), read(b / name))]
    if (a / "per_category.csv").read_bytes() != (b / "per_category.csv").read_bytes():
        found.append(f"{b / 'per_category.csv'}: differs")
    left = [p.name for p in b.iterdir() if p.name.endswith(".tmp")]
    return found + [f"{b / name}: left behind" for name in left]


def different_keys(a: Any, b: Any) -> list[str]:
    """Paths of leaves that are not the same bits in both."""
    flat_a, flat_b = flat(a), flat(b)
    keys = [k for k in flat_a.keys() | flat_b.keys() if not k.startswith(OWN)]
    return sorted(k for k in keys if k not in flat_a or k not in flat_b or not same(flat_a[k], flat_b[k]))


def flat(state: Any, prefix: str = "") -> dict[str, Any]:
    """Nested content as {path: leaf}."""
    if isinstance(state, (list, tuple)):
        state = dict(enumerate(state))
    if not isinstance(state, dict):
        return {prefix: state}
    return {k: v for key, value in state.items() for k, v in flat(value, f"{prefix}/{key}").items()}


def same(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor):
        if not isinstance(b, torch.Tensor) or a.dtype != b.dtype or a.shape != b.shape:
            return False
        return bool(((a == b) | (a.isnan() & b.isnan())).all())
    if isinstance(a, np.ndarray):
        return bool(np.array_equal(a, b, equal_nan=a.dtype.kind == "f"))
    if isinstance(a, float) and math.isnan(a):
        return isinstance(b, float) and math.isnan(b)
    return type(a) is type(b) and bool(a == b)


def read_csv(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return [{k: v for k, v in row.items() if k not in MEASURED} for row in csv.DictReader(file)]


def read_json(path: Path) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return [{k: v for k, v in row.items() if k not in MEASURED} for row in rows]


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as archive:
        return dict(archive)
