"""Whether the scores of a run's first batch are those that `prior_prob` promises."""

from __future__ import annotations

from torch import Tensor

from yolox_lt.models.init import FINE_TUNE_STD

FACTOR = 2.0
"""From here on the line says what helps. Our choice: ResNet heads start at 1.6, which costs nothing."""


def prior_line(logits: Tensor, prior: float, from_weights: bool) -> str:
    """E[p^3] / prior^3 of the first batch, in words.

    A negative's first gradient under a focal loss of exponent 2 is close to p^3, so this is how much harder everything
    is pushed down at first than the prior promises. 1 where every score is the prior's.

    Args:
        logits: of the classifier, any shape. prior: score that categories start from. from_weights: whether the run
            starts from a checkpoint, whose classifier may have been taken over.
    """
    factor = start_factor(logits, prior)
    line = f"mean of p^3 on the first batch: {factor:.3g} times prior_prob^3 ({prior:g}^3)"
    if from_weights:
        return f"{line}; 1 where a classifier starts from new weights, more where it was loaded"
    return line if factor < FACTOR else f"{line}; fresh_std {FINE_TUNE_STD:g} starts every score at the prior"


def start_factor(logits: Tensor, prior: float) -> float:
    """Mean of p^3 over all entries, divided by prior^3."""
    return float((logits.detach().float().sigmoid() / prior).pow(3).mean())
