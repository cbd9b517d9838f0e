"""What the tables of the study are made of: values of rows by seed, numbers as text, a table."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from studies.compare import Estimate, estimate

Rows = Sequence[dict[str, str]]


def value(row: dict[str, str], metric: str) -> float:
    """A number of a row, NaN where it is empty; margin_G is the score of positives less that of negatives."""
    if metric.startswith("margin_"):
        group = metric[-1]
        return value(row, f"pos_score_{group}") - value(row, f"neg_score_{group}")
    text = row.get(metric, "")
    return float(text) if text else math.nan


def by_seed(rows: Rows, set_name: str, case: str, metric: str) -> dict[str, float]:
    """Seed -> value of one case's runs; runs without the value are left out."""
    found = {r["seed"]: value(r, metric) for r in rows if r["set"] == set_name and r["case"] == case}
    return {seed: number for seed, number in found.items() if not math.isnan(number)}


def mean_of(rows: Rows, set_name: str, case: str, metric: str) -> Estimate:
    return estimate(np.array(list(by_seed(rows, set_name, case, metric).values())))


def number(found: Estimate, digits: int = 1) -> str:
    """ "31.2 ± 0.8"; the interval is missing for one seed, everything for none."""
    if found.n == 0:
        return "-"
    half = "" if math.isnan(found.half) else f" ± {found.half:.{digits}f}"
    return f"{found.mean:.{digits}f}{half}"


def signed(found: Estimate, digits: int = 1) -> str:
    """ "+3.1 [+1.0, +5.2]"."""
    if found.n == 0:
        return "-"
    text = f"{found.mean:+.{digits}f}"
    return text if math.isnan(found.half) else f"{text} [{found.low:+.{digits}f}, {found.high:+.{digits}f}]"


@dataclass(frozen=True)
class Table:
    """Cells as text. head: K names. body: lines of K cells each."""

    head: Sequence[str]
    body: Sequence[Sequence[str]]

    def __str__(self) -> str:
        """The table in markdown."""
        lines = ["| " + " | ".join(self.head) + " |", "|" + "---|" * len(self.head)]
        return "\n".join([*lines, *("| " + " | ".join(line) + " |" for line in self.body)])

    def csv(self) -> str:
        """The same cells as a csv file, without markdown's bold type."""
        text = io.StringIO()
        plain = [[cell.replace("**", "") for cell in line] for line in self.body]
        csv.writer(text, lineterminator="\n").writerows([self.head, *plain])
        return text.getvalue()

    def rows_where(self, keep: Callable[[dict[str, str]], bool]) -> Table:
        """The lines, as cell by name of its column, that `keep` takes."""
        return Table(self.head, [line for line in self.body if keep(dict(zip(self.head, line)))])
