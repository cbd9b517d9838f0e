"""Keep what the report of a run needs from an evaluation while its detections are in memory."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from yolox_lt.data.annotations.index import AnnotationIndex
from yolox_lt.data.dataset import ImageStore
from yolox_lt.evaluate.metrics import Report
from yolox_lt.evaluate.results import DetectionArrays
from yolox_lt.report.analysis.analysis import FILE, Analysis, analyse
from yolox_lt.report.page.category_images import image_plan, write_images


def record_evaluation(
    folder: Path,
    index: AnnotationIndex,
    store: ImageStore | None,
    detections: DetectionArrays,
    report: Report,
    train_counts: Mapping[int, int] | None = None,
    epoch: int | None = None,
) -> Analysis:
    """Write evaluation.npz and pictures/categories/ in a run's folder, in place of those of an earlier evaluation.

    Args:
        folder: of the run; must exist.
        index, store: annotations and images of the evaluated set; without images there are no images.
        detections: all of them, as they were scored. report: their score; `status` is in their order.
        train_counts: category id -> training images with the category; None where unknown.
        epoch: after which the evaluation was made.
    """
    per_kind, side = image_plan(int((report.box_counts > 0).sum()))
    analysis, picks = analyse(index, detections, report, train_counts, epoch, per_kind)
    if store is not None:
        analysis.examples = write_images(folder, store, picks, side)
    analysis.save(folder / FILE)
    return analysis
