"""Images, per-category table and report page of a run."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from loguru import logger

from yolox_lt.boxes import xywh_to_xyxy
from yolox_lt.data.annotations.index import AnnotationIndex
from yolox_lt.data.dataset import BadImageError, ImageStore
from yolox_lt.evaluate.metrics import Report
from yolox_lt.evaluate.results import DetectionArrays
from yolox_lt.report.analysis.balance_file import balance_columns
from yolox_lt.report.analysis.per_category import threshold_column, training_columns
from yolox_lt.report.data.summary import DataSummary
from yolox_lt.train.callbacks.callback import Callback, EpochRecord
from yolox_lt.train.state import RunState
from yolox_lt.types import Batch, Detections

TRAIN_IMAGES = 3
"""Batches drawn at the start of a run."""

VAL_IMAGES = 8
"""Validation images drawn after an evaluation."""

RENDERING_SHARE = 0.01
"""Largest share of a run's time so far that images and pages may have taken; what would take more waits for a later
evaluation, or for the end of the training.
"""

FIRST_RENDERING = 10.0
"""Seconds that the first page of a run is expected to take; the next ones are expected to take as long as the last."""


class ReportCallback(Callback):
    """Images, per-category table and report page of one run; rank 0 alone has one.

    Images and pages never end a run: what fails is reported as a warning, with its traceback in train.log.

    Args:
        folder: of the run, which exists. summary: of the training set.
    """

    def __init__(self, folder: Path, summary: DataSummary) -> None:
        self.folder = folder
        self.summary = summary
        self.started = time.perf_counter()
        self.rendering_seconds = 0.0
        self.expected = FIRST_RENDERING
        self.is_behind = self.has_labels = False
        self.pending: tuple[int, Report, DetectionArrays] | None = None  # best evaluation, not yet recorded
        self.batches_shown = 0
        (folder / "pictures").mkdir(exist_ok=True)

    def on_batch(self, run: RunState, batch: Batch) -> None:
        """Show the first batches of a run as the network sees them."""
        if run.iteration >= TRAIN_IMAGES or run.iteration < self.batches_shown:
            return
        from yolox_lt.report.data.batch_images import render_train_batch

        self.batches_shown = run.iteration + 1
        path = self.folder / "pictures" / f"train_batch_{run.iteration}.jpg"
        with self.counted(), self.never_fatal(path):
            render_train_batch(batch, self.summary.names, path)

    def on_epoch_record(self, run: RunState, record: EpochRecord) -> None:
        self.is_behind = True
        if record.report is None:
            return
        if record.is_best:
            self.write_categories(run, record.report)
            if run.evaluator.detections is not None:
                self.pending = (record.epoch, record.report, run.evaluator.detections)
        if self.rendering_seconds + self.expected <= RENDERING_SHARE * (time.perf_counter() - self.started):
            self.render(run)

    def close(self, run: RunState) -> None:
        """When the training is over, also when it was interrupted: the last images and page."""
        trained, before = time.perf_counter() - self.started, self.rendering_seconds
        if self.is_behind:
            self.render(run)
        logger.info(
            f"images and pages: {before:.1f} s of the {trained:.0f} s of this training ({before / trained:.2%}), "
            f"then {self.rendering_seconds - before:.1f} s after it"
        )

    def render(self, run: RunState) -> None:
        """Everything that shows the latest state: record of the best evaluation, images, page."""
        before = self.rendering_seconds
        with self.counted():
            if self.pending is not None:
                self.keep_evaluation(run, *self.pending)
                self.pending = None
            self.write_report()
        self.expected = self.rendering_seconds - before
        self.is_behind = False

    @contextlib.contextmanager
    def counted(self) -> Iterator[None]:
        """Add the time spent inside to `rendering_seconds`."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.rendering_seconds += time.perf_counter() - start

    def write_categories(self, run: RunState, report: Report) -> None:
        """per_category.csv, of the same evaluation as best.pth and evaluation.npz."""
        columns = training_columns(self.summary, balance_columns(run.criterion.cls_loss))
        columns = {name: run.evaluator.in_order_of_index(column) for name, column in columns.items()}
        if run.evaluator.detections is not None:
            columns |= threshold_column(run.evaluator.index, run.evaluator.detections, report)
        report.write_csv(self.folder / "per_category.csv", columns)

    def keep_evaluation(self, run: RunState, epoch: int, report: Report, detections: DetectionArrays) -> None:
        """evaluation.npz, which the report page reads, and images of some detections."""
        from yolox_lt.report.analysis.after_training import write_thresholds
        from yolox_lt.report.analysis.evaluation_file import record_evaluation

        index = run.evaluator.index
        images = run.evaluator.in_order_of_index(self.summary.image_counts)
        counts = dict(zip(index.category_ids.tolist(), images.tolist()))
        with self.never_fatal(self.folder / "evaluation.npz"):
            store = run.exp.get_store("val")
            record_evaluation(self.folder, index, store, detections, report, counts, epoch)
            write_thresholds(self.folder / "best.pth", index, detections, report)
            self.render_validation(store, index, detections)

    def render_validation(self, store: ImageStore, index: AnnotationIndex, found: DetectionArrays) -> None:
        """Ground truth beside prediction for some images, spread over the validation set."""
        from yolox_lt.report.data.batch_images import render_val_pairs

        positions = np.unique(np.linspace(0, len(index) - 1, VAL_IMAGES).astype(int)).tolist()
        images, truth, detections = [], [], []
        for position in positions:
            try:
                images.append(store.read(position))
            except BadImageError:  # the evaluation has named it
                continue
            truth.append((index.boxes_of(position), index.labels_of(position)))
            detections.append(detections_of(found, int(index.image_ids[position]), index))
        path = self.folder / "pictures" / "val_predictions.jpg"
        if images:
            render_val_pairs(images, truth, detections, index.category_names, path)

    def write_report(self) -> None:
        """The figures and report.html; with the first one labels.png, the training set itself."""
        from yolox_lt.report.data.summary import plot_summary
        from yolox_lt.report.page.page import write_report

        if not self.has_labels:
            self.has_labels = True
            path = self.folder / "pictures/labels.png"
            with self.never_fatal(path):
                plot_summary(self.summary, path)
        with self.never_fatal(self.folder / "report.html"):
            write_report(self.folder)

    @contextlib.contextmanager
    def never_fatal(self, path: Path) -> Iterator[None]:
        """Report what fails while `path` is made; the training it tells of is worth more than the image."""
        try:
            yield
        except Exception as error:
            logger.opt(exception=error).warning(f"{path}: could not be made ({type(error).__name__}: {error})")


def detections_of(found: DetectionArrays, image_id: int, index: AnnotationIndex) -> Detections:
    """The detections of one image out of arrays, best first, with labels instead of category ids."""
    rows = np.flatnonzero(found.image_ids == image_id)
    rows = rows[np.argsort(-found.scores[rows], kind="stable")]
    return Detections(
        xywh_to_xyxy(torch.from_numpy(found.boxes[rows])).float(),
        torch.from_numpy(found.scores[rows]).float(),
        torch.from_numpy(np.searchsorted(index.category_ids, found.category_ids[rows])),
        index.category_names,
    )
