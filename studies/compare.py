"""Means, paired differences and their 95 % intervals over seeds, and what they say about a claim."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

T_975 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131)
"""97.5 % points of Student's t for 1, 2, 3 ... degrees of freedom."""

Verdict = Literal["reproduced", "not reproduced", "inconclusive", "not run"]


@dataclass(frozen=True)
class Estimate:
    """A mean over n seeds and half the width of its 95 % interval; NaN for the width of fewer than two."""

    mean: float
    half: float
    n: int

    @property
    def low(self) -> float:
        return self.mean - self.half

    @property
    def high(self) -> float:
        return self.mean + self.half


def estimate(values: np.ndarray) -> Estimate:
    """From one value a seed [n]; n = 0 gives NaN."""
    n = len(values)
    if n == 0:
        return Estimate(math.nan, math.nan, 0)
    if n == 1:
        return Estimate(float(values[0]), math.nan, 1)
    deviation = float(np.std(values, ddof=1))
    return Estimate(float(values.mean()), T_975[min(n - 1, len(T_975)) - 1] * deviation / math.sqrt(n), n)


def paired(ours: dict[str, float], theirs: dict[str, float]) -> Estimate:
    """The difference ours - theirs over the seeds that both have: seeds share data order and initial weights."""
    seeds = sorted(set(ours) & set(theirs))
    return estimate(np.array([ours[s] - theirs[s] for s in seeds]))


def verdict(difference: Estimate, claim: Literal["more", "same"], within: float = 1.0) -> Verdict:
    """What a paired difference says about "ours is more", or about "ours is the same within some points".

    Fewer than three seeds are inconclusive whatever they show.
    """
    if difference.n == 0:
        return "not run"
    if difference.n < 3:
        return "inconclusive"
    if claim == "more":
        if difference.low > 0:
            return "reproduced"
        return "not reproduced" if difference.high < 0 else "inconclusive"
    if -within < difference.low and difference.high < within:
        return "reproduced"
    return "not reproduced" if difference.low > within or difference.high < -within else "inconclusive"


def overlap(a: Estimate, b: Estimate) -> bool:
    """Whether two 95 % intervals share a value; False where either has none."""
    return a.low <= b.high and b.low <= a.high


def rank_correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Spearman's: the correlation of the ranks of two sets of values [n]; equal values share their mean rank.

    NaN where one side has a single value for all.
    """
    ranks = [(np.searchsorted(np.sort(x), x, "left") + np.searchsorted(np.sort(x), x, "right")) / 2 for x in (a, b)]
    centred = [r - r.mean() for r in ranks]
    scale = math.sqrt(float((centred[0] ** 2).sum() * (centred[1] ** 2).sum()))
    return float((centred[0] * centred[1]).sum()) / scale if scale > 0 else math.nan
