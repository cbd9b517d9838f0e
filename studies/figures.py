"""The figures of docs/results.md, from the rows of the csv files."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from studies.cells import Rows, by_seed, mean_of, value
from studies.claims import CLAIMS, CONTROLS, Claim
from studies.tables import difference
from yolox_lt.report.group_names import GROUP_NAMES
from yolox_lt.report.page.figures import COLORS

DPI = 100
S_SCAN = {0: ("cpu", "FL"), 1: ("mechanism", "EFL, s 1"), 2: ("mechanism", "EFL, s 2"), 4: ("cpu", "EFL")} | {
    8: ("mechanism", "EFL, s 8"),
    12: ("mechanism", "EFL, s 12"),
}


def render_all(folder: Path, runs: Rows, courses: Rows, regime: Rows) -> list[Path]:
    """Write every figure for which there are rows; returns their paths."""
    makers = {
        "study_summary.png": lambda: render_summary(runs),
        "study_differences.png": lambda: render_differences(runs, [*CLAIMS, *CONTROLS]),
        "study_course.png": lambda: render_course(courses),
        "study_shares.png": lambda: render_shares(runs),
        "study_scores.png": lambda: render_scores(runs),
        "study_s.png": lambda: render_s(runs),
        "study_regime.png": lambda: render_regime(regime),
    }
    paths = []
    for name, make in makers.items():
        figure = make()
        if figure is not None:
            figure.savefig(folder / name, dpi=DPI, bbox_inches="tight", metadata={"Software": None})
            paths.append(folder / name)
    return paths


def render_summary(runs: Rows) -> Figure | None:
    """AP of all, rare and frequent categories of four losses, without and with RFS: mean and interval over seeds."""
    losses = [n for n in ("FL", "EFL", "QFL", "EQFL") if by_seed(runs, "cpu", n, "AP_300")]
    if not losses:
        return None
    figure = Figure(figsize=(9, 3.2))
    for axes, metric, name in zip(
        figure.subplots(1, 3), ("AP_300", "APr_300", "APf_300"), ("all", "rare", "frequent"), strict=True
    ):
        for shift, rfs, color, label in ((-0.15, "", COLORS["5"], "without RFS"), (0.15, ", RFS", COLORS["r"], "RFS")):
            found = [mean_of(runs, "cpu", loss + rfs, metric) for loss in losses]
            half = [0 if math.isnan(f.half) else f.half for f in found]
            places = np.arange(len(losses)) + shift
            axes.errorbar(places, [f.mean for f in found], half, fmt="o", color=color, ms=5, capsize=3, label=label)
        axes.set_xticks(range(len(losses)), losses, fontsize=9)
        axes.set_xlim(-0.5, len(losses) - 0.5)
        axes.set_ylim(0, 48)
        axes.grid(axis="y", lw=0.3)
        axes.set_title(f"AP, {name} categories", fontsize=10)
    figure.axes[0].legend(fontsize=8, loc="upper left")
    figure.tight_layout()
    return figure


def render_differences(runs: Rows, claims: Sequence[Claim]) -> Figure | None:
    """Paired differences of AP with their intervals, one line a comparison that has three seeds."""
    rows = [(c, difference(runs, c)) for c in claims if c.metric.startswith("AP")]
    rows = [(c, d) for c, d in rows if d.n >= 3][::-1]
    if not rows:
        return None
    figure = Figure(figsize=(9, 0.28 * len(rows) + 1))
    axes = figure.subplots()
    means = np.array([d.mean for _, d in rows])
    halves = np.array([d.half for _, d in rows])
    axes.errorbar(means, np.arange(len(rows)), xerr=halves, fmt="o", color=COLORS["all"], ms=4, capsize=2)
    axes.axvline(0, color=COLORS["5"], lw=0.8)
    labels = [f"{c.ours[1]} - {c.theirs[1]}, {c.metric}" for c, _ in rows]
    axes.set_yticks(np.arange(len(rows)), labels, fontsize=7)
    axes.set_xlabel("paired difference in points, mean and 95 % interval over seeds")
    return figure


def render_course(courses: Rows) -> Figure | None:
    """g, gamma, weight and saturated share by group over the iterations, mean over seeds; rows: EFL and EQFL."""
    losses = [name for name in ("EFL", "EQFL") if any(r["set"] == "cpu" and r["case"] == name for r in courses)]
    if not losses:
        return None
    figure = Figure(figsize=(11, 2.6 * len(losses)))
    grid = figure.subplots(len(losses), 4, squeeze=False)
    for line, loss in zip(grid, losses):
        own = [r for r in courses if r["set"] == "cpu" and r["case"] == loss]
        for axes, metric in zip(line, ("g", "saturated", "gamma", "weight")):
            for group in "rcf":
                steps = sorted({int(r["iteration"]) for r in own})
                means = [np.mean([value(r, metric) for r in rows_at(own, step, group)]) for step in steps]
                axes.plot(steps, means, "o-", ms=3, color=COLORS[group], label=GROUP_NAMES[group])
            axes.set_xscale("log")
            axes.set_title(f"{loss}: {'share of categories at g = 1' if metric == 'saturated' else metric}", fontsize=9)
    grid[0][0].legend(fontsize=7)
    for axes in grid[-1]:
        axes.set_xlabel("iteration")
    figure.tight_layout()
    return figure


def rows_at(rows: Rows, iteration: int, group: str) -> list[dict[str, str]]:
    return [r for r in rows if int(r["iteration"]) == iteration and r["group"] == group]


def cases_with(runs: Rows, metric: str) -> list[str]:
    """Cases of the set cpu that have a value, in the order of the csv."""
    return list(dict.fromkeys(r["case"] for r in runs if r["set"] == "cpu" and not math.isnan(value(r, metric))))


def render_shares(runs: Rows) -> Figure | None:
    """Each group's share of all absolute gradients at positives (left of 0) and negatives (right)."""
    cases = cases_with(runs, "pos_share_r")[::-1]
    if not cases:
        return None
    figure = Figure(figsize=(8, 0.35 * len(cases) + 1))
    axes = figure.subplots()
    for sign, kind in ((-1, "pos"), (1, "neg")):
        left = np.zeros(len(cases))
        for group in "rcf":
            width = sign * np.array([mean_of(runs, "cpu", c, f"{kind}_share_{group}").mean for c in cases])
            label = GROUP_NAMES[group] if sign > 0 else None
            axes.barh(np.arange(len(cases)), width, left=left, color=COLORS[group], label=label)
            left += width
    axes.set_yticks(np.arange(len(cases)), cases, fontsize=8)
    axes.axvline(0, color="white", lw=1)
    axes.set_xlabel("share of all gradients of the run: at positives (left), at negatives (right)")
    axes.legend(fontsize=8)
    return figure


def render_scores(runs: Rows) -> Figure | None:
    """Mean score of true and of false positives of rare and frequent categories (paper, Figure 4)."""
    cases = cases_with(runs, "pos_score_r")[::-1]
    if not cases:
        return None
    figure = Figure(figsize=(9, 0.3 * len(cases) + 1))
    for axes, group in zip(figure.subplots(1, 2, sharey=True), "rf"):
        for kind, marker, name in (("neg_score", "x", "false positives"), ("pos_score", "o", "true positives")):
            found = [mean_of(runs, "cpu", c, f"{kind}_{group}").mean for c in cases]
            axes.plot(found, np.arange(len(cases)), marker, color=COLORS[group], label=name)
        axes.set_yticks(np.arange(len(cases)), cases, fontsize=8)
        axes.set_xlabel(f"mean score, {GROUP_NAMES[group]} categories")
        axes.set_xlim(left=0)
        axes.legend(fontsize=7)
        axes.grid(axis="y", lw=0.3)
    return figure


def render_s(runs: Rows) -> Figure | None:
    """AP, APr, APf and g of rare categories over s."""
    there = {s: place for s, place in S_SCAN.items() if by_seed(runs, *place, "AP_300")}
    if len(there) < 3:
        return None
    figure = Figure(figsize=(9, 3))
    left, right = figure.subplots(1, 2)
    metrics = (("AP_300", "all"), ("APr_300", "r"), ("APc_300", "c"), ("APf_300", "f"))
    for axes, names in ((left, metrics), (right, (("g_r", "r"), ("g_c", "c"), ("g_f", "f")))):
        for metric, color in names:
            found = [mean_of(runs, *place, metric) for place in there.values()]
            half = [0 if math.isnan(f.half) else f.half for f in found]
            axes.errorbar(
                list(there), [f.mean for f in found], half, fmt="o-", ms=3, capsize=2, color=COLORS[color], label=metric
            )
        axes.set_xlabel("s (0: FL)")
        axes.legend(fontsize=7)
    return figure


def render_regime(regime: Rows) -> Figure | None:
    """Share of the seen categories with g = 1: measured (colour, number), expected from the bias alone (brackets)."""
    if not regime:
        return None
    sides = sorted({int(r["side"]) for r in regime})
    categories = sorted({int(r["categories"]) for r in regime})
    priors = sorted({float(r["prior"]) for r in regime}, reverse=True)
    figure = Figure(figsize=(5 * len(sides), 3.6))
    for axes, side in zip(figure.subplots(1, len(sides), squeeze=False)[0], sides):
        shares = np.full((len(categories), len(priors)), np.nan)
        for i, number in enumerate(categories):
            for j, prior in enumerate(priors):
                rows = [
                    r
                    for r in regime
                    if (int(r["categories"]), int(r["side"]), float(r["prior"])) == (number, side, prior)
                ]
                if not rows:
                    continue
                seen = np.array([int(r["seen"]) for r in rows])
                measured, expected = (
                    float(np.average([value(r, m) for r in rows], weights=seen)) for m in ("saturated", "expected")
                )
                shares[i, j] = measured
                axes.text(j, i, f"{measured:.2f}\n({expected:.2f})", ha="center", va="center", fontsize=8)
        axes.imshow(shares, vmin=0, vmax=1, cmap="RdYlGn_r", aspect="auto", alpha=0.6)
        axes.set_xticks(range(len(priors)), [f"{p:g}" for p in priors])
        axes.set_yticks(range(len(categories)), [str(c) for c in categories])
        axes.set_xlabel("prior_prob")
        axes.set_ylabel("categories")
        axes.set_title(f"share at g = 1, images of {side} px", fontsize=9)
    figure.tight_layout()
    return figure
