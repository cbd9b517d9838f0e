"""The numbers of a report's page, as plain values for json."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from yolox_lt.data.columns import Ints
from yolox_lt.report.analysis.balance_file import STUCK_SHARE
from yolox_lt.report.analysis.tide import KINDS
from yolox_lt.report.group_names import GROUP_NAMES
from yolox_lt.report.page.after_section import after_training
from yolox_lt.report.page.category_images import FOLDER as IMAGES
from yolox_lt.report.page.chart import plain_numbers
from yolox_lt.report.page.failing import RULE_TEXTS, failing_categories
from yolox_lt.report.page.figures import PAPER_CHARTS
from yolox_lt.report.page.found_by_one import found_by_one
from yolox_lt.report.page.run_charts import charts_of, comparison_charts
from yolox_lt.report.page.run_files import Run, missing_line

MOST_EPOCHS = 100
"""Of the balance of single categories; more are thinned."""

ENTRY_CHARACTERS = 190
"""Of the text beside an image, at most as a rule."""

GROUP_MEANS = ("AP", "AR", "F1")
GROUP_MEDIANS = ("train_images", "draws", "g", "gamma", "threshold")

SUMMARY_METRICS = ("AP", "AP50", "AP75", "APs", "APm", "APl", "APr", "APc", "APf", "AR")


def page_data(runs: Sequence[Run]) -> dict[str, Any]:
    """Everything the page shows but its images. The first run is the one the others are compared with."""
    names = [run.name for run in runs]
    return {
        "title": " and ".join(filter(None, (", ".join(names[:-1]), names[-1]))),
        "runs": [run_data(run) for run in runs],
        "comparison": [chart.as_json() for chart in comparison_charts(runs)] if len(runs) > 1 else [],
        "found_by_one": [pair for k in range(1, len(runs)) for pair in found_by_one(runs, k)],
        "paper_charts": PAPER_CHARTS,
        "cause_rules": RULE_TEXTS,
        "missing": [line for line in map(missing_line, runs) if line],
        "error_kinds": KINDS,
    }


def run_data(run: Run) -> dict[str, Any]:
    """Everything of a run that the page shows."""
    columns = category_columns(run)
    return {
        "name": run.name,
        "protocol": None if run.analysis is None else run.analysis.protocol,
        "evaluated_epoch": None if run.analysis is None else run.analysis.epoch,
        "facts": facts(run),
        "best": best_row(run),
        "epochs": {name: exact_numbers(column) for name, column in run.epochs.items()},
        "settings": settings(run),
        "charts": [chart.as_json() for chart in charts_of(run)],
        "categories": columns,
        "failing": failing_categories(run, columns),
        "groups": group_rows(columns),
        "notices": [line for line in (stale_line(run), balance_line(run)) if line],
        "balance": balance_history(run),
        "after": after_training(run.folder),
        "confusion": [] if run.analysis is None else run.analysis.confusion.tolist(),
        "curves": None
        if run.analysis is None
        else {"precision": packed(run.analysis.precision), "f1": packed(run.analysis.f1)},
    }


def facts(run: Run) -> list[tuple[str, str]]:
    """What one wants to know of a run at first, name and text."""
    exp = run.config.get("exp", {})
    made: list[tuple[str, str]] = []
    epochs = run.column("epoch")
    if len(epochs):
        planned = f" of {exp['max_epoch']}" if "max_epoch" in exp else ""
        made.append(("epochs", f"{int(epochs[-1])}{planned}"))
    seconds = run.column("seconds")
    if np.isfinite(seconds).any():
        made.append(("training time", duration(float(np.nansum(seconds)))))
    speed = run.column("images_per_second")
    if np.isfinite(speed).any():
        made.append(("speed", f"{np.nanmedian(speed):.1f} images/s (median epoch)"))
    made += [(key.replace("_", " "), str(exp[key])) for key in ("cls_loss", "assigner", "sampler") if key in exp]
    for key in ("batch_size", "world", "device", "amp"):
        if run.config.get(key) is not None:
            made.append(({"world": "processes"}.get(key, key.replace("_", " ")), str(run.config[key])))
    if isinstance(run.config.get("command"), list):
        made.append(("command", " ".join(map(str, run.config["command"]))))
    return made


def duration(seconds: float) -> str:
    """1 h 02 min, 5 min 07 s or 12 s."""
    minutes, rest = divmod(round(seconds), 60)
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def best_row(run: Run) -> dict[str, float | None]:
    """epoch and SUMMARY_METRICS of the row of metrics.csv that best.pth is of: the highest `best_metric`, of equal ones
    the latest; empty if no epoch was evaluated.

    Without a metrics.csv those of the evaluation.
    """
    if not run.epochs and run.analysis is not None:
        found = {name: run.analysis.metrics[name] for name in SUMMARY_METRICS if name in run.analysis.metrics}
        if run.analysis.epoch is not None:
            found["epoch"] = run.analysis.epoch
        return dict(zip(found, exact_numbers(list(found.values()))))
    metric = run.column(run.config.get("exp", {}).get("best_metric", "AP"))
    if not np.isfinite(metric).any():
        return {}
    row = int(np.flatnonzero(metric == np.nanmax(metric))[-1])
    return {n: exact_numbers([run.epochs[n][row]])[0] for n in ("epoch", *SUMMARY_METRICS) if n in run.epochs}


def settings(run: Run) -> dict[str, str]:
    """All of config.json, attributes of the experiment first, as texts."""
    exp = run.config.get("exp", {})
    found = {str(key): text_of(value) for key, value in exp.items()}
    for key, value in run.config.items():
        if key == "versions" and isinstance(value, dict):
            found |= {f"version of {name}": str(version) for name, version in value.items()}
        elif key != "exp" and key not in found:
            found[key] = text_of(value)
    return found


def text_of(value: Any) -> str:
    """A value of config.json as text."""
    if value is None:
        return "none"
    if isinstance(value, list):
        return " ".join(map(text_of, value))
    return str(value)


def category_columns(run: Run) -> dict[str, list[Any]]:
    """Column -> one value per category: those of per_category.csv as they stand, then what other files add to them.

    The metrics of the evaluation stand in for a per_category.csv that is not there. "AP_best" is there if the
    evaluation is another one than that of per_category.csv.
    """
    columns: dict[str, list[Any]] = {
        name: values if name in ("name", "group") else exact_numbers(values) for name, values in run.categories.items()
    }
    found = run.analysis
    if found is not None:
        if not columns:
            columns = {
                "id": found.category_ids.tolist(),
                "name": list(found.names),
                "group": found.groups.tolist(),
                "boxes": found.box_counts.tolist(),
                "detections": found.detection_counts.tolist(),
            }
            columns |= {name: plain_numbers(values, 6) for name, values in found.values.items()}
        elif stale_line(run):
            columns["AP_best"] = plain_numbers(found.values["AP"], 6)
        columns["F1"] = plain_numbers(found.best_f1)
        columns.setdefault("threshold", plain_numbers(found.threshold))
        columns["margin"] = plain_numbers(found.margin)
        columns["hits"] = found.hits.tolist()
        columns |= {kind: found.errors[:, k].tolist() for k, kind in enumerate(KINDS)}
    if run.train_counts is not None:
        columns.setdefault("train_images", run.train_counts.tolist())
    if run.balance is not None and columns:
        for name, column in (("g", "ratio"), ("gamma", "focusing"), ("weight", "weight")):
            columns.setdefault(name, plain_numbers(run.balance[column][-1]))
    if columns:
        for name, values in run.memory.items():
            columns.setdefault(name, plain_numbers(values))
    return columns


def group_rows(columns: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    """What each frequency group came to: one row each, and one for all ("") unless a group has them all; empty without
    `columns` of the categories.

    categories: how many; scored: those with boxes to be found. AP, AR, F1: means over the scored categories.
    train_images, draws, g, gamma, threshold: medians. worst: the most frequent kind of error and its share of the
    group's errors, None without errors.
    """
    if not columns:
        return []
    numbers = {n: np.array(c, np.float64) for n, c in columns.items() if n not in ("name", "group")}
    groups = np.array(columns["group"])
    rows = []
    known = [g for g in GROUP_NAMES if (groups == g).any()]
    for group in known if len(known) == 1 and (groups == known[0]).all() else [*known, ""]:
        of = np.ones(len(groups), bool) if group == "" else groups == group
        row: dict[str, Any] = {"group": group, "categories": int(of.sum())}
        row["scored"] = int((numbers["boxes"][of] > 0).sum()) if "boxes" in numbers else None
        for middle, names in ((np.mean, GROUP_MEANS), (np.median, GROUP_MEDIANS)):
            for name in names:
                values = numbers[name][of] if name in numbers else np.zeros(0)
                values = values[np.isfinite(values)]
                row[name] = plain_numbers(np.array([middle(values)]))[0] if len(values) else None
        errors = np.array([numbers[kind][of].sum() for kind in KINDS if kind in numbers])
        share = float(errors.max() / errors.sum()) if errors.sum() else 0.0
        row["worst"] = [KINDS[int(errors.argmax())], round(share, 4)] if share else None
        rows.append(row)
    return rows


def balance_line(run: Run) -> str:
    """Says so if the balance does nothing; else empty."""
    if run.balance is None:
        return ""
    ratio = run.balance["ratio"][-1]
    ones = float((ratio == 1).mean())
    if ones <= STUCK_SHARE:
        return ""
    return (
        f"{run.name}: after epoch {int(run.balance['epochs'][-1])} g is 1 for {ones:.0%} of the categories: the "
        "equalized loss acts as its plain form. A larger prior_prob leaves negatives more gradient."
    )


def stale_line(run: Run) -> str:
    """Says so if evaluation.npz is not of the evaluation in per_category.csv; else empty."""
    found = run.analysis
    if found is None or not run.categories:
        return ""
    if np.allclose(np.array(run.categories["AP"], np.float64), found.values["AP"], atol=1e-6, equal_nan=True):
        return ""
    which = "the best evaluation" if found.epoch is None else f"the best evaluation (epoch {found.epoch})"
    threshold = "" if "threshold" in run.categories else "threshold, "
    return (
        f"{run.name}: AP and AR of the categories are those of another evaluation (per_category.csv); F1, {threshold}"
        f"margin, errors, curves, images and 'AP best' are those of {which}."
    )


def balance_history(run: Run) -> dict[str, Any] | None:
    """epochs and the packed g [E, C] of at most MOST_EPOCHS epochs, the last one among them."""
    if run.balance is None:
        return None
    epochs = run.balance["epochs"]
    chosen = np.unique(np.linspace(0, len(epochs) - 1, min(len(epochs), MOST_EPOCHS)).round().astype(int))
    return {"epochs": epochs[chosen].tolist(), "ratio": packed(run.balance["ratio"][chosen])}


def image_data(runs: Sequence[Run], room: int) -> tuple[list[list[dict[str, Any]]], int]:
    """Images of every run with their files as base64, by category; and how many had to be left out.

    First of all kinds and categories come first; what exceeds `room` characters, shared evenly by the runs, is left
    out.
    """
    made, left_out = [], 0
    for run in runs:
        entries = [] if run.analysis is None else run.analysis.examples
        rank = np.array([int(entry["file"].rsplit("_", 1)[1].removesuffix(".jpg")) for entry in entries], np.int64)
        budget, kept = room // len(runs), []
        for i in np.argsort(rank, kind="stable").tolist():
            path = run.folder / IMAGES / entries[i]["file"]
            text = base64.b64encode(path.read_bytes()).decode() if path.is_file() else ""
            budget -= len(text) + ENTRY_CHARACTERS
            if text and budget >= 0:
                kept.append((i, entries[i] | {"data": text}))
            else:
                left_out += 1
        made.append([entry for _, entry in sorted(kept, key=lambda pair: pair[0])])
    return made, left_out


def packed(values: np.ndarray | Ints) -> str:
    """Any array as base64 of little-endian float32, row after row."""
    return base64.b64encode(np.ascontiguousarray(values, "<f4").tobytes()).decode()


def exact_numbers(values: Sequence[float]) -> list[float | int | None]:
    """Numbers as they stand, whole ones without a point; None for NaN."""
    return [None if not math.isfinite(v) else int(v) if v == int(v) else float(v) for v in values]
