"""From predictions to detections: used by evaluation, demo and export alike."""

from .predictor import Predictor

__all__ = ["Predictor"]
