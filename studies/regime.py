"""When g saturates: short trainings over a grid of categories, image sizes and priors, compared with the expectation.

    python -m studies.regime [--iterations 60] [--list]

Theory (ours, of the classifier's bias alone): a category with a share pi of positives among its priors is at rest
where the gradients of positives and negatives are equal. For small p this is
alpha pi = (1 - alpha) (gamma + 1) p^(gamma + 1). From a prior above this p the bias falls, negatives outweigh and
g < 1; from one below it rises and g is 1.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
from pathlib import Path

os.environ.setdefault("GOMP_SPINCOUNT", "10000")

import numpy as np
import torch
from loguru import logger

from studies.grid import COUNTS, LOSSES, Settings
from studies.measure import GROUPS, StudyTrainer, experiment
from studies.records import REGIME, Row, append_rows, read_rows
from yolox_lt.evaluate.metrics import Report
from yolox_lt.train.callbacks.log import setup_console
from yolox_lt.train.options import TrainOptions

CATEGORIES = (30, 90, 300, 1203)
SIDES = (64, 128)
PRIORS = (0.1, 0.01, 0.001, 0.0001)


LVIS_PRIOR = 0.001  # of the released models
LVIS_PRIORS = 2 * (80**2 + 40**2 + 20**2)  # of an image of 640 pixels, two anchors a cell
POSITIVES_A_BOX = 7.5
"""Priors that ATSS gives to a box on average: boxes of 100 images of LVIS's validation set at 640 pixels."""


class ShortTrainer(StudyTrainer):
    """A training that is not scored."""

    def evaluate(self) -> Report | None:
        return None


def resting_score(share: np.ndarray, alpha: float = 0.25, gamma: float = 2.0) -> np.ndarray:
    """The score p at which the bias of a category rests, from its share of positives among the priors; any shape."""
    return (alpha * share / ((1 - alpha) * (gamma + 1))) ** (1 / (gamma + 1))


def lvis_rest() -> list[Row]:
    """What the rule says of LVIS-train: rows of group, repeated or not, median pi and resting score, share above 0.001.

    Repeated: with the repeat factor of the category (threshold 0.001), over an unrepeated number of images.
    """
    counts = json.loads(COUNTS.read_text(encoding="utf-8"))
    categories = counts["categories"]
    images, boxes = (np.array([c[key] for c in categories]) for key in ("image_count", "instance_count"))
    groups = np.array([c["frequency"] for c in categories])
    factors = np.maximum(1.0, np.sqrt(0.001 * counts["n_images"] / images))
    rows: list[Row] = []
    for repeated, group in itertools.product((False, True), GROUPS):
        drawn = (boxes * factors if repeated else boxes)[groups == group]
        share = drawn * POSITIVES_A_BOX / (counts["n_images"] * LVIS_PRIORS)
        rest = resting_score(share)
        rows.append(
            {"sampling": "repeat factor" if repeated else "uniform", "group": group, "share": float(np.median(share))}
            | {"rest": float(np.median(rest)), "expected": float((rest > LVIS_PRIOR).mean())}
        )
    return rows


def settings_of(categories: int, side: int, prior: float, iterations: int) -> Settings:
    return {
        **LOSSES["EFL"],
        "num_classes": categories,
        "glyph_profile": "lvis",
        "glyph_categories": str(COUNTS),
        "glyph_image_size": side,
        "glyph_train_images": 2400,
        "glyph_val_images": max(300, 1 + categories * 12 // 10),
        "input_size": (side, side),
        "test_size": (side, side),
        "prior_prob": prior,
        "max_iter": iterations,
        "max_epoch": 1,
        "seed": 0,
    }


def measure(categories: int, side: int, prior: float, iterations: int, folder: Path) -> list[Row]:
    """One row a group: g after the iterations, and the share of categories whose resting score is above the prior."""
    exp = experiment(settings_of(categories, side, prior, iterations), folder, f"regime_{categories}_{side}_{prior}")
    trainer = ShortTrainer(exp, TrainOptions(exp.batch_size))
    trainer.train()
    watch, groups = trainer.watch, trainer.run.evaluator.groups
    assert groups is not None
    share = watch.positives.numpy() / watch.priors
    rows = []
    for group in GROUPS:
        of = groups == group
        seen = of & (share > 0)  # without a positive g is 0, whatever the prior
        if not seen.any():
            continue
        rest = resting_score(share[seen])
        state = watch.describe(watch.pos, watch.neg, watch.ratio(), seen)
        rows.append(
            {"categories": categories, "side": side, "prior": prior, "iterations": iterations, "group": group}
            | {"members": int(of.sum()), "seen": int(seen.sum()), "share": float(np.median(share[seen]))}
            | {"rest": float(np.median(rest)), "expected": float((rest > prior).mean())}
            | {key: round(state[key], 5) for key in ("g", "saturated")}
        )
    return rows


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--iterations", type=int, default=60, help="%(default)s")
    options.add_argument("--folder", type=Path, default=Path("YOLOX_outputs/study"), help="%(default)s")
    options.add_argument("--list", action="store_true", help="print the grid and whether its runs are done")
    args = options.parse_args()
    torch.set_num_threads(1)
    args.folder.mkdir(parents=True, exist_ok=True)
    path = args.folder / REGIME
    done = {(row["categories"], row["side"], row["prior"]) for row in read_rows(path)}
    for place in itertools.product(CATEGORIES, SIDES, PRIORS):
        is_done = tuple(map(str, place)) in done
        if args.list:
            print(*place, "done" if is_done else "not run")
        elif not is_done:
            rows = measure(*place, args.iterations, args.folder)
            append_rows(path, rows)
            for row in rows:
                logger.info(", ".join(f"{key} {value}" for key, value in row.items()))


if __name__ == "__main__":
    setup_console()
    main()
