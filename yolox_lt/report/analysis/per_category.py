"""The columns of per_category.csv beside the metrics: how a category was trained, and its best score threshold."""

from __future__ import annotations

import numpy as np

from yolox_lt.data.annotations.index import AnnotationIndex
from yolox_lt.evaluate.metrics import Report
from yolox_lt.evaluate.results import DetectionArrays
from yolox_lt.report.analysis.thresholds import ScoredDetections, best_thresholds
from yolox_lt.report.data.summary import DataSummary


def training_columns(summary: DataSummary | None, balance: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Columns [C] of the training; those of which nothing is known are not among them.

    train_images, train_boxes: int64, over the images that are trained on. draws: float64, expected images with the
    category in one epoch, see `data_summary.expected_draws`. g, gamma, weight: float32, balance, focusing and weighting
    factor of a loss that has them.

    Args:
        summary: of the training set, whose categories are those of the evaluation.
        balance: state of the loss beside the evaluated weights, see `balance_file.balance_columns`; empty if unknown.
    """
    columns: dict[str, np.ndarray] = {}
    if summary is not None:
        columns["train_images"] = summary.image_counts
        columns["train_boxes"] = summary.instance_counts
        columns["draws"] = summary.draws
    names = {"ratio": "g", "focusing": "gamma", "weight": "weight"}
    return columns | {names[name]: values for name, values in balance.items() if name in names}


def threshold_column(index: AnnotationIndex, detections: DetectionArrays, report: Report) -> dict[str, np.ndarray]:
    """threshold: float64 [C], the score from which on F1 at IoU 0.5 is largest; see `thresholds.best_threshold`."""
    return {"threshold": best_thresholds(ScoredDetections.of(index, detections, report), report.box_counts)[0]}
