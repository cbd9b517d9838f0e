"""Statistics of the training annotations that calibrators are made of."""

from __future__ import annotations

import numpy as np
import torch

from yolox_lt.calibrate.calibrators import Calibrator, NorCal, PriorAdjustment, TauNormalization
from yolox_lt.calibrate.fractal import FRACAL, fractal_dimension
from yolox_lt.data.annotations.index import AnnotationIndex
from yolox_lt.data.columns import Floats

STRENGTHS: dict[str, tuple[float, tuple[float, ...]]] = {
    "prior": (0.25, (0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.75, 1.0)),
    "norcal": (0.6, (0.0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 1.0)),
    "fracal": (2.0, (0.0, 0.5, 1.0, 1.5, 2.0, 3.0)),
    "tau": (0.5, (0.1, 0.25, 0.5, 0.75, 1.0)),
}
"""Method -> its strength if none is given, and those that are scanned."""


def centres_of(index: AnnotationIndex) -> Floats:
    """Centres float64 [M, 2] of the usable boxes as fractions (x, y) of their images."""
    images = np.repeat(np.arange(len(index)), np.diff(index.box_offsets))[index.usable]
    boxes = index.boxes[index.usable]
    return (boxes[:, :2] + boxes[:, 2:] / 2) / index.sizes[images][:, ::-1]


def fitted(method: str, strength: float, index: AnnotationIndex, normalize: str = "none") -> Calibrator:
    """A calibrator of the categories of the training annotations.

    Args:
        method: prior, norcal, fracal or tau. strength: its tau, gamma, power or tau. normalize: of NorCal.
    """
    counts = torch.tensor(index.image_counts.tolist())
    if method == "prior":
        return PriorAdjustment(counts, strength)
    if method == "norcal":
        return NorCal(counts, strength, normalize)  # type: ignore[arg-type]
    if method == "tau":
        return TauNormalization(strength)
    count = len(index.category_ids)
    dimension = fractal_dimension(centres_of(index), np.asarray(index.labels)[index.usable], count)
    return FRACAL(index.image_counts, len(index), dimension, strength)
