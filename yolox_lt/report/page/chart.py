"""A chart as data: built once from arrays, drawn by matplotlib for the images and by JavaScript for the page."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from yolox_lt.data.columns import Bools, Floats
from yolox_lt.report.group_names import GROUP_NAMES

MOST_POINTS = 600
"""Of a line over time; longer ones are thinned by means."""


@dataclass
class Series:
    """One line, cloud of points or group of bars of N values.

    name: for the legend. color: "r", "c", "f", "all" for groups of categories, "0" to "5" for anything else.
    x, y: float64 [N], NaN where there is nothing to draw. low, high: float64 [N], a band around a line, or None.
    kind: "line" or "points". items: int64 [N], label of every point, or None.
    """

    name: str
    color: str
    x: Floats
    y: Floats
    kind: Literal["line", "points"] = "line"
    low: Floats | None = None
    high: Floats | None = None
    items: NDArray[np.int64] | None = None


@dataclass
class Chart:
    """Series over common axes.

    key: short name, equal for charts of the same kind in different runs. note: one line on how to read it.
    x_log, y_log: logarithmic axes; values that are not positive are not drawn. y_range: fixed limits, else by the data.
    rows: names of rows of bars, one for every x; the series lie one after the other in them, their y add up to 1.
    """

    key: str
    title: str
    x_label: str
    y_label: str
    series: list[Series]
    note: str = ""
    x_log: bool = False
    y_log: bool = False
    y_range: tuple[float, float] | None = None
    rows: list[str] = field(default_factory=list)

    @property
    def empty(self) -> bool:
        """Nothing to draw."""
        return not any(np.isfinite(s.x).any() and np.isfinite(s.y).any() for s in self.series)

    def as_json(self) -> dict[str, Any]:
        """Plain values for the page, numbers with five digits, null for NaN."""
        return {
            "key": self.key,
            "title": self.title,
            "x_label": self.x_label,
            "y_label": self.y_label,
            "note": self.note,
            "x_log": self.x_log,
            "y_log": self.y_log,
            "y_range": self.y_range,
            "rows": self.rows,
            "series": [_series_json(series) for series in self.series],
        }


def _series_json(series: Series) -> dict[str, Any]:
    content: dict[str, Any] = {"name": series.name, "color": series.color, "kind": series.kind}
    for name in ("x", "y", "low", "high"):
        values = getattr(series, name)
        content[name] = None if values is None else plain_numbers(values)
    content["items"] = None if series.items is None else series.items.tolist()
    return content


def plain_numbers(values: np.ndarray, digits: int = 5) -> list[float | int | None]:
    """Numbers of `digits` significant digits, short as text; None for NaN and infinities."""
    numbers = np.asarray(values, np.float64).tolist()
    return [_short(float(f"{v:.{digits}g}")) if np.isfinite(v) else None for v in numbers]


def _short(value: float) -> float | int:
    return int(value) if value == int(value) and abs(value) < 1e15 else value


def members(groups: np.ndarray, everything: bool = True) -> dict[str, Bools]:
    """Masks [C] of the groups that have categories, before them "all" if `everything`; only "all" if none is known.

    A single group that holds all categories is "all" too where that is asked for.
    """
    masks = {g: groups == g for g in GROUP_NAMES if (groups == g).any()}
    whole = {"all": np.ones(len(groups), bool)}
    if not masks or (everything and len(masks) == 1 and next(iter(masks.values())).all()):
        return whole
    return whole | masks if everything else masks


def group_name(group: str) -> str:
    """Name of a frequency group, "all" for none."""
    return GROUP_NAMES.get(group, "all")


def thinned(x: Floats, *columns: Floats) -> list[Floats]:
    """x [N] and columns [N] as at most MOST_POINTS means over consecutive values; means of NaN alone stay NaN."""
    if len(x) <= MOST_POINTS:
        return [x, *columns]
    bounds = np.linspace(0, len(x), MOST_POINTS + 1).astype(int)
    return [np.array([_mean(column[a:b]) for a, b in pairwise(bounds.tolist())]) for column in (x, *columns)]


def _mean(values: Floats) -> float:
    values = values[np.isfinite(values)]
    return float(values.mean()) if len(values) else float("nan")


def column_means(values: np.ndarray) -> Floats:
    """Mean over the rows of values [N, K] without NaN, float64 [K]; NaN where a column has nothing else."""
    counted = np.isfinite(values)
    sums = np.where(counted, values, 0).sum(axis=0, dtype=np.float64)
    numbers = counted.sum(axis=0)
    return np.divide(sums, numbers, out=np.full(values.shape[1], np.nan), where=numbers > 0)


def running_median(y: Floats, window: int) -> Floats:
    """Median of the `window` values around every entry of y [N], NaN left out; fewer at the ends."""
    half = window // 2
    result = np.full(len(y), np.nan)
    for i in range(len(y)):
        part = y[max(i - half, 0) : i + half + 1]
        part = part[np.isfinite(part)]
        if len(part):
            result[i] = np.median(part)
    return result
