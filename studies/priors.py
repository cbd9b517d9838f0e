"""The small detector of studies with a prior for each category, worked out from its boxes: an experiment file."""

from __future__ import annotations

import numpy as np
import torch

from studies.forecast import share_of_categories
from studies.grid import EXP_FILE
from studies.regime import resting_score
from yolox_lt.exp import get_exp
from yolox_lt.models import Detector

SMALLEST = 1e-4
"""A category without boxes starts here; others are above."""


def category_priors(share: np.ndarray, kind: str) -> np.ndarray:
    """Scores to start from, float [C] in (0, 1).

    Args:
        share: [C] expected share of positive priors. kind: "share" takes it, "rest" the score at which a focal loss
            leaves the bias in peace.

    Raises:
        ValueError: another kind.
    """
    if kind not in ("share", "rest"):
        raise ValueError(f"category_prior is {kind!r}: give share or rest")
    return np.clip(share if kind == "share" else resting_score(share), SMALLEST, 0.5)


class Exp(type(get_exp(EXP_FILE))):  # type: ignore[misc]
    category_prior = "rest"

    def get_model(self) -> Detector:
        """The detector, the classifier's biases by category on every level."""
        model: Detector = super().get_model()
        priors = torch.from_numpy(category_priors(share_of_categories(self), self.category_prior))
        for conv in model.head.cls_preds:
            with torch.no_grad():
                conv.bias.view(-1, self.num_classes).copy_(torch.logit(priors))  # [A * C] -> [A, C]
        return model
