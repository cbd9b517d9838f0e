"""The tables of docs/results.md, each a function of the rows of the csv files."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from studies import regime
from studies.cells import Rows, Table, by_seed, mean_of, number, signed, value
from studies.claims import (
    CLAIMS,
    CONTROLS,
    DETECTOR_CLAIMS,
    FORM_PAIRS,
    KEPT_CLAIMS,
    LOSS_CLAIMS,
    OWN_PAIRS,
    PART_CLAIMS,
    REPEAT_PAIRS,
    SAMPLING_CONTROLS,
    SETTING_CONTROLS,
    TAIL_PAIRS,
    TWO_STAGE,
    WEIGHT_CONTROLS,
    WIDE_PAIRS,
    Claim,
    Run,
)
from studies.compare import Estimate, estimate, overlap, paired, verdict
from studies.forecast import forecast_table
from studies.grid import Set
from studies.records import DEFAULTS, FORECAST, FORMS, OWN, PUBLISHED, REGIME, RUNS, read_rows
from studies.sets import SETS

LEVELS = (
    "AP_300",
    "APr_300",
    "APc_300",
    "APf_300",
    "AP50_300",
    "AP_100",
    "APr_100",
    "AP_20",
    "APr_20",
    "AP_fixed",
    "APr_fixed",
)
BALANCE = ("g_r", "g_c", "g_f", "gamma_r", "gamma_c", "gamma_f", "weight_r", "weight_c", "weight_f")
SCORES = ("pos_score_r", "neg_score_r", "margin_r", "pos_score_f", "neg_score_f", "margin_f")
SCORED_TAIL = (
    *("QFL, RFS", "EQFL, RFS", "EQFL samples, negatives, RFS", "QFL, RFS power 1", "QFL, paste, RFS", "EVFL, RFS"),
    *("QFL, prior 0.01, RFS", "EQFL, prior 0.01, RFS", "EQFL samples, negatives, prior 0.01, RFS"),
    *("QFL, prior rest, RFS", "EQFL, prior rest, RFS"),
)
SHARES = ("pos_share_r", "pos_share_c", "pos_share_f", "neg_share_r", "neg_share_c", "neg_share_f")


FORM_METRICS = ("AP", "AP50", "APr", "APc", "APf")
DIFFERENCES = ("AP_300", "APr_300", "APc_300", "APf_300", "APr_fixed")
TAIL_METRICS = (*LEVELS[:4], "APr_fixed", *BALANCE[:3], "rank_10", "rank_50", "rank_100")


def case_table(
    rows: Rows, set_name: str, keep: Callable[[str], bool], metrics: Sequence[str], digits: int = 1
) -> Table:
    """Mean and interval of each metric for the cases of a set that `keep` takes; cases without a run say so."""
    body = []
    for case in SETS[set_name].cases:
        if not keep(case.name):
            continue
        count = len(by_seed(rows, set_name, case.name, "AP_300"))
        if count == 0:
            body.append([case.name, "0", "not run", *["-"] * (len(metrics) - 1)])
            continue
        places = [max(digits, 2) if m.startswith("g_") else digits for m in metrics]
        means = [number(mean_of(rows, set_name, case.name, m), n) for m, n in zip(metrics, places)]
        body.append([case.name, str(count), *means])
    return Table(["case", "seeds", *metrics], body)


def difference(rows: Rows, claim: Claim) -> Estimate:
    ours = by_seed(rows, claim.ours[0], claim.ours[1], claim.metric)
    return paired(ours, by_seed(rows, claim.theirs[0], claim.theirs[1], claim.metric))


def claim_table(rows: Rows, claims: Sequence[Claim], words: dict[str, str]) -> Table:
    """Claim, comparison, paired difference with its interval, seeds, verdict (in other `words` where given)."""
    body = []
    for claim in claims:
        found = difference(rows, claim)
        found_verdict = verdict(found, claim.kind, claim.within)
        digits = 3 if claim.metric.startswith(("margin", "g_")) else 1
        body.append(
            [
                claim.text,
                f"{claim.ours[1]} - {claim.theirs[1]}, {claim.metric}",
                signed(found, digits),
                str(found.n),
                words.get(found_verdict, found_verdict),
            ]
        )
    return Table(["claim", "paired difference of", "mean [95 %]", "seeds", "verdict"], body)


def agreement_table(rows: Rows, other: Rows) -> Table:
    """Claims that both studies have runs for: both differences, whether their intervals overlap, both verdicts."""
    body = []
    for claim in (*CLAIMS, *CONTROLS):
        found = [difference(side, claim) for side in (rows, other)]
        if 0 in (found[0].n, found[1].n):
            continue
        digits = 3 if claim.metric.startswith("margin") else 1
        verdicts = [verdict(side, claim.kind, claim.within) for side in found]
        verdicts = [CONTROL_WORDS.get(v, v) if claim in CONTROLS else v for v in verdicts]
        both = verdicts[0] if verdicts[0] == verdicts[1] else f"{verdicts[0]}; **{verdicts[1]}**"
        numbers = [signed(side, digits) for side in found]
        body.append([f"{claim.text}: {claim.metric}", *numbers, "yes" if overlap(*found) else "**no**", both])
    return Table(["claim", "these runs", "the others", "intervals overlap", "verdict; of the others"], body)


def agreement_of_levels(rows: Rows, other: Rows) -> str:
    """One sentence: how many means of cases have intervals that overlap, how many lie in the other's interval."""
    pairs = [
        (mean_of(rows, name, case.name, metric), mean_of(other, name, case.name, metric))
        for name, found in SETS.items()
        for case in found.cases
        for metric in (*LEVELS[:9], *BALANCE[:3])  # AP-fixed is AP_300 here
    ]
    pairs = [(a, b) for a, b in pairs if a.n > 1 and b.n > 1]
    return (
        f"{len(pairs)} means of AP and g (cases x measures): the intervals of {sum(overlap(a, b) for a, b in pairs)} "
        f"overlap, {sum(b.low <= a.mean <= b.high for a, b in pairs)} of these runs' means lie in the others' interval."
    )


def run_table(rows: Rows) -> Table:
    """Every run that there is, one line each."""
    columns = ("AP_300", "APr_300", "APc_300", "APf_300", "g_r", "g_c", "g_f", "seconds", "processor_seconds")
    body = [[r["set"], r["case"], r["seed"], *(r.get(c, "") or "-" for c in columns)] for r in rows]
    return Table(["set", "case", "seed", *columns], body)


def cost_table(rows: Rows) -> Table:
    """Runs, processor seconds in all, and what two cores need for them."""
    body = []
    for name in ("start", *SETS):
        seconds = [value(r, "processor_seconds") for r in rows if r["set"] == name]
        if seconds:
            total, cores = sum(seconds), min(2, len(seconds))
            numbers = (f"{total / len(seconds):.0f}", f"{total / 60:.1f}", f"{total / 60 / cores:.1f}")
            body.append([name, str(len(seconds)), *numbers])
    return Table(["set", "runs", "processor seconds a run", "processor minutes", "minutes on two idle cores"], body)


def missing_table(rows: Rows) -> Table:
    """Every set: how many of its runs are in the csv, and the command for the rest."""
    body = []
    for name, found in SETS.items():
        wanted = sum(case.seeds for case in found.cases)
        there = len({(r["case"], r["seed"]) for r in rows if r["set"] == name})
        state = "complete" if there == wanted else "not run" if there == 0 else "in part"
        body.append([name, f"{there} of {wanted}", state, f"`python -m studies --set {name}`"])
    return Table(["set", "runs", "state", "command"], body)


def full_table(found: Set) -> Table:
    """The cases of a set and what they change."""
    body = []
    for case in found.cases:
        settings = ", ".join(f"{k} {v}" for k, v in case.settings.items())
        body.append([case.name, settings, str(case.seeds), case.amp or "float32", case.needs or "-"])
    return Table(["case", "settings", "seeds", "precision", "needs the setting"], body)


def regime_table(places: Rows) -> Table:
    """Each place of the grid and group: prior, median resting score, expected and measured share at g = 1, mean g."""
    body = []
    for r in places:
        share, rest = value(r, "share"), value(r, "rest")
        body.append(
            [r["categories"], r["side"], r["prior"], r["group"], r["seen"], f"{share:.1e}", f"{rest:.4f}"]
            + [f"{value(r, name):.2f}" for name in ("expected", "saturated", "g")]
        )
    head = ("categories", "px", "prior", "group", "seen", "pi (median)", "resting p (median)", "expected at g = 1")
    return Table([*head, "measured at g = 1", "mean g"], body)


def lvis_rest_table() -> Table:
    body = [
        [r["sampling"], r["group"], f"{r['share']:.1e}", f"{r['rest']:.4f}", f"{r['expected']:.2f}"]
        for r in regime.lvis_rest()
    ]
    return Table(["sampling", "group", "pi (median)", "resting p (median)", "expected at g = 1"], body)


def form_table(rows: Rows, set_name: str = "pair", metrics: Sequence[str] = FORM_METRICS) -> Table:
    """Mean of every case of a set over its own seeds; all columns of g with two digits."""
    body = []
    for case in dict.fromkeys(row["case"] for row in rows if row["set"] == set_name):
        means = [mean_of(rows, set_name, case, metric) for metric in metrics]
        numbers = [f"{found.mean:.{digits_of(metric)}f}" for metric, found in zip(metrics, means)]
        body.append([case, str(means[0].n), *numbers])
    return Table(["case", "seeds", *metrics], body)


def settings_table(rows: Rows) -> Table:
    """Mean of every data set, setting and length over its seeds; seconds of one core, for the whole command."""
    groups: dict[tuple[str, ...], Rows] = {}
    for row in rows:
        groups.setdefault((row["set"], row["case"], row["steps"]), []).append(row)
    body = []
    for key, group in groups.items():
        means = [estimate(np.array([float(row[m]) for row in group if row[m]])) for m in FORM_METRICS]
        seconds = [float(row["seconds"]) for row in group if row["seconds"]]
        body.append([*key, str(len(group)), *map(number, means), f"{np.mean(seconds):,.0f}" if seconds else "-"])
    return Table(["data", "setting", "steps", "seeds", *FORM_METRICS, "core-seconds"], body)


def digits_of(metric: str) -> int:
    """Digits after the point: AP in percent has one, g and rank correlations two."""
    return 2 if metric.startswith(("g_", "rank_")) else 1


def pair_table(rows: Rows, pairs: Sequence[tuple[Run, Run]], metrics: Sequence[str], with_set: bool = False) -> Table:
    """Paired differences over the seeds that both cases have, with 95 % intervals; `with_set`: and the set's name."""
    body = []
    for ours, theirs in pairs:
        found = [paired(by_seed(rows, *ours, metric), by_seed(rows, *theirs, metric)) for metric in metrics]
        name = [ours[0]] if with_set else []
        body.append([*name, f"{ours[1]} - {theirs[1]}", str(found[0].n), *map(signed, found)])
    return Table([*(["data"] if with_set else []), "paired difference of", "seeds", *metrics], body)


def form_differences(rows: Rows, pairs: Sequence[tuple[str, str]], set_name: str) -> Table:
    """Differences of the cases of one set of a csv file."""
    return pair_table(rows, [((set_name, a), (set_name, b)) for a, b in pairs], FORM_METRICS)


def is_rfs(name: str) -> bool:
    return name.endswith("RFS")


CONTROL_WORDS = {"reproduced": "holds", "not reproduced": "does not hold"}

LIMIT = 25
"""Rows of a table on the page at most; the rows of a longer one are in a csv file."""

TABLES: dict[str, Callable[[Rows, Rows, Rows], Table | str]] = {
    "claims of the losses": lambda runs, *_: claim_table(runs, LOSS_CLAIMS, {}),
    "claims of the parts": lambda runs, *_: claim_table(runs, PART_CLAIMS, {}),
    "controls of the weight": lambda runs, *_: claim_table(runs, WEIGHT_CONTROLS, CONTROL_WORDS),
    "controls of sampling": lambda runs, *_: claim_table(runs, SAMPLING_CONTROLS, CONTROL_WORDS),
    "controls of settings": lambda runs, *_: claim_table(runs, SETTING_CONTROLS, CONTROL_WORDS),
    "losses": lambda runs, *_: case_table(runs, "cpu", lambda n: not is_rfs(n), LEVELS),
    "losses with RFS": lambda runs, *_: case_table(runs, "cpu", is_rfs, LEVELS),
    "scans": lambda runs, *_: case_table(runs, "mechanism", lambda n: True, (*LEVELS[:4], *BALANCE[:3])),
    "balance": lambda runs, *_: case_table(runs, "cpu", lambda n: True, BALANCE, 2),
    "scores": lambda runs, *_: case_table(runs, "cpu", lambda n: True, SCORES, 3),
    "shares": lambda runs, *_: case_table(runs, "cpu", lambda n: True, SHARES, 3),
    "two stages": lambda runs, *_: case_table(runs, "two_stage", lambda n: True, LEVELS),
    "two-stage claims": lambda runs, *_: claim_table(runs, TWO_STAGE, {}),
    "detectors": lambda runs, *_: case_table(runs, "detectors", lambda n: True, (*LEVELS[:4], *BALANCE[:3])),
    "claims of detectors": lambda runs, *_: claim_table(runs, DETECTOR_CLAIMS, {}),
    "regime": lambda _, places, __: regime_table(places),
    "LVIS": lambda *_: lvis_rest_table(),
    "agreement": lambda runs, _, earlier: agreement_table(runs, earlier),
    "agreement of levels": lambda runs, _, earlier: agreement_of_levels(runs, earlier),
    "sets": lambda runs, *_: missing_table(runs),
    "cost": lambda runs, *_: cost_table(runs),
    "runs": lambda runs, *_: run_table(runs),
    "forms of g": lambda *_: form_table(read_rows(PUBLISHED / FORMS)),
    "differences of forms": lambda *_: form_differences(read_rows(PUBLISHED / FORMS), FORM_PAIRS, "pair"),
    "claims with the prior kept": lambda runs, *_: claim_table(runs, KEPT_CLAIMS, {}),
    "tail": lambda runs, *_: form_table(runs, "tail", TAIL_METRICS),
    "scores of the tail": lambda runs, *_: case_table(runs, "tail", SCORED_TAIL.__contains__, SCORES, 3),
    "wide": lambda runs, *_: form_table(runs, "wide", TAIL_METRICS),
    "differences of the tail": lambda runs, *_: pair_table(runs, TAIL_PAIRS, DIFFERENCES),
    "differences of wide": lambda runs, *_: pair_table(runs, WIDE_PAIRS, DIFFERENCES),
    "repeat factors": lambda runs, *_: pair_table(runs, REPEAT_PAIRS, DIFFERENCES, True),
    "forecast": lambda runs, *_: forecast_table(read_rows(PUBLISHED / FORECAST), runs),
    "MUSCIMA": lambda *_: form_table(read_rows(PUBLISHED / OWN), "muscima", (*FORM_METRICS, *BALANCE[:3])),
    "60 glyphs": lambda *_: form_table(read_rows(PUBLISHED / OWN), "glyphs60"),
    "settings for own data": lambda *_: settings_table(read_rows(PUBLISHED / DEFAULTS)),
    "differences of own data": lambda *_: pair_table(read_rows(PUBLISHED / OWN), OWN_PAIRS, FORM_METRICS, True),
}
"""Name in the page -> table from the rows of runs.csv, regime.csv and runs_earlier.csv."""


@dataclass(frozen=True)
class Long:
    """How a table of more than `LIMIT` rows stands in the page: what its rows are, and the rows that are shown.

    source: the published csv file that has the same rows already, with more columns; None: the table is written to a
    file of its own.
    """

    says: str
    shown: str = ""
    keep: Callable[[dict[str, str]], bool] | None = None
    source: str | None = None


LONG: dict[str, Long] = {
    "regime": Long(
        "each place of the map and each group, with the share of positives, the resting score and g",
        "Images of 128 pixels, priors 0.1 and 0.01",
        lambda row: row["px"] == "128" and row["prior"] in ("0.1", "0.01"),
        REGIME,
    ),
    "agreement": Long(
        "each claim and control of the set cpu, with the difference in both studies and both verdicts",
        "Those whose verdict or interval does not agree",
        lambda row: "**" in row["intervals overlap"] + row["verdict; of the others"],
    ),
    "tail": Long(
        "means of every case of the set tail",
        "Those with RFS, of two passes, but for prior share",
        lambda row: ", RFS" in row["case"] and not re.search("6 epochs|prior share", row["case"]),
    ),
    "settings for own data": Long(
        "every run",
        "The defaults and what was tried at their input",
        lambda row: "192" not in row["setting"] and "with flips" not in row["setting"],
        DEFAULTS,
    ),
    "runs": Long("each run, with its settings and every measurement", source=RUNS),
}
"""Tables that are longer than `LIMIT`."""
