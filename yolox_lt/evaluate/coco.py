"""COCO box AP, exactly as pycocotools computes it, by the same code as LVIS."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from yolox_lt.evaluate.lvis import Annotations, evaluate
from yolox_lt.evaluate.metrics import Report
from yolox_lt.evaluate.protocols import Protocol
from yolox_lt.evaluate.results import Results


def evaluate_coco(
    annotations: Annotations,
    detections: Results,
    max_dets: int = 100,
    groups: Sequence[str] | NDArray[np.str_] | None = None,
) -> Report:
    """COCO box AP: every category is judged in every image, crowd regions are ignored, federated lists are not read.

    Arguments, report and errors as in `evaluate_lvis`, but `max_dets` counts per category in every image. As in
    pycocotools only "iscrowd" makes a box ignored, not "ignore" (but for files that heed it, VOC's). Beside AR, that of
    `max_dets` detections, the report has the same number as "AR100" (or what `max_dets` is), and AR1 and AR10: with
    AP, AP50, AP75 and the sizes of AP and AR the twelve official metrics.
    """
    recall_at = tuple(sorted({count for count in (1, 10, max_dets) if count <= max_dets}))
    rules = Protocol("COCO AP", "image and category", max_dets, lvis=False, recall_at=recall_at)
    return evaluate(annotations, detections, rules, groups)
