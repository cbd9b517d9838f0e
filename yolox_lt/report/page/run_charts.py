"""Which charts a run's files allow, and which of several runs together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from yolox_lt.data.columns import Ints
from yolox_lt.report.page import charts
from yolox_lt.report.page.chart import Chart
from yolox_lt.report.page.run_files import Run


def charts_of(run: Run) -> list[Chart]:
    """All charts of one run that are not empty, in the order of reading."""
    made = [*progress_charts(run), *evaluation_charts(run), *balance_charts(run), *loss_shape_charts(run)]
    if run.analysis is not None:
        chart = charts.margin_chart({run.name: run.analysis.margin}, category_order(run)[0], run.groups)
        made.append(ordered(chart, run))
    return [chart for chart in made if not chart.empty]


def progress_charts(run: Run) -> list[Chart]:
    """Losses and learning rate by iteration, or by epoch without metrics.jsonl; AP by epoch."""
    made = []
    if run.steps and "iteration" in run.steps:
        columns, label = run.steps, "iteration"
        x = [i + 1 for i in run.steps["iteration"]]
    else:
        columns, label = run.epochs, "epoch"
        x = run.epochs.get("epoch", [])
    if columns:
        made.append(charts.losses_chart(columns, x, label))
    if "lr" in columns:
        made.append(charts.rate_chart(columns["lr"], x, label))
    if run.epochs:
        made.append(charts.ap_chart(run.epochs, run.epochs["epoch"]))
    return made


def evaluation_charts(run: Run) -> list[Chart]:
    """Precision, F1 and errors of the best evaluation."""
    found = run.analysis
    if found is None:
        return []
    return [
        charts.precision_chart(found.precision, found.groups),
        charts.f1_chart(found.f1, found.groups),
        charts.error_chart(found.errors, found.groups),
    ]


def balance_charts(run: Run) -> list[Chart]:
    """g over epochs, g against training images, gradients by category."""
    balance = run.balance
    if balance is None:
        return []
    groups = groups_of_balance(run, balance["ratio"].shape[1])
    made = [charts.balance_chart(balance["epochs"], balance["ratio"], groups)]
    if run.train_counts is not None:
        made.append(charts.balance_by_images_chart(balance["ratio"][-1], run.train_counts, groups))
    if run.category_names:
        order = category_order(run)[0]
        made.append(
            ordered(
                charts.gradient_ratio_chart(balance["pos_grad"][-1], balance["neg_grad"][-1], order, groups),
                run,
            )
        )
    return made


def loss_shape_charts(run: Run) -> list[Chart]:
    """The loss and its derivative at the focusing factors and weights of the last epoch."""
    balance = run.balance
    if balance is None:
        return []
    groups = groups_of_balance(run, balance["ratio"].shape[1])
    gamma = charts.medians_by_group(balance["focusing"][-1], groups)
    weight = charts.medians_by_group(balance["weight"][-1], groups)
    return [*charts.loss_charts(gamma, weight), charts.derivative_chart(gamma, weight)]


def comparison_charts(runs: Sequence[Run]) -> list[Chart]:
    """Charts that hold all runs: AP by epoch, precision, F1 and, where the categories are the same, margins."""
    made = []
    for key in charts.METRICS:
        parts = [
            (run, charts.ap_chart({key: run.epochs[key]}, run.epochs["epoch"])) for run in runs if key in run.epochs
        ]
        made.append(_joined(f"compare_{key}", key, parts))
    for build in (charts.precision_chart, charts.f1_chart):
        parts = []
        for run in runs:
            if run.analysis is not None:
                values = run.analysis.precision if build is charts.precision_chart else run.analysis.f1
                parts.append((run, build(values, np.full(len(values), ""))))
        made.append(_joined(f"compare_{parts[0][1].key}", parts[0][1].title, parts) if parts else None)
    margins = margins_of(runs)
    if margins:
        made.append(ordered(charts.margin_chart(margins, category_order(runs[0])[0]), runs[0]))
    return [chart for chart in made if chart is not None and not chart.empty]


def margins_of(runs: Sequence[Run]) -> dict[str, np.ndarray]:
    """Margins by run, those runs that have them and the categories of the first one."""
    names = runs[0].category_names
    return {
        run.name: run.analysis.margin for run in runs if run.analysis is not None and list(run.analysis.names) == names
    }


def category_order(run: Run) -> tuple[Ints, str]:
    """The categories, those with most training images first, and the name of this order; else by validation images."""
    names = {"training": run.train_counts, "validation": run.categories.get("images")}
    for what, counts in names.items():
        if counts is not None:
            return np.argsort(-np.array(counts), kind="stable"), f"category, most {what} images first"
    return np.arange(len(run.category_names)), "category, by id"


def ordered(chart: Chart, run: Run) -> Chart:
    """The chart with an x axis that says how the categories are ordered."""
    return replace(chart, x_label=category_order(run)[1])


def groups_of_balance(run: Run, num_categories: int) -> np.ndarray:
    """Frequency groups of the categories in the balance, "" where the run does not know them."""
    return run.groups if len(run.groups) == num_categories else np.full(num_categories, "")


def _joined(key: str, title: str, parts: list[tuple[Run, Chart]]) -> Chart | None:
    """The first series of every run's chart in one chart, named and coloured by run."""
    if not parts:
        return None
    series = [
        replace(chart.series[0], name=run.name, color=str(i % 6))
        for i, (run, chart) in enumerate(parts)
        if chart.series
    ]
    return replace(parts[0][1], key=key, title=title, series=series)
