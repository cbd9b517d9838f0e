"""The csv files of a study: a row for each finished run, so that a run that has a row is not repeated."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from pathlib import Path
from typing import Any

RUNS, COURSES, REGIME = "runs.csv", "courses.csv", "regime.csv"
EARLIER = "runs_earlier.csv"
"""Published rows that newer ones have replaced: the same runs from other starts."""
FORMS = "ratio.csv"
"""Published rows of exps/glyphs/tail.py with other forms of g."""
OWN = "own.csv"
DEFAULTS = "defaults.csv"
"""Published rows of `tools/train.py --data`: MUSCIMA++, whose images are not in this repository, and 60 glyphs."""

FORECAST = "forecast.csv"
"""Resting scores of the groups of each data set: what the rule of regime.py says before a training."""
PUBLISHED = Path(__file__).resolve().parents[1] / "docs" / "results"

Row = dict[str, Any]


def read_rows(path: Path) -> list[dict[str, str]]:
    """All rows as text; none without the file."""
    if not path.is_file():
        return []
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def append_rows(path: Path, rows: Iterable[Row]) -> None:
    """Add rows, under new columns where they have some; the file is replaced as a whole, never half written."""
    table: list[Row] = [*read_rows(path), *rows]
    columns = list(dict.fromkeys(name for row in table for name in row))
    temporary = path.with_name(f".{path.name}")
    with open(temporary, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(table)
    temporary.replace(path)


def key_of(row: dict[str, Any]) -> tuple[str, str, str]:
    """What a run is known by: set, case, seed."""
    return str(row["set"]), str(row["case"]), str(row["seed"])
