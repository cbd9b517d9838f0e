"""What an evaluation found: metrics, values per category, a outcome for every detection."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from yolox_lt.data.columns import Bools, Floats, Ints
from yolox_lt.evaluate.protocols import Protocol

DROPPED, FALSE_POSITIVE, TRUE_POSITIVE, IGNORED = 0, 1, 2, 3

STATUS_NAMES = ("dropped", "fp", "tp", "ignored")
"""Names of the codes above."""


@dataclass
class Report:
    """Result of one evaluation of C categories. NaN stands for "nothing to average": no boxes to be found.

    protocol: what was measured, e.g. "LVIS AP, 300 detections per image".
    to_find: bool [N], the boxes of the annotation file that were to be found: without those that the protocol ignores.
    rules: the protocol itself, None for Open Images.
    metrics: name -> value in [0, 1]: AP AP50 AP75 APs APm APl APr APc APf AR ARs ARm ARl; COCO also AR1 AR10 AR100, the
        last of which is AR; Open Images also AP1 to AP5.
    per_category: name -> float64 [C] in [0, 1]: AP AP50 AP75 APs APm APl AR ARs ARm ARl, always of single categories;
        Open Images: AP, AP50 and the quintile 1 to 5 that its AP1 to AP5 count the category in.
    category_ids, category_names: of the annotation file.
    groups: "r", "c" or "f" per category [C]; None if nothing tells.
    image_counts, instance_counts: int64 [C], images with and boxes of the category in this annotation file.
    box_counts: int64 [C], boxes to be found (without those that the protocol ignores).
    detection_counts: int64 [C], detections that took part (after caps and filters).
    num_images: images of the annotation file.
    precision: float64 [C, 10, 101], per category, IoU threshold 0.50:0.05:0.95 and recall 0:0.01:1, all areas; NaN
        where there is nothing to be found or the protocol does not ask.
    status: int8 [D], what became of every detection of the input at IoU 0.5: DROPPED by a cap or filter or because its
        category has no boxes to be found, FALSE_POSITIVE, TRUE_POSITIVE or IGNORED.
    """

    protocol: str
    metrics: dict[str, float]
    per_category: dict[str, Floats]
    category_ids: Ints
    category_names: tuple[str, ...]
    groups: NDArray[np.str_] | None
    image_counts: Ints
    instance_counts: Ints
    box_counts: Ints
    detection_counts: Ints
    num_images: int
    precision: Floats = field(repr=False)
    status: NDArray[np.int8] = field(repr=False)
    to_find: Bools = field(repr=False)
    rules: Protocol | None = None
    shown: tuple[str, ...] = ()
    """Metrics that the table prints, all if empty."""

    def status_names(self) -> list[str]:
        """`status` in words: "dropped", "fp", "tp" or "ignored" for every detection of the input."""
        return [STATUS_NAMES[code] for code in self.status.tolist()]

    def table(self) -> str:
        """The protocol and below it the metrics in percent as aligned text; "-" where there is nothing to average."""
        with_boxes = int(np.count_nonzero(self.box_counts))
        title = (
            f"{self.protocol}, in percent ({self.num_images:,} images, {with_boxes:,} of "
            f"{len(self.category_ids):,} categories with boxes)"
        )
        shown = self.shown or tuple(self.metrics)
        recalls = [name for name in shown if name.startswith("AR")]
        precisions = [name for name in shown if name not in recalls]
        lines = [title]
        for names in filter(None, (precisions, recalls)):
            lines.append("".join(f"{name:>7}" for name in names))
            lines.append("".join(f"{_percent(self.metrics[name]):>7}" for name in names))
        return "\n".join(lines)

    def write_csv(self, path: str | Path, columns: Mapping[str, NDArray[Any]] | None = None) -> None:
        """Write one line per category, as `per_category.csv`; values in [0, 1], "nan" for nothing to average.

        Columns: id, name, group, images, instances (both in this annotation file), boxes, detections, then `columns`
        (name -> integers or floats [C], the latter with six digits), then the metrics.
        """
        more = {} if columns is None else {name: _texts(column) for name, column in columns.items()}
        groups = [""] * len(self.category_ids) if self.groups is None else self.groups.tolist()
        counts = (self.image_counts, self.instance_counts, self.box_counts, self.detection_counts)
        with Path(path).open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            names = ["id", "name", "group", "images", "instances", "boxes", "detections", *more, *self.per_category]
            writer.writerow(names)
            for c, (category_id, name) in enumerate(zip(self.category_ids.tolist(), self.category_names)):
                values = [f"{column[c]:.6f}" for column in self.per_category.values()]
                own = (*(int(count[c]) for count in counts), *(column[c] for column in more.values()))
                writer.writerow([category_id, name, groups[c], *own, *values])


def _texts(column: NDArray[Any]) -> list[str]:
    """Integers in full, other numbers with six significant digits."""
    return [str(v) if isinstance(v, int) else f"{v:.6g}" for v in column.tolist()]


def _percent(value: float) -> str:
    return "-" if math.isnan(value) else f"{100 * value:.1f}"
