"""From predictions to detections: used by evaluation, demo and export alike."""

from yolox_lt.predict.predictor import Predictor

__all__ = ["Predictor"]
