"""The calibrators' names where outside code imports them from; they live in `yolox_lt.calibrate`."""

from yolox_lt.calibrate import (
    FRACAL,
    LogitNormalization,
    NorCal,
    PriorAdjustment,
    TauNormalization,
    fold,
    fractal_dimension,
)

__all__ = [
    "FRACAL",
    "LogitNormalization",
    "NorCal",
    "PriorAdjustment",
    "TauNormalization",
    "fold",
    "fractal_dimension",
]
