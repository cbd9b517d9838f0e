"""The columns of per_category.csv beside the metrics: how a category was trained, and its best score threshold."""

from __future__ import annotations

import numpy as np

from yolox_lt.data.annotations.index import AnnotationIndex
from yolox_lt.evaluate.metrics import Report
from yolox_lt.evaluate.results import DetectionArrays
from yolox_lt.losses import DenseLoss
from yolox_lt.report.analysis.thresholds import ScoredDetections, best_thresholds
from yolox_lt.report.data.summary import DataSummary
from yolox_lt.train.callbacks.balance_history import balance_columns


def training_columns(summary: DataSummary | None, loss: DenseLoss | None) -> dict[str, np.ndarray]:
    """Columns [C] of the training; those of which nothing is known are not among them.

    train_images, train_boxes: int64, over the images that are trained on. draws: float64, expected images with the
    category in one epoch, see `data_summary.expected_draws`. g, gamma, weight: float32, balance, focusing and weighting
    factor of a loss that has them.

    Args:
        summary: of the training set, whose categories are those of the evaluation.
        loss: the classification loss in the state of the evaluated weights.
    """
    columns: dict[str, np.ndarray] = {}
    if summary is not None:
        columns["train_images"] = summary.image_counts
        columns["train_boxes"] = summary.instance_counts
        columns["draws"] = summary.draws
    state = None if loss is None else balance_columns(loss)
    if state is not None:
        columns |= {"g": state["ratio"], "gamma": state["focusing"], "weight": state["weight"]}
    return columns


def threshold_column(index: AnnotationIndex, detections: DetectionArrays, report: Report) -> dict[str, np.ndarray]:
    """threshold: float64 [C], the score from which on F1 at IoU 0.5 is largest; see `thresholds.best_threshold`."""
    return {"threshold": best_thresholds(ScoredDetections.of(index, detections, report), report.box_counts)[0]}
