"""What is known of annotations, column by column: declared once. Cache, joining and index follow from this table.

A new field of a box, an image or a category is a line here and what its reader gives; where a reader gives nothing a
field with a default is filled.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from yolox_lt.data.columns import Bools, Columns, Floats, Ints


def one_row(per: str, default: Any = None) -> Any:
    """A column with a row for each "image", "box", "category", or each entry of a list ("negative", ...).

    default: value of all rows where a reader gives none; None: every reader gives the column.
    """
    return field(metadata={"per": per, "default": default})


def offsets(of: str) -> Any:
    """A column int64 [I + 1]: rows offsets[i] to offsets[i + 1] of the columns of `of` belong to image i."""
    return field(metadata={"offsets": of})


@dataclass(frozen=True, eq=False, repr=False)
class AnnotationColumns:
    """Columns of I images, N boxes and C categories, read-only.

    Images are in ascending order of their ids, boxes grouped by image and in file order inside an image (ties in the
    evaluation depend on it), categories in ascending order of their ids: label c is category `category_ids[c]`.

    Attributes:
        image_ids: int64 [I], ascending.
        sizes: int64 [I, 2], (height, width) in pixels.
        box_offsets: int64 [I + 1]; the boxes of image i are rows box_offsets[i] to box_offsets[i + 1].
        boxes: float64 [N, 4], x y width height exactly as in the file.
        labels: int64 [N], 0..C-1.
        areas: float64 [N], the file's "area" (of the mask), width * height where the file has none.
        annotation_ids: int64 [N], the file's "id" (0 is a valid id), else the running number from 1.
        crowd, ignore: bool [N], the file's "iscrowd" and "ignore".
        group_of: bool [N], the file's "is_group_of" (Open Images): one box around many objects; not trained on.
        negative_offsets, negative_labels: int64 [I + 1] and flat: categories verified absent, per image.
        not_exhaustive_offsets, not_exhaustive_labels: likewise, categories of which not every object has a box.
        positive_offsets, positive_labels: likewise, categories verified present ("pos_category_ids", Open Images).
        category_ids: int64 [C], ascending.
        ancestor_offsets, ancestor_labels: int64 [C + 1] and flat: all ancestors of each category, without itself, from
            the file's "parent_ids" (Open Images' hierarchy).
        usable: bool [N]: neither crowd nor group, finite, and of positive width and height inside the image.
        image_counts: int64 [C], images with at least one usable box of the category.
        instance_counts: int64 [C], usable boxes.
    """

    image_ids: Ints = one_row("image")
    sizes: Ints = one_row("image")
    box_offsets: Ints = offsets("box")
    boxes: Floats = one_row("box")
    labels: Ints = one_row("box")
    areas: Floats = one_row("box")
    annotation_ids: Ints = one_row("box")
    crowd: Bools = one_row("box", default=False)
    ignore: Bools = one_row("box", default=False)
    group_of: Bools = one_row("box", default=False)
    negative_offsets: Ints = offsets("negative")
    negative_labels: Ints = one_row("negative")
    not_exhaustive_offsets: Ints = offsets("not_exhaustive")
    not_exhaustive_labels: Ints = one_row("not_exhaustive")
    positive_offsets: Ints = offsets("positive")
    positive_labels: Ints = one_row("positive")
    category_ids: Ints = one_row("category")
    ancestor_offsets: Ints = one_row("category's ancestors")
    ancestor_labels: Ints = one_row("category's ancestors")
    usable: Bools = one_row("derived")
    image_counts: Ints = one_row("derived")
    instance_counts: Ints = one_row("derived")


def rows_per(per: str) -> tuple[str, ...]:
    """Names of the columns with a row for each of something."""
    return tuple(f.name for f in fields(AnnotationColumns) if f.metadata.get("per") == per)


RAGGED: dict[str, tuple[str, ...]] = {
    f.name: rows_per(f.metadata["offsets"]) for f in fields(AnnotationColumns) if "offsets" in f.metadata
} | {"file_name_offsets": ("file_name_bytes",)}
"""Columns that hold a run of rows per image, by the column of their offsets."""


def fill_defaults(columns: Columns) -> Columns:
    """The columns with those of boxes that a reader has not given."""
    count = len(columns["labels"])
    return {name: np.full(count, default) for name, default in defaults()} | columns


def defaults() -> Iterator[tuple[str, Any]]:
    """Columns of boxes that have a default, and it."""
    for f in fields(AnnotationColumns):
        if f.metadata.get("default") is not None:
            yield f.name, f.metadata["default"]


def values_of(columns: Columns) -> Iterator[tuple[str, NDArray[Any]]]:
    """Name and array of every column of the table, read-only."""
    for f in fields(AnnotationColumns):
        yield f.name, columns[f.name]
