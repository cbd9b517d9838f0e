"""Detections as arrays: from memory, from COCO-results dicts, from a results file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from yolox_lt.data.annotations.coco_json import Box, Int64
from yolox_lt.data.annotations.index import AnnotationIndex
from yolox_lt.data.annotations.json_text import decode_json, name_of
from yolox_lt.data.columns import Bools, Floats, Ints, look_up
from yolox_lt.errors import UserError


@dataclass
class DetectionArrays:
    """D detections of many images, in any order of images; the order inside an image decides ties of equal scores.

    image_ids: int64 [D], ids of the annotation file.
    category_ids: int64 [D], ids of the annotation file (not labels).
    boxes: float64 [D, 4], x y width height in pixels of the original image.
    scores: float64 [D].

    Raises ValueError for shapes that do not fit together and for ids that are not whole numbers.
    """

    image_ids: Ints
    category_ids: Ints
    boxes: Floats
    scores: Floats

    def __post_init__(self) -> None:
        self.image_ids = _integers(self.image_ids, "image_ids")
        self.category_ids = _integers(self.category_ids, "category_ids")
        self.scores = np.asarray(self.scores, np.float64)
        self.boxes = np.asarray(self.boxes, np.float64)
        if self.boxes.size == 0:
            self.boxes = self.boxes.reshape(0, 4)
        count = len(self.scores)
        shapes = [column.shape for column in (self.image_ids, self.category_ids, self.boxes, self.scores)]
        if shapes != [(count,), (count,), (count, 4), (count,)]:
            raise ValueError(
                f"image_ids, category_ids, boxes, scores have shapes {shapes}; expected [D] [D] [D, 4] [D]"
            )

    def __len__(self) -> int:
        return len(self.scores)

    def select(self, rows: Bools | Ints) -> DetectionArrays:
        """Some of them: bool [D], or their positions."""
        return DetectionArrays(self.image_ids[rows], self.category_ids[rows], self.boxes[rows], self.scores[rows])

    @classmethod
    def concatenate(cls, parts: Sequence[DetectionArrays]) -> DetectionArrays:
        """All parts as one, in ascending order of image ids, the order inside an image kept.

        So the arrays are the same however the images were split into parts, as long as each image is in one part.
        """
        if not parts:
            return cls(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros((0, 4)), np.zeros(0))
        image_ids = np.concatenate([part.image_ids for part in parts])
        order = np.argsort(image_ids, kind="stable")
        return cls(
            image_ids[order],
            np.concatenate([part.category_ids for part in parts])[order],
            np.concatenate([part.boxes for part in parts])[order],
            np.concatenate([part.scores for part in parts])[order],
        )


Results = str | Path | Sequence[Mapping[str, Any]] | DetectionArrays


class ResultEntry(msgspec.Struct, gc=False):
    """One entry of a results file in COCO's format; further keys are skipped."""

    image_id: Int64
    category_id: Int64
    bbox: Box
    score: float


def load_detections(source: Results) -> DetectionArrays:
    """Detections from a results file, a list of COCO-results dicts (`bbox` x y width height), or arrays as they are.

    Raises:
        UserError: no such file, malformed json, missing keys or wrong types, NaN or infinite scores or boxes.
    """
    if isinstance(source, DetectionArrays):
        arrays = source
    else:
        origin: object = Path(source) if isinstance(source, str | Path) else source
        entries = decode_json(origin, list[ResultEntry])
        count = len(entries)
        arrays = DetectionArrays(
            np.fromiter((entry.image_id for entry in entries), np.int64, count),
            np.fromiter((entry.category_id for entry in entries), np.int64, count),
            np.fromiter(chain.from_iterable(entry.bbox for entry in entries), np.float64, 4 * count).reshape(-1, 4),
            np.fromiter((entry.score for entry in entries), np.float64, count),
        )
    _refuse_non_finite(arrays, source)
    return arrays


def labels_and_images(detections: DetectionArrays, index: AnnotationIndex, source: Results) -> tuple[Ints, Ints]:
    """Label [D] and position of the image in `index` [D] of every detection; `source` names them in messages.

    Raises:
        UserError: an image or category id that the annotations do not know.
    """
    images, known = look_up(detections.image_ids, index.image_ids)
    if not known.all():
        bad = int(np.argmin(known))
        raise UserError(
            f"{_name(source)}: detection {bad} has image_id {detections.image_ids[bad]}, which {name_of(index.path)} "
            "does not list: it belongs to another annotation file; evaluate it with the one it was made for"
        )
    labels, known = look_up(detections.category_ids, index.category_ids)
    if not known.all():
        bad = int(np.argmin(known))
        raise UserError(
            f"{_name(source)}: detection {bad} has category_id {detections.category_ids[bad]}, which "
            f"{name_of(index.path)} does not list; write the ids of that file, not labels counted from 0"
        )
    return labels, images


def _integers(values: Ints, name: str) -> Ints:
    given = np.asarray(values)
    with np.errstate(invalid="ignore"):  # a NaN becomes some integer, which the comparison finds
        integers = given.astype(np.int64)
    if not np.array_equal(integers, given):
        raise ValueError(f"{name} must be whole numbers")
    return integers


def _refuse_non_finite(detections: DetectionArrays, source: Results) -> None:
    finite = np.isfinite(detections.scores) & np.logical_and.reduce(np.isfinite(detections.boxes), axis=1)
    if not finite.all():
        bad = int(np.argmin(finite))
        raise UserError(
            f"{_name(source)}: detection {bad} has score {detections.scores[bad]} and box "
            f"{detections.boxes[bad].tolist()}; both must be finite: look for what diverged, or leave it out"
        )


def _name(source: Results) -> str:
    return str(source) if isinstance(source, str | Path) else "the given detections"
