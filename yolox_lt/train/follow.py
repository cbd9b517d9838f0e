"""What a run shows beside its checkpoints: log, gauge, trackers, images and the report page. Rank 0 alone has one."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from loguru import logger

from yolox_lt.boxes import xywh_to_xyxy
from yolox_lt.data.annotations.index import AnnotationIndex
from yolox_lt.data.dataset import BadImageError, ImageStore
from yolox_lt.losses import DenseLoss
from yolox_lt.report.analysis.per_category import threshold_column, training_columns
from yolox_lt.report.data.summary import DataSummary
from yolox_lt.train.balance_history import BalanceHistory
from yolox_lt.train.trackers import make_trackers
from yolox_lt.types import Batch, Detections

if TYPE_CHECKING:
    from yolox_lt.evaluate.evaluator import Evaluator
    from yolox_lt.evaluate.metrics import Report
    from yolox_lt.evaluate.results import DetectionArrays
    from yolox_lt.exp.detection import DetectorExp

TRAIN_IMAGES = 3
"""Batches drawn at the start of a run."""

VAL_IMAGES = 8
"""Validation images drawn after an evaluation."""

DRAWING_SHARE = 0.01
"""Largest share of a run's time so far that images and pages may have taken; what would take more waits for a later
evaluation, or for the end of the training.
"""

FIRST_DRAWING = 10.0
"""Seconds that the first page of a run is expected to take; the next ones are expected to take as long as the last."""


class ReportCallback:
    """Pictures, gauge, trackers and report of one run.

    Images and pages never end a run: what fails is reported as a warning, with its traceback in train.log.

    Args:
        exp: the experiment. folder: of the run, which exists.
        summary: of the training set. evaluator: holds validation annotations and, after an evaluation, its detections.
        loss: the classification loss, whose balance is followed. epoch: epochs done before.
    """

    def __init__(
        self,
        exp: DetectorExp,
        folder: Path,
        summary: DataSummary,
        evaluator: Evaluator,
        loss: DenseLoss,
        epoch: int,
    ) -> None:
        self.exp = exp
        self.folder = folder
        self.summary = summary
        self.loss = loss
        self.evaluator = evaluator
        self.gauge = BalanceHistory(folder, loss, evaluator.groups, epoch)
        self.trackers = make_trackers(exp.trackers, folder)
        self.trackers.start(exp.exp_name, exp.attributes())
        self.started = time.perf_counter()
        self.drawing_seconds = 0.0
        self.expected = FIRST_DRAWING
        self.undrawn = self.labels_drawn = False
        self.pending: tuple[int, Report, DetectionArrays] | None = None  # best evaluation, not yet recorded
        (folder / "pictures").mkdir(exist_ok=True)

    def batch(self, batch: Batch, iteration: int) -> None:
        """Draw the first batches of a run as the network sees them."""
        if iteration >= TRAIN_IMAGES:
            return
        from yolox_lt.report.data.batch_images import render_train_batch

        path = self.folder / "pictures" / f"train_batch_{iteration}.jpg"
        with self.counted(), self.never_fatal(path):
            render_train_batch(batch, self.summary.names, path, legacy=getattr(self.exp, "legacy", False))

    def step(self, iteration: int, values: dict[str, float] | None) -> None:
        """After `iteration` optimiser steps; values at print intervals only."""
        self.gauge.check(iteration)
        if values is not None:
            self.trackers.log(iteration, values)

    def epoch(self, epoch: int, iteration: int, row: dict[str, float], report: Report | None, is_best: bool) -> None:
        """At the end of an epoch, with its row of metrics.csv and the evaluation if there was one."""
        self.gauge.epoch(epoch)
        self.undrawn = True
        self.trackers.log(iteration, {f"epoch/{name}": value for name, value in row.items()})
        if report is None:
            return
        if is_best:
            self.write_categories(report)
            if self.evaluator.detections is not None:
                self.pending = (epoch, report, self.evaluator.detections)
        if self.drawing_seconds + self.expected <= DRAWING_SHARE * (time.perf_counter() - self.started):
            self.render()

    def finish(self) -> None:
        """When the training is over, also when it was interrupted: the last images and page."""
        self.trackers.finish()
        trained, drawn = time.perf_counter() - self.started, self.drawing_seconds
        if self.undrawn:
            self.render()
        logger.info(
            f"pictures and pages: {drawn:.1f} s of the {trained:.0f} s of this training ({drawn / trained:.2%}), then "
            f"{self.drawing_seconds - drawn:.1f} s after it"
        )

    def render(self) -> None:
        """Everything that shows the latest state: record of the best evaluation, images, page."""
        before = self.drawing_seconds
        with self.counted():
            if self.pending is not None:
                self.keep_evaluation(*self.pending)
                self.pending = None
            self.write_report()
        self.expected = self.drawing_seconds - before
        self.undrawn = False

    @contextlib.contextmanager
    def counted(self) -> Iterator[None]:
        """Add the time spent inside to `drawing_seconds`."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.drawing_seconds += time.perf_counter() - start

    def write_categories(self, report: Report) -> None:
        """per_category.csv, of the same evaluation as best.pth and evaluation.npz."""
        columns = training_columns(self.summary, self.loss)
        if self.evaluator.detections is not None:
            columns |= threshold_column(self.evaluator.index, self.evaluator.detections, report)
        report.write_csv(self.folder / "per_category.csv", columns)

    def keep_evaluation(self, epoch: int, report: Report, detections: DetectionArrays) -> None:
        """evaluation.npz, which the report page reads, and images of some detections."""
        from yolox_lt.report.analysis.evaluation_file import record_evaluation

        index = self.evaluator.index
        counts = dict(zip(self.summary.category_ids.tolist(), self.summary.image_counts.tolist()))
        with self.never_fatal(self.folder / "evaluation.npz"):
            store = self.exp.get_store("val")
            record_evaluation(self.folder, index, store, detections, report, counts, epoch)
            self.render_validation(store, detections)

    def render_validation(self, store: ImageStore, found: DetectionArrays) -> None:
        """Ground truth beside prediction for some images, spread over the validation set."""
        from yolox_lt.report.data.batch_images import render_val_pairs

        index = self.evaluator.index
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

        if not self.labels_drawn:
            self.labels_drawn = True
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
