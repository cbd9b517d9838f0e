"""What lies in a run's folder, read for its report."""

from __future__ import annotations

import csv
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from yolox_lt.data.columns import Floats
from yolox_lt.errors import UserError
from yolox_lt.report.analysis.analysis import FILE as EVALUATION
from yolox_lt.report.analysis.analysis import Analysis
from yolox_lt.report.analysis.balance_file import COLUMNS as BALANCE_COLUMNS
from yolox_lt.report.analysis.balance_file import FILE as BALANCE
from yolox_lt.report.analysis.balance_file import read_balance

PURPOSES = {
    "config.json": "settings",
    "metrics.csv": "metrics of the epochs",
    "metrics.jsonl": "losses inside the epochs",
    "per_category.csv": "AP of the categories",
    BALANCE: "balance of the categories, which plain losses do not have",
    EVALUATION: "errors, thresholds, margins and images",
}
"""File -> what a report takes from it."""

TEXT_COLUMNS = ("name", "group")


@dataclass
class Run:
    """A run's files; what is not there is empty or None.

    name: of the folder. config: as in config.json. epochs: column -> one value per row of metrics.csv, NaN where empty.
    steps: likewise of metrics.jsonl. categories: column -> one value per row of per_category.csv, texts for name and
    group, else floats. balance: arrays of balance.npz, see `balance_file`; None for a loss without a gradient balance.
    memory: of another loss, column -> what it remembers of every category at last, [C]. missing: file names.
    """

    name: str
    folder: Path
    config: dict[str, Any]
    epochs: dict[str, list[float]]
    steps: dict[str, list[float]]
    categories: dict[str, list[Any]]
    balance: dict[str, np.ndarray] | None
    memory: dict[str, np.ndarray]
    analysis: Analysis | None
    missing: list[str]

    @property
    def category_names(self) -> list[str]:
        """Of per_category.csv, else of the evaluation; empty where neither is there."""
        if self.categories:
            return self.categories["name"]
        return [] if self.analysis is None else list(self.analysis.names)

    @property
    def groups(self) -> np.ndarray:
        """ "r", "c", "f" or "" of every category [C]."""
        if self.analysis is not None:
            return self.analysis.groups
        return np.array(self.categories.get("group", []), "<U1")

    @property
    def train_counts(self) -> np.ndarray | None:
        """int64 [C], training images of every category; None where unknown."""
        if self.analysis is None or (self.analysis.train_counts < 0).any():
            return None
        return self.analysis.train_counts

    def column(self, name: str) -> Floats:
        """A column of metrics.csv, float64 [rows]; empty if there is none."""
        return np.array(self.epochs.get(name, []), np.float64)


def read_run(folder: str | Path) -> Run:
    """Everything a report needs from a run's folder.

    Raises:
        UserError: no such folder, none of the files in it, a file that cannot be read, or files of different category
            lists.
    """
    path = Path(folder)
    if not path.is_dir():
        raise UserError(f"{path}: no such folder; give the folder of a run, such as YOLOX_outputs/NAME")
    missing = [name for name in PURPOSES if not (path / name).is_file()]
    if len(missing) == len(PURPOSES):
        raise UserError(f"{path}: holds no files of a run ({', '.join(PURPOSES)}); give a run's folder")
    there = {name: path / name for name in PURPOSES if name not in missing}
    balance, memory = _read_balance(there[BALANCE]) if BALANCE in there else (None, {})
    run = Run(
        name=path.resolve().name,
        folder=path,
        config=_read_json(there["config.json"]) if "config.json" in there else {},
        epochs=_numbers(there["metrics.csv"]) if "metrics.csv" in there else {},
        steps=_read_steps(there["metrics.jsonl"]) if "metrics.jsonl" in there else {},
        categories=_read_categories(there["per_category.csv"]) if "per_category.csv" in there else {},
        balance=balance,
        memory=memory,
        analysis=Analysis.load(there[EVALUATION]) if EVALUATION in there else None,
        missing=missing,
    )
    _check_lists(run)
    return run


def missing_line(run: Run) -> str:
    """One sentence on the files that are not there; empty if all are."""
    if not run.missing:
        return ""
    return f"{run.name}: not there: " + "; ".join(f"{name} ({PURPOSES[name]})" for name in run.missing)


def _check_lists(run: Run) -> None:
    """The files must speak of the same categories: they are brought together by position."""
    names, analysis = run.category_names, run.analysis
    if analysis is not None and names != list(analysis.names):
        raise UserError(
            f"{run.folder}: per_category.csv and {EVALUATION} list different categories; delete the older of the two"
        )
    for name, values in run.memory.items():
        if names and len(values) != len(names):
            raise UserError(
                f"{run.folder}: {BALANCE} has {len(values)} categories ({name}) and per_category.csv {len(names)}; "
                "delete the older of the two"
            )
    if run.balance is not None and names and run.balance["ratio"].shape[1] != len(names):
        raise UserError(
            f"{run.folder}: {BALANCE} has {run.balance['ratio'].shape[1]} categories and per_category.csv "
            f"{len(names)}; delete the older of the two"
        )


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise _unreadable(path, error) from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: holds no settings; delete it or bring back the run's own file")
    return content


def _rows(path: Path) -> tuple[list[str], list[list[str]]]:
    """Header and complete rows: the last one may be half written while the run continues."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    if not rows:
        return [], []
    return rows[0], [row for row in rows[1:] if len(row) == len(rows[0])]


def _numbers(path: Path) -> dict[str, list[float]]:
    header, rows = _rows(path)
    try:
        return {name: [float(row[i]) if row[i] else math.nan for row in rows] for i, name in enumerate(header)}
    except ValueError as error:
        raise _unreadable(path, error) from error


def _read_categories(path: Path) -> dict[str, list[Any]]:
    header, rows = _rows(path)
    if not {"id", "name", "group", "AP"} <= set(header):
        raise UserError(f"{path}: has not the columns id, name, group, AP; write it again with tools/eval.py --csv")
    try:
        return {
            name: [row[i] if name in TEXT_COLUMNS else float(row[i]) for row in rows] for i, name in enumerate(header)
        }
    except ValueError as error:
        raise _unreadable(path, error) from error


def _read_steps(path: Path) -> dict[str, list[float]]:
    rows = []
    try:
        for line in path.read_text(encoding="utf-8").splitlines():
            if line.endswith("}"):  # the last line may be half written while the run continues
                rows.append(json.loads(line))
    except ValueError as error:
        raise _unreadable(path, error) from error
    names = dict.fromkeys(name for row in rows for name in row)
    return {n: [math.nan if row.get(n) is None else float(row[n]) for row in rows] for n in names}


def _read_balance(path: Path) -> tuple[dict[str, np.ndarray] | None, dict[str, np.ndarray]]:
    """The history of a gradient balance, else the last row of what a loss with another memory keeps."""
    try:
        history = read_balance(path)
        if "ratio" not in history and "epochs" in history:
            return None, {name: values[-1] for name, values in history.items() if name != "epochs"}
        return {name: history[name] for name in ("epochs", *BALANCE_COLUMNS)}, {}
    except (OSError, ValueError, KeyError, IndexError, BadZipFile) as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> UserError:
    return UserError(f"{path}: cannot be read ({error}); delete it or bring back the run's own file")
