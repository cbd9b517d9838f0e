"""Calibrators: what changes the scores of a trained detector's categories before the best pairs are chosen."""

from yolox_lt.calibrate.calibrators import (
    Calibrator,
    LogitNormalization,
    NorCal,
    PriorAdjustment,
    TauNormalization,
    calibrated_logits,
)
from yolox_lt.calibrate.fold import fold, fold_into
from yolox_lt.calibrate.fractal import FRACAL, fractal_dimension

__all__ = [
    "FRACAL",
    "Calibrator",
    "LogitNormalization",
    "NorCal",
    "PriorAdjustment",
    "TauNormalization",
    "calibrated_logits",
    "fold",
    "fold_into",
    "fractal_dimension",
]
