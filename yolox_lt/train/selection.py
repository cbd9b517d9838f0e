"""Which evaluation of a run is the best, and when there have been enough without a better one."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from yolox_lt.errors import UserError
from yolox_lt.evaluate.evaluator import Evaluator
from yolox_lt.evaluate.metrics import Report
from yolox_lt.evaluate.results import DetectionArrays
from yolox_lt.report.analysis.thresholds import ScoredDetections, best_thresholds

F1 = "F1"
"""Beside the metrics of every protocol: the mean of each category's best F1 at IoU 0.5."""


@dataclass(frozen=True)
class Selection:
    """The best evaluation so far, the same on every rank.

    value: of its metric, -1 before the first one that is defined. stale: evaluations since then without a better one.
    """

    value: float = -1.0
    stale: int = 0

    def after(self, value: float) -> Selection:
        """With one more evaluation. As long as nothing was found at all (0 or undefined) none counts as stale."""
        rises = not math.isnan(value) and value > self.value
        stale = 0 if rises or self.value <= 0 else self.stale + 1
        return Selection(self.value if math.isnan(value) else max(float(value), self.value), stale)


def improves(value: float, best: float) -> bool:
    """Whether an evaluation becomes the best one. A number beats an undefined value (NaN; `best` -1), never the other
    way round.

    Of equal ones the latest counts: where a metric is 0 or undefined for long, best.pth must not stay the first of all.
    """
    return best < 0 if math.isnan(value) else value >= best


def check_metric(name: str, patience: int | None, evaluator: Evaluator | None) -> None:
    """Refuse a `best_metric` that the evaluation does not give, and a `patience` without any evaluation.

    Raises:
        UserError: lists the metrics that it gives.
    """
    if evaluator is None:
        if patience is not None:
            raise UserError(f"patience {patience} counts evaluations, but val_ann is None; set one of the two")
        return
    if name in ("AP", F1):  # every protocol has them
        return
    known = [*evaluator.score(DetectionArrays.concatenate([])).metrics, F1]
    if name not in known:
        raise UserError(f"best_metric {name!r} is unknown; this evaluation has {', '.join(known)}")


def chosen_metrics(name: str, evaluator: Evaluator, report: Report) -> dict[str, float]:
    """The metrics of an evaluation, with F1 if `best_metric` is that."""
    if name != F1:
        return report.metrics
    return report.metrics | {F1: mean_best_f1(evaluator, report)}


def mean_best_f1(evaluator: Evaluator, report: Report) -> float:
    """Mean over the categories with boxes of the highest F1 that a score threshold of their own gives, in [0, 1]."""
    assert evaluator.detections is not None  # of the evaluation that made the report
    scored = ScoredDetections.of(evaluator.index, evaluator.detections, report)
    f1 = best_thresholds(scored, report.box_counts)[1]
    return float(f1[~np.isnan(f1)].mean()) if (report.box_counts > 0).any() else math.nan
