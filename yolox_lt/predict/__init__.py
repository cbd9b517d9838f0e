"""From predictions to detections: used by evaluation, demo and export alike."""

from yolox_lt.predict.predictor import Predictor
from yolox_lt.predict.roi_predictor import RoIPredictor

__all__ = ["Predictor", "RoIPredictor"]
