"""Why a category fails: one cause out of six, by rules on what a run has measured; the first rule that fits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from yolox_lt.data.columns import Floats, Ints
from yolox_lt.report.analysis.balance_file import LOW_RATIO
from yolox_lt.report.analysis.tide import CLASSIFICATION, DUPLICATE, KINDS, LOCALISATION

DEFAULT_CONF = 0.3
"""Score from which the tools report detections where no thresholds were chosen."""

GOOD_F1 = 0.5
"""Best F1 from which on a category counts as told apart."""

MOST_IMAGES = 10
"""Training images of a category that has few: a rare one of LVIS."""

LITTLE_REPEATED = 1.5
"""Repeat factor below which a sampler does little for a category."""

SELDOM = 0.02
"""Draws of a category, as a share of those of the most drawn one, up to which it is drawn seldom. Our choice."""

LEAST_ERRORS = 3
"""Errors of a kind that make a cause; fewer are chance."""

MOST_LISTED = 8

UNCLEAR = "unclear"


@dataclass(frozen=True)
class Measured:
    """What the rules look at: C categories, NaN where a run has no such figure.

    names: C names. ap, ar: float64 [C] in [0, 1], NaN without boxes to be found. boxes: float64 [C], to be found.
    train_images: float64 [C]. draws: float64 [C], images with the category in one epoch. g, gamma, weight: float64 [C],
    the loss' balance, exponent and weight. threshold, best_f1: float64 [C], score in [0, 1] of the best F1, and it.
    default_f1: float64 [C], F1 from DEFAULT_CONF on. true_score: float64 [C], mean score of true positives.
    errors: int64 [C, 6] by `tide.KINDS`. confusion: int64 [K, 3], see `Analysis`.
    """

    names: Sequence[str]
    ap: Floats
    ar: Floats
    boxes: Floats
    train_images: Floats
    draws: Floats
    g: Floats
    gamma: Floats
    weight: Floats
    threshold: Floats
    best_f1: Floats
    default_f1: Floats
    true_score: Floats
    errors: Ints
    confusion: Ints

    @cached_property
    def mean_ar(self) -> float:
        """Mean AR of the categories that have one; NaN where none has."""
        return _mean(self.ar)

    @cached_property
    def usual_score(self) -> float:
        """Median over the categories of the mean score of true positives; NaN where none has any."""
        known = self.true_score[np.isfinite(self.true_score)]
        return float(np.median(known)) if len(known) else float("nan")

    @cached_property
    def repeat(self) -> Floats:
        """Draws per training image over those of all categories together, float64 [C]; 1: drawn like the others."""
        known = np.isfinite(self.draws) & (self.train_images > 0)
        usual = self.draws[known].sum() / max(self.train_images[known].sum(), 1)
        made = np.full(len(self.ap), np.nan)
        if usual > 0:
            made[known] = self.draws[known] / self.train_images[known] / usual
        return made

    def wrong_categories(self, c: int) -> int:
        """Errors between category c and others: c on another's object, and another on one of c's (those listed)."""
        return int(self.errors[c, CLASSIFICATION] + self.confusion[self.confusion[:, 0] == c, 2].sum())

    def error_count(self, c: int) -> int:
        """All errors of category c, others' detections on its objects among them."""
        return int(self.errors[c].sum() + self.confusion[self.confusion[:, 0] == c, 2].sum())


@dataclass(frozen=True)
class Cause:
    """The most likely cause of a category's AP: a key of RULES or UNCLEAR. text: the figures that say so."""

    cause: str
    text: str


def causes_of(measured: Measured) -> list[Cause | None]:
    """The cause of each of C categories, by the first of RULES that fits; None for a category without an AP."""
    return [_cause(measured, c) if np.isfinite(measured.ap[c]) else None for c in range(len(measured.ap))]


def lowest(ap: Floats, boxes: Floats, most: int = MOST_LISTED) -> list[int]:
    """The `most` categories with the lowest AP [C], ascending, none above the mean; of equal ones those with most
    boxes [C], then the first.
    """
    order = np.lexsort((-boxes, ap))  # NaN last
    return [c for c in order.tolist() if ap[c] <= _mean(ap) + 1e-9][:most]


def failing(ap: Floats) -> tuple[float, list[int]]:
    """(half the mean of ap [C], the categories that have at most so much); (NaN, none) without any AP."""
    limit = _mean(ap) / 2
    return limit, np.flatnonzero(ap <= limit).tolist()


def counts_of(causes: Sequence[Cause]) -> list[tuple[str, int]]:
    """How often each cause is there, the most frequent first; equal ones in the order of RULES."""
    found = Counter(cause.cause for cause in causes)
    return sorted(((name, found[name]) for name in (*RULES, UNCLEAR) if found[name]), key=lambda pair: -pair[1])


def _cause(measured: Measured, c: int) -> Cause:
    for name, (_, rule) in RULES.items():
        text = rule(measured, c)
        if text:
            return Cause(name, text)
    return Cause(UNCLEAR, _most_frequent_error(measured, c))


def _threshold(m: Measured, c: int) -> str:
    if not (m.best_f1[c] >= GOOD_F1 and m.default_f1[c] <= m.best_f1[c] / 2):
        return ""
    best, default = percent(m.best_f1[c]), percent(m.default_f1[c])
    return f"F1 {best} from score {m.threshold[c]:.2f} on, {default} from {DEFAULT_CONF} on"


def _confusion(m: Measured, c: int) -> str:
    wrong, count = m.wrong_categories(c), m.error_count(c)
    if wrong < LEAST_ERRORS or 2 * wrong < count:
        return ""
    rows = m.confusion[(m.confusion[:, :2] == c).any(axis=1)]
    with_whom = ""
    if len(rows):
        true, predicted, times = rows[int(rows[:, 2].argmax())].tolist()
        with_whom = f", {times} with {m.names[predicted if true == c else true]}"
    return f"{wrong} of {count} errors are wrong categories{with_whom}"


def _localisation(m: Measured, c: int) -> str:
    place, twice, count = int(m.errors[c, LOCALISATION]), int(m.errors[c, DUPLICATE]), m.error_count(c)
    if place + twice < LEAST_ERRORS or 2 * (place + twice) < count:
        return ""
    return f"of {count} errors {place} lie in the wrong place, {twice} on what was found already"


def _sampler(m: Measured, c: int) -> str:
    most = np.nanmax(m.draws, initial=0)
    seldom = m.train_images[c] <= MOST_IMAGES or m.draws[c] <= SELDOM * most
    if not (seldom and m.repeat[c] < LITTLE_REPEATED and m.ar[c] <= m.mean_ar):
        return ""
    drawn = f"{m.draws[c]:.3g} draws an epoch (most: {most:,.0f})"
    return f"{_images(m, c)}, {drawn}; repeat factor {m.repeat[c]:.1f}; {_recall(m, c)}"


def _data(m: Measured, c: int) -> str:
    if not (m.train_images[c] <= MOST_IMAGES and m.ar[c] <= m.mean_ar):
        return ""
    repeated = f", repeat factor {m.repeat[c]:.1f}" if np.isfinite(m.repeat[c]) else ""
    return f"{_images(m, c)}{repeated}; {_recall(m, c)}"


def _loss(m: Measured, c: int) -> str:
    if m.g[c] < LOW_RATIO:
        return f"balance g {m.g[c]:.3f}: negatives have exponent {m.gamma[c]:.2f}, weight {m.weight[c]:.2f}"
    if m.ar[c] >= m.mean_ar and m.true_score[c] < m.usual_score / 2:
        return f"{_recall(m, c)}, but true positives score {m.true_score[c]:.2f}; median {m.usual_score:.2f}"
    return ""


def _images(m: Measured, c: int) -> str:
    count = int(m.train_images[c])
    return f"{count:,} training image{'' if count == 1 else 's'}"


def _recall(m: Measured, c: int) -> str:
    return f"AR {percent(m.ar[c])} (mean {percent(m.mean_ar)})"


def _most_frequent_error(m: Measured, c: int) -> str:
    if not m.errors[c].any():
        return "no errors are recorded"
    kind = int(m.errors[c].argmax())
    images = f"; {_images(m, c)}" if np.isfinite(m.train_images[c]) else ""
    return f"most frequent error: {KINDS[kind]} ({m.errors[c, kind]} of {m.error_count(c)}){images}"


def percent(share: float) -> str:
    """A share in percent with one digit."""
    return f"{100 * share:.1f}"


def _mean(values: Floats) -> float:
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else float("nan")


_LOW_AR = "AR at most the mean"

RULES: dict[str, tuple[str, Callable[[Measured, int], str]]] = {
    "threshold": (
        f"best F1 at least {percent(GOOD_F1)}, and at most half of it from score {DEFAULT_CONF} on: "
        "objects are found and told apart, below the score that tools report by default",
        _threshold,
    ),
    "confusion": (
        f"at least {LEAST_ERRORS} errors, and half of all, are between this category and others",
        _confusion,
    ),
    "localisation": (
        f"at least {LEAST_ERRORS} errors, and half of all, lie in the wrong place or on an object found already",
        _localisation,
    ),
    "sampler": (
        f"at most {MOST_IMAGES} training images, or drawn at most {SELDOM:.0%} as often as the most drawn category; "
        f"repeat factor (draws per training image over those of all categories) below {LITTLE_REPEATED}; {_LOW_AR}",
        _sampler,
    ),
    "data": (f"at most {MOST_IMAGES} training images; {_LOW_AR}", _data),
    "loss": (
        f"balance g below {LOW_RATIO}; or AR at least the mean, and true positives score less than half of the "
        "median category's",
        _loss,
    ),
}
"""Cause -> what it takes, in words, and the rule, which gives the figures as text, "" where it does not fit; in the
order of trying.
"""
