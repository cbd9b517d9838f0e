"""balance.npz: what a loss remembered of every category, epoch by epoch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from yolox_lt.losses import CategoryLoss
from yolox_lt.report.group_names import GROUP_NAMES

FILE = "balance.npz"

COLUMNS = ("pos_grad", "neg_grad", "ratio", "focusing", "weight")
"""Columns of a loss with a gradient balance, each float32 [C]; other losses have others.

pos_grad, neg_grad: sums of absolute gradients. ratio: g. focusing: the exponent of negatives. weight: the factor on
negatives (EFL and EQFL: on positives too).
"""

STUCK_SHARE = 0.99
"""Share of categories at g = 1 above which the equalized loss is no more than its plain form."""

LOW_RATIO = 0.2
"""Below this g of a whole group its negatives have nearly the largest exponent and weight. Our choice: with it in every
group of MUSCIMA++ (109 categories) AP was 3 after 900 steps, 33 where g separated the groups."""

Columns = dict[str, np.ndarray]


def balance_columns(loss: CategoryLoss) -> Columns:
    """The state of a loss by name, each float32 [C] in the memory of the host; empty for a loss without one."""
    return {name: value.detach().float().cpu().numpy().copy() for name, value in loss.category_state().items()}


def write_balance(path: Path, rows: list[tuple[int, Columns]]) -> None:
    """Write (epoch, columns) as epochs int64 [E] and every column [E, C], whole or not at all."""
    columns: dict[str, Any] = {name: np.stack([row[name] for _, row in rows]) for name in rows[0][1]}
    temporary = path.with_name(f".{path.name}")
    with open(temporary, "wb") as file:
        np.savez_compressed(file, epochs=np.array([epoch for epoch, _ in rows]), **columns)
    temporary.replace(path)


def read_balance(path: Path) -> Columns:
    """epochs int64 [E] and the columns [E, C] of a file; errors as those of `numpy.load`."""
    with np.load(path, allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


def read_rows(path: Path, last_epoch: int) -> list[tuple[int, Columns]]:
    """(epoch, columns) up to an epoch; empty without the file."""
    if not path.is_file():
        return []
    columns = read_balance(path)
    epochs = columns.pop("epochs").tolist()
    return [(e, {name: c[i] for name, c in columns.items()}) for i, e in enumerate(epochs) if e <= last_epoch]


def group_medians(ratio: np.ndarray, groups: np.ndarray | None) -> dict[str, float]:
    """Median g of each frequency group that has categories; of all where no group is known."""
    if groups is None or not np.isin(groups, list("rcf")).any():
        return {"all": float(np.median(ratio))}
    return {GROUP_NAMES[g]: float(np.median(ratio[groups == g])) for g in "rcf" if (groups == g).any()}


def group_lines(state: Columns, groups: np.ndarray | None) -> list[str]:
    """The medians of each frequency group that has categories, one line each.

    Args:
        state: columns [C]. groups: "r", "c" or "f" per category, None where unknown.
    """
    names = {"ratio": "g", "focusing": "gamma", "weight": "weight"}
    shown = {name: names.get(name, name) for name in (names if "ratio" in state else state)}
    members = {"all": np.ones(len(next(iter(state.values()))), bool)}
    if groups is not None:
        members = {GROUP_NAMES[g]: groups == g for g in "rcf" if (groups == g).any()}
    return [
        f"balance {group:<8} ({int(of.sum()):,}): median "
        + ", ".join(f"{word} {np.median(state[name][of]):.{3 if word == 'g' else 2}f}" for name, word in shown.items())
        for group, of in members.items()
    ]
