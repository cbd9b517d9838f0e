"""Score a model on a validation set, over any number of ranks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.distributed as dist
from torch import nn

from yolox_lt.data.annotations.index import AnnotationIndex
from yolox_lt.data.loader import Batches
from yolox_lt.distributed.collectives import gather_to_main
from yolox_lt.evaluate.collect import Limits, collect_detections
from yolox_lt.evaluate.metrics import Report
from yolox_lt.evaluate.results import DetectionArrays
from yolox_lt.evaluate.scoring import score
from yolox_lt.predict import Predictor


@dataclass
class Evaluator:
    """Everything of an evaluation but the model.

    Args:
        index: the validation annotations.
        loader: this rank's share of the images.
        predictor: from predictions to detections.
        preprocessor: uint8 images on the device, sizes of their contents -> network input.
        groups: "r", "c", "f" per category, None where unknown.
        max_detections: per image.
        expand_detections, train_boxes: for Open Images, see `evaluate_openimages`.
        labels: int64 [C], label of each category of the model in `index`, -1 where the file does not list it; None: the
            model's labels are those of `index`.
    """

    index: AnnotationIndex
    loader: Batches
    predictor: Predictor
    preprocessor: nn.Module
    groups: np.ndarray | None
    max_detections: int
    expand_detections: bool = False
    train_boxes: np.ndarray | None = None
    labels: np.ndarray | None = None
    detections: DetectionArrays | None = None
    """Rank 0: those of the last evaluation, over all ranks."""

    def detect(
        self,
        model: nn.Module,
        device: torch.device,
        autocast: torch.dtype | None = None,
        progress: bool = False,
        limits: Limits | None = None,
    ) -> DetectionArrays:
        """Detections of this rank's images; see `collect_detections`."""
        preprocessor = self.preprocessor.to(device)
        return collect_detections(
            model, self.predictor, preprocessor, self.loader, self.category_ids, device, autocast, progress, limits
        )

    @property
    def category_ids(self) -> np.ndarray:
        """The file's id of each category of the model, -1 for those that the file does not list."""
        if self.labels is None:
            return self.index.category_ids
        return np.where(self.labels < 0, -1, self.index.category_ids[self.labels])

    def in_order_of_index(self, column: np.ndarray) -> np.ndarray:
        """A column of the model's categories [C] for the categories of the annotation file."""
        if self.labels is None:
            return column
        own = np.flatnonzero(self.labels >= 0)
        return column[own[np.argsort(self.labels[own])]]

    def evaluate(
        self,
        model: nn.Module,
        device: torch.device,
        autocast: torch.dtype | None = None,
        group: dist.ProcessGroup | None = None,
        progress: bool = False,
    ) -> Report | None:
        """Detect on every rank, score on rank 0; None on the others. `group`: gloo group, None for one process."""
        parts = gather_to_main(self.detect(model, device, autocast, progress), group)
        if parts is None:
            return None
        self.detections = DetectionArrays.concatenate(parts)
        return self.score(self.detections)

    def score(self, detections: DetectionArrays, protocol: str = "auto") -> Report:
        """AP of detections of the whole set, by the rules that `protocol_name` chooses."""
        limits = protocol, self.max_detections
        return score(self.index, detections, *limits, self.groups, self.expand_detections, self.train_boxes)
