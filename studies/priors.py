"""The small detector of studies with a prior for each category, worked out from its boxes: an experiment file."""

from __future__ import annotations

import numpy as np
import torch

from studies.forecast import share_of_categories
from studies.grid import EXP_FILE
from studies.regime import resting_score
from yolox_lt.exp import DetectorExp, get_exp
from yolox_lt.models import Detector

LOWEST, HIGHEST = 1e-4, 0.5
"""Of the scores to start from; a category without boxes has the lowest."""


def category_priors(share: np.ndarray, kind: str) -> np.ndarray:
    """Scores to start from, float [C] in [LOWEST, HIGHEST].

    Args:
        share: [C] expected share of positive priors, in [0, 1]. kind: "share" takes it, "rest" the score at which a
            focal loss leaves the bias in peace.

    Raises:
        ValueError: another kind.
    """
    if kind not in ("share", "rest"):
        raise ValueError(f"category_prior is {kind!r}: give share or rest")
    return np.clip(share if kind == "share" else resting_score(share), LOWEST, HIGHEST)


def start_categories(model: Detector, exp: DetectorExp, kind: str) -> Detector:
    """The same YOLOX detector, its classifier's biases set in place for the training boxes of the experiment.

    Raises:
        ValueError: see `category_priors`.
    """
    logits = torch.logit(torch.from_numpy(category_priors(share_of_categories(exp), kind)))  # [C]
    for conv in model.head.cls_preds:
        with torch.no_grad():
            conv.bias.view(-1, len(logits)).copy_(logits)  # [A * C] -> [A, C]
    return model


class Exp(type(get_exp(EXP_FILE))):  # type: ignore[misc]
    category_prior = "rest"  # see category_priors

    def get_model(self) -> Detector:
        """The detector with a start value for each category."""
        return start_categories(super().get_model(), self, self.category_prior)
