"""By which rules a set of annotations is scored: the one place where training and tools choose."""

from __future__ import annotations

import numpy as np

from yolox_lt.data.annotations.index import AnnotationIndex
from yolox_lt.evaluate.coco import evaluate_coco
from yolox_lt.evaluate.lvis import evaluate_lvis
from yolox_lt.evaluate.metrics import Report
from yolox_lt.evaluate.openimages import evaluate_openimages
from yolox_lt.evaluate.results import DetectionArrays

PROTOCOLS = ("auto", "lvis", "coco", "openimages")


def protocol_name(index: AnnotationIndex, name: str = "auto") -> str:
    """A name of PROTOCOLS with auto resolved: openimages for a file with its groups or hierarchy, lvis for one with
    federated lists, else coco.
    """
    if name != "auto":
        return name
    if index.open_images:
        return "openimages"
    return "lvis" if index.federated else "coco"


def score(
    index: AnnotationIndex,
    detections: DetectionArrays,
    protocol: str = "auto",
    max_detections: int = 300,
    groups: np.ndarray | None = None,
    expand_detections: bool = False,
    train_boxes: np.ndarray | None = None,
) -> Report:
    """AP of detections of the whole set.

    Args:
        protocol: of PROTOCOLS, see `protocol_name`. max_detections: of an image, under LVIS's rules.
        groups: "r", "c", "f" per category. expand_detections, train_boxes: for Open Images, see `evaluate_openimages`.
    """
    name = protocol_name(index, protocol)
    if name == "openimages":
        return evaluate_openimages(index, detections, expand_detections, groups, train_boxes)
    if name == "lvis":
        return evaluate_lvis(index, detections, max_detections, groups)
    return evaluate_coco(index, detections, groups=groups)
