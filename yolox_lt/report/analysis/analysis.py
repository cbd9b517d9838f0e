"""What the detections of one evaluation say about every category: thresholds, margins, errors, confusions."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from yolox_lt.data.annotations.index import AnnotationIndex
from yolox_lt.data.columns import Bools, Floats, Ints
from yolox_lt.errors import UserError
from yolox_lt.evaluate.metrics import Report
from yolox_lt.evaluate.results import DetectionArrays
from yolox_lt.report.analysis.picks import Pick, pick_false, pick_missed, pick_true, ranks_of
from yolox_lt.report.analysis.thresholds import ScoredDetections, best_thresholds, f1_curves, mean_scores
from yolox_lt.report.analysis.tide import (
    CLASSIFICATION,
    KINDS,
    LOCALISATION,
    MISSED,
    Objects,
    claimed_objects,
    confused_pairs,
    kinds_of,
    missed_objects,
    objects_of,
    overlaps_of,
)

FILE = "evaluation.npz"

FORMAT = 1
"""Of the file; another number means another version of this project."""


@dataclass
class Analysis:
    """One evaluation of C categories, everything at IoU 0.5 unless the name says otherwise.

    protocol: as in `Report`. epoch: after which it was made, None if not told.
    metrics: name -> value in [0, 1]. values: name -> float64 [C] in [0, 1], AP, AP50 ... of single categories.
    category_ids: int64 [C]. names: C names. groups: "r", "c", "f" [C], "" where unknown.
    train_counts: int64 [C], training images of the category, -1 where unknown.
    box_counts, detection_counts: int64 [C], as in `Report`.
    precision: float32 [C, 101] at recall 0:0.01:1. f1: float32 [C, 101] at score threshold 0:0.01:1.
    threshold, best_f1: float64 [C], see `thresholds.best_threshold`.
    positive_score, negative_score: float64 [C], mean score of the category's true and of its false positives.
    hits: int64 [C], true positives from the best threshold on.
    errors: int64 [C, 6], errors by `errors.KINDS`: false positives from the best threshold on, then missed objects.
        A category without a threshold has no false positives here; without boxes it has no errors at all.
    confusion: int64 [K, 3], (true label, predicted label, count) of classification errors, most frequent first. Where a
        file is federated only detections of categories that were verified in the image can be among them.
    images: what `category_pictures.write_pictures` returned.
    """

    protocol: str
    epoch: int | None
    metrics: dict[str, float]
    values: dict[str, Floats]
    category_ids: Ints
    names: tuple[str, ...]
    groups: NDArray[np.str_]
    train_counts: Ints
    box_counts: Ints
    detection_counts: Ints
    precision: NDArray[np.float32]
    f1: NDArray[np.float32]
    threshold: Floats
    best_f1: Floats
    positive_score: Floats
    negative_score: Floats
    hits: Ints
    errors: Ints
    confusion: Ints
    examples: list[dict[str, Any]] = field(default_factory=list)

    @property
    def margin(self) -> Floats:
        """Score margin of every category [C], NaN without true or without false positives (EFL paper, Figure 4).

        The mean score of positives less that of negatives. The paper does not say what its samples are; our choice:
        positives are the true positives of the evaluation, negatives its false positives.
        """
        return self.positive_score - self.negative_score

    def save(self, path: Path) -> None:
        """Write everything as one npz file, under another name first: a reader never sees half a file."""
        text = {
            "format": FORMAT,
            "protocol": self.protocol,
            "epoch": self.epoch,
            "metrics": {name: _null(value) for name, value in self.metrics.items()},
            "names": list(self.names),
            "value_names": list(self.values),
            "pictures": self.examples,
        }
        arrays = {f.name: getattr(self, f.name) for f in fields(self) if f.name in _ARRAYS}
        columns = np.stack(list(self.values.values()), axis=1)  # [C, names]
        encoded = np.frombuffer(json.dumps(text).encode(), np.uint8)
        temporary = path.with_name(f".{path.name}")
        with open(temporary, "wb") as file:
            np.savez_compressed(file, text=encoded, values=columns, **arrays)
        temporary.replace(path)

    @classmethod
    def load(cls, path: Path) -> Analysis:
        """Read what `save` wrote.

        Raises:
            UserError: not such a file, or one of another version.
        """
        try:
            with np.load(path, allow_pickle=False) as archive:
                arrays = {name: archive[name] for name in archive.files}
            text = json.loads(arrays.pop("text").tobytes())
            columns = arrays.pop("values")
        except (OSError, ValueError, KeyError, BadZipFile) as error:
            raise UserError(f"{path}: not a readable evaluation ({error}); delete it and evaluate again") from error
        if text["format"] != FORMAT:
            raise UserError(
                f"{path}: has format {text['format']}, this version reads {FORMAT}; delete it and evaluate again"
            )
        return cls(
            protocol=text["protocol"],
            epoch=text["epoch"],
            metrics={name: float("nan") if value is None else value for name, value in text["metrics"].items()},
            values={name: columns[:, i] for i, name in enumerate(text["value_names"])},
            names=tuple(text["names"]),
            examples=text["pictures"],
            **arrays,
        )


_ARRAYS = frozenset(
    {"category_ids", "groups", "train_counts", "box_counts", "detection_counts", "precision", "f1", "threshold"}
    | {"best_f1", "positive_score", "negative_score", "hits", "errors", "confusion"}
)


def analyse(
    index: AnnotationIndex,
    detections: DetectionArrays,
    report: Report,
    train_counts: Mapping[int, int] | None = None,
    epoch: int | None = None,
    images_per_kind: int = 3,
) -> tuple[Analysis, list[Pick]]:
    """Figures of every category, and the detections and objects worth an image.

    Args:
        index: the annotations. detections: what was scored. report: its result, `status` in the detections' order.
        train_counts: category id -> training images with the category.
        epoch: of the weights, for people.
        pictures_per_kind: best true positives, worst false positives and missed objects of each category.
    """
    num_categories = len(index.category_ids)
    scored = ScoredDetections.of(index, detections, report)
    threshold, best_f1 = best_thresholds(scored, report.box_counts)
    counted = scored.scores >= threshold[scored.labels]  # NaN: nothing counts
    objects = objects_of(index, report.to_find)
    errors, confusion, picks = find_errors(scored, counted, objects, num_categories, images_per_kind)
    analysis = Analysis(
        protocol=report.protocol,
        epoch=epoch,
        metrics=dict(report.metrics),
        values=dict(report.per_category),
        category_ids=report.category_ids,
        names=report.category_names,
        groups=np.full(num_categories, "") if report.groups is None else report.groups,
        train_counts=_train_counts(index, train_counts),
        box_counts=report.box_counts,
        detection_counts=report.detection_counts,
        precision=report.precision[:, 0].astype(np.float32),
        f1=f1_curves(scored, report.box_counts).astype(np.float32),
        threshold=threshold,
        best_f1=best_f1,
        positive_score=mean_scores(scored, scored.hit),
        negative_score=mean_scores(scored, ~scored.hit),
        hits=np.bincount(scored.labels[scored.hit & counted], minlength=num_categories),
        errors=errors,
        confusion=confusion,
    )
    return analysis, picks


def find_errors(
    scored: ScoredDetections, counted: Bools, objects: Objects, num_categories: int, images_per_kind: int
) -> tuple[Ints, Ints, list[Pick]]:
    """(errors [C, 6], confusion [K, 3], picks), see `Analysis`; `counted` [K] are the detections that count."""
    hits = np.flatnonzero(scored.hit)
    claimed = claimed_objects(scored.images[hits], scored.labels[hits], scored.boxes[hits], objects)
    # False positives below the threshold are looked at for images alone.
    misses = np.flatnonzero(~scored.hit)
    misses = misses[counted[misses] | (ranks_of(scored.labels[misses]) < images_per_kind)]
    overlaps = overlaps_of(scored.images[misses], scored.labels[misses], scored.boxes[misses], objects)
    kinds = kinds_of(overlaps)
    counts = counted[misses]
    wrong = counts & (kinds == CLASSIFICATION)
    missed = missed_objects(
        objects,
        claimed[counted[hits]],
        overlaps.own[counts & (kinds == LOCALISATION)],
        overlaps.other[wrong],
    )
    errors = np.zeros((num_categories, len(KINDS)), np.int64)
    np.add.at(errors, (scored.labels[misses[counts]], kinds[counts]), 1)
    errors[:, MISSED] = np.bincount(objects.labels[missed], minlength=num_categories)
    confusion = confused_pairs(objects.labels[overlaps.other[wrong]], scored.labels[misses[wrong]], num_categories)
    picks = [
        *pick_true(scored, hits[ranks_of(scored.labels[hits]) < images_per_kind]),
        *pick_false(scored, misses, kinds, overlaps, objects, images_per_kind),
        *pick_missed(objects, missed, images_per_kind),
    ]
    return errors, confusion, picks


def _train_counts(index: AnnotationIndex, counts: Mapping[int, int] | None) -> Ints:
    if counts is None:
        return np.full(len(index.category_ids), -1)
    return np.array([counts.get(category, 0) for category in index.category_ids.tolist()], np.int64)


def _null(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
