"""What can be known before a training: whether a category's bias will fall or rise from the prior, from the data alone.

    python -m studies.forecast                 # the glyphs of the study: rows of docs/results/forecast.csv
    python -m studies.forecast --exp EXP.py --data NAME    # another data set, for example one's own

The rule is that of regime.py: from a prior above the resting score the bias falls, negatives outweigh and g is below 1,
so EFL does something; from one below, g is 1. It says where g begins; the table compares that with where g ends.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from studies.cells import Rows, Table, value
from studies.compare import estimate
from studies.grid import EXP_FILE
from studies.measure import GROUPS, experiment
from studies.records import FORECAST, PUBLISHED, Row, append_rows, read_rows
from studies.regime import POSITIVES_A_BOX, resting_score
from studies.tail import WIDE
from yolox_lt.exp import DetectorExp, get_exp

INFORMS = 0.95
"""A mean g of the rare categories below this tells them from frequent ones: with s = 4, an exponent of 2.2 and more."""


def share_of_categories(exp: DetectorExp) -> np.ndarray:
    """Expected share of positive priors of each category under the experiment's sampler, float [C]."""
    index = exp.get_store("train").index
    positions = exp.train_positions(index)
    factors = exp.get_factors(index, positions)
    boxes = np.zeros(len(index.image_counts))
    for position, factor in zip(positions, factors):
        boxes += factor * np.bincount(index.labels_of(position), minlength=len(boxes))
    return boxes * POSITIVES_A_BOX / (factors.sum() * priors_of(exp))


def rest_of_groups(exp: DetectorExp) -> list[Row]:
    """The median share of positive priors, and the resting score that follows, of each group of categories."""
    share = share_of_categories(exp)
    groups = exp.get_store("train").index.groups()
    assert groups is not None
    rows = []
    for group in GROUPS:
        of = groups == group
        if of.any():
            median = float(np.median(share[of]))
            rows.append(
                {"group": group, "members": int(of.sum()), "share": median, "rest": float(resting_score(median))}
            )
    return rows


def priors_of(exp: DetectorExp) -> int:
    """Number of priors of an image at the training's input size."""
    height, width = exp.input_size  # type: ignore[attr-defined]
    return len(exp.anchor_scales) * sum((height // stride) * (width // stride) for stride in (8, 16, 32))


def forecast_table(forecast: Rows, runs: Rows) -> Table:
    """Each kind of run with EFL's g: what the rule says about rare categories, and their g at the end."""
    kinds: dict[tuple[str, str, str, str], list[float]] = {}
    for row in runs:
        has_g = row["cls_loss"] in ("efl", "eqfl") and row.get("loss_ratio", "") in ("", "gradients")
        other = row.get("category_prior") or row.get("repeat_power", "") not in ("", "0.5") or row.get("repeat_cap")
        if has_g and row["g_r"] and not other and row["set"] != "detectors":
            data = "wide" if row["num_classes"] == str(WIDE["num_classes"]) else "study"
            kind = data, row["sampler"], row["prior_prob"], "small" if row.get("fresh_std") else "default"
            kinds.setdefault(kind, []).append(value(row, "g_r"))
    rest = {(row["data"], row["sampler"]): value(row, "rest") for row in forecast if row["group"] == "r"}
    body = []
    for (data, sampler, prior, start), found in sorted(kinds.items()):
        if (data, sampler) in rest:
            says = float(prior) > rest[data, sampler]
            hits = sum((g < INFORMS) == says for g in found)
            mean = estimate(np.array(found)).mean
            body.append(
                [
                    *(data, sampler, prior, start, f"{rest[data, sampler]:.3f}", "below 1" if says else "1"),
                    *(f"{mean:.2f}", f"{hits} of {len(found)}"),
                ]
            )
    head = ("data", "sampler", "prior", "classifier's start", "resting score of rare categories", "g begins")
    return Table([*head, "g of rare at the end", "runs as expected"], body)


def study_data(output: Path) -> list[tuple[str, DetectorExp]]:
    """The two data sets of the study, each with both samplers."""
    made = []
    for data, settings in (("study", {}), ("wide", WIDE)):
        for sampler in ("uniform", "repeat_factor"):
            made.append((data, experiment({**settings, "sampler": sampler}, output, "forecast", EXP_FILE)))
    return made


def main(words: Sequence[str] | None = None) -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--exp", type=Path, help="an experiment of one's own data, for example exp.py of a run")
    options.add_argument("--data", default="own", help="name of that data in the table (%(default)s)")
    options.add_argument("--to", type=Path, default=PUBLISHED / FORECAST, help="csv file (%(default)s)")
    args = options.parse_args(words)
    chosen = [(args.data, get_exp(str(args.exp)))] if args.exp else study_data(Path("YOLOX_outputs/study"))
    have = {(row["data"], row["sampler"]) for row in read_rows(args.to)}
    for data, exp in chosen:
        if (data, exp.sampler) not in have:
            append_rows(args.to, [{"data": data, "sampler": exp.sampler, **row} for row in rest_of_groups(exp)])


if __name__ == "__main__":
    main()
