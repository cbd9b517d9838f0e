"""The page's first section, which categories fail and why, as plain values for json."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from yolox_lt.data.columns import Floats
from yolox_lt.report.analysis.causes import (
    DEFAULT_CONF,
    RULES,
    UNCLEAR,
    Measured,
    causes_of,
    counts_of,
    failing,
    lowest,
    percent,
)
from yolox_lt.report.analysis.tide import KINDS
from yolox_lt.report.page.run_files import Run

RULE_TEXTS = {name: text for name, (text, _) in RULES.items()} | {UNCLEAR: "none of these"}
"""What the page says of each cause, in the order in which they are tried."""


def failing_categories(run: Run, columns: Mapping[str, Sequence[Any]]) -> dict[str, Any]:
    """line: how many categories fail, and why most often. rows: label, AP, cause and text of those with the lowest AP.

    Args:
        run: its evaluation, or per_category.csv without one.
        columns: of its categories, see `page_data.category_columns`.
    """
    measured = measured_of(run, columns)
    causes = causes_of(measured)
    limit, low = failing(measured.ap)
    counts = counts_of([cause for cause in (causes[c] for c in low) if cause is not None])
    shown = [(c, causes[c]) for c in lowest(measured.ap, measured.boxes)]
    rows = [
        {"label": c, "AP": round(float(measured.ap[c]), 6), "cause": k.cause, "text": k.text} for c, k in shown if k
    ]
    return {"line": failing_line(int(np.isfinite(measured.ap).sum()), limit, len(low), counts), "rows": rows}


def failing_line(scored: int, limit: float, count: int, causes: Sequence[tuple[str, int]]) -> str:
    """One sentence: `count` of `scored` categories have AP up to `limit`, and their causes."""
    if not scored:
        return "No category with boxes has been evaluated."
    line = f"{count} of {scored} categories have at most half the mean AP ({percent(limit)})"
    if not causes:
        return f"{line}."
    return f"{line}; most often: {', '.join(f'{name} ({number})' for name, number in causes)}."


def measured_of(run: Run, columns: Mapping[str, Sequence[Any]]) -> Measured:
    """The figures of the evaluation, those of its categories' training from `columns`."""
    count = len(run.category_names)
    found = run.analysis

    def column(name: str) -> Floats:
        return np.array(columns[name], np.float64) if name in columns else np.full(count, np.nan)

    def metric(name: str) -> Floats:
        return column(name) if found is None or name not in found.values else found.values[name]

    unknown = np.full(count, np.nan)
    return Measured(
        names=run.category_names,
        ap=metric("AP"),
        ar=metric("AR"),
        boxes=column("boxes"),
        train_images=column("train_images"),
        draws=column("draws"),
        g=column("g"),
        gamma=column("gamma"),
        weight=column("weight"),
        threshold=unknown if found is None else found.threshold,
        best_f1=unknown if found is None else found.best_f1,
        default_f1=unknown if found is None else found.f1[:, round(100 * DEFAULT_CONF)].astype(np.float64),
        true_score=unknown if found is None else found.positive_score,
        errors=np.zeros((count, len(KINDS)), np.int64) if found is None else found.errors,
        confusion=np.zeros((0, 3), np.int64) if found is None else found.confusion,
    )
