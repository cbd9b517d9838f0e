"""The images of a run's report, by matplotlib without a display."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from yolox_lt.report.page.chart import Chart, Series
from yolox_lt.report.page.charts import margin_chart
from yolox_lt.report.page.run_charts import category_order, charts_of, margins_of, ordered
from yolox_lt.report.page.run_files import Run

if TYPE_CHECKING:
    from matplotlib.axes import Axes

IMAGES = {
    "curves.png": ("losses", "rate", "ap"),
    "balance.png": ("balance", "balance_images"),
    "pr.png": ("pr",),
    "f1.png": ("f1",),
    "errors.png": ("errors",),
    "fig2_ratio.png": ("ratio",),
    "fig3_loss.png": ("loss_plain", "loss"),
    "fig4_margin.png": ("margin",),
    "fig5_derivative.png": ("derivative",),
}
"""File -> keys of the charts in it; the numbers are those of the figures in the EFL paper."""

PAPER_CHARTS = tuple(key for name, keys in IMAGES.items() if name.startswith("fig") for key in keys)
"""Keys of the charts after figures of the EFL paper, which the page has behind a heading of their own."""

COLORS = {
    "r": "#c8394d",
    "c": "#c77f0a",
    "f": "#00798c",
    "all": "#30343b",
    "0": "#2467b5",
    "1": "#d1622b",
    "2": "#2b8a5a",
    "3": "#9a4fb0",
    "4": "#8a7a1c",
    "5": "#6b7280",
}

BELOW: dict[str, Any] = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.13), "ncols": 3, "markerscale": 1.6}
"""Place of a legend that must not lie on the points."""


def render_figures(run: Run, others: Sequence[Run] = ()) -> dict[str, list[Chart]]:
    """Draw what the run's files allow below its folder's pictures/; the margins of `others` beside its own.

    Returns:
        File name -> the charts in it. A file that cannot be drawn from what is there is not among them.
    """
    made = {chart.key: chart for chart in charts_of(run)}
    margins = margins_of([run, *others])
    if "margin" in made and len(margins) > 1:
        made["margin"] = ordered(margin_chart(margins, category_order(run)[0]), run)
    folder = run.folder / "pictures"
    folder.mkdir(exist_ok=True)
    drawn = {}
    for name, keys in IMAGES.items():
        panels = [made[key] for key in keys if key in made]
        if panels:
            render_panels(panels, folder / name)
            drawn[name] = panels
    return drawn


def render_panels(panels: Sequence[Chart], path: Path) -> None:
    """Charts side by side as one PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    width = 9 if len(panels) == 1 else 5.6 * len(panels)
    figure = Figure(figsize=(width, 4.4), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, chart in zip(np.atleast_1d(figure.subplots(1, len(panels))), panels):
        if chart.rows:
            render_shares(axes, chart)
        else:
            for series in chart.series:
                render_series(axes, series, chart)
            if chart.x_log:
                axes.set_xscale("log")
                axes.xaxis.set_major_formatter("{x:,.0f}")
            elif all((series.x == np.round(series.x)).all() for series in chart.series):
                axes.xaxis.get_major_locator().set_params(integer=True)
                only = np.unique(np.concatenate([series.x for series in chart.series]))
                if len(only) == 1:  # one epoch: no room for ticks between its neighbours
                    axes.set_xlim(only[0] - 1, only[0] + 1)
            if chart.y_log:
                axes.set_yscale("log")
            if chart.y_range is not None:
                axes.set_ylim(*chart.y_range)
            axes.set_ylabel(chart.y_label)
            axes.grid(alpha=0.25)
            if len(chart.series) > 1:
                points = any(series.kind == "points" for series in chart.series)
                axes.legend(**(BELOW if points else {}), frameon=False)
        axes.set_xlabel(chart.x_label or chart.y_label)
        axes.set_title(chart.title)
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=110)


def render_series(axes: Axes, series: Series, chart: Chart) -> None:
    """Draw one series of a chart."""
    color = COLORS[series.color]
    if series.kind == "points":
        size, alpha = (28, 0.7) if len(series.x) < 150 else (9, 0.4)
        axes.scatter(series.x, series.y, s=size, color=color, alpha=alpha, linewidths=0, label=series.name)
        return
    # A line of one point is none: it gets a mark.
    marker = "o" if np.isfinite(series.y).sum() <= 12 and len(series.y) <= 12 else None
    axes.plot(series.x, series.y, color=color, marker=marker, markersize=4, linewidth=1.8, label=series.name)
    if series.low is not None and series.high is not None:
        axes.fill_between(series.x, series.low, series.high, color=color, alpha=0.15, linewidth=0)


def render_shares(axes: Axes, chart: Chart) -> None:
    """Rows of stacked bars, the first on top, the kinds above them."""
    rows = np.arange(len(chart.rows))
    left = np.zeros(len(rows))
    for series in chart.series:
        axes.barh(rows, series.y, left=left, color=COLORS[series.color], label=series.name, height=0.7)
        for row, (start, share) in enumerate(zip(left.tolist(), series.y.tolist())):
            if share >= 0.04:
                axes.text(start + share / 2, row, f"{100 * share:.0f}", ha="center", va="center", color="white")
        left = left + series.y
    axes.set_yticks(rows, chart.rows)
    axes.invert_yaxis()
    axes.set_xlim(0, 1)
    axes.set_xticks(np.linspace(0, 1, 6), [f"{100 * t:.0f} %" for t in np.linspace(0, 1, 6)])
    axes.legend(**BELOW, frameon=False)
