"""Evaluators: annotations and detections in, a `Report` out."""

from yolox_lt.evaluate.coco import evaluate_coco
from yolox_lt.evaluate.lvis import evaluate_lvis
from yolox_lt.evaluate.metrics import Report
from yolox_lt.evaluate.openimages import evaluate_openimages
from yolox_lt.evaluate.results import DetectionArrays

__all__ = ["DetectionArrays", "Report", "evaluate_coco", "evaluate_lvis", "evaluate_openimages"]
