"""Open Images Challenge 2019: the published csv files -> the columns of an `AnnotationIndex`.

Read by the names in the headers, so the files of the challenge and those of Open Images V4 to V6 serve alike. What
becomes of them:

- Categories are told apart by MID, as names repeat ("Bench", "Mouse"); ids are 1 to C in the order of the class list.
  Rows of other categories, which the files of V4 to V6 have, are counted and left out.
- Images are those of the boxes and of the verified labels, in the order of their ids, with ids 1 to I; the file name
  keeps the published id.
- Labels with Confidence 1 become categories verified present, those with 0 categories verified absent. No category is
  marked as not exhaustive.
- "IsGroupOf" becomes `group_of`: such boxes are scored by the protocol's rule and are not trained on.
- Boxes and labels stay as published: the evaluation expands them along the hierarchy, training does not.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from loguru import logger
from numpy.typing import NDArray

from yolox_lt.data.annotations.coco_json import ancestor_columns
from yolox_lt.data.annotations.csv_batches import Batch, read_batches
from yolox_lt.data.columns import Bools, Columns, Floats, Ints, distinct, offsets_of, pack_strings
from yolox_lt.data.image_size import jpeg_sizes
from yolox_lt.errors import UserError

Names = NDArray[np.bytes_]

TOLERANCE = 0.01
"""By which a coordinate may leave [0, 1]: a box that is rounded outwards is clipped, pixels are refused."""

_EDGES = ("XMin", "XMax", "YMin", "YMax")


@dataclass(frozen=True)
class Runs:
    """Consecutive rows of one image each: names [R] of the images, counts int64 [R] of rows."""

    names: Names
    counts: Ints


def openimages_columns(
    boxes: Path, labels: Path | None, classes: Path, hierarchy: Path, images: Path, sizes: Path | None = None
) -> Columns:
    """Columns for `write_packed`.

    Args:
        boxes: csv with ImageID, LabelName, XMin, XMax, YMin, YMax, IsGroupOf.
        labels: csv with ImageID, LabelName, Confidence; None: every category counts as verified in every image.
        classes: csv without a header, MID and name.
        hierarchy: json of nested "LabelName" and "Subcategory"; its root is no category.
        images: folder of the JPEG files <ImageID>.jpg, whose headers give the sizes.
        sizes: csv with ImageID, Width, Height, to be read instead of the headers.

    Raises:
        UserError: a file that is missing or none of its kind, a line that cannot be understood, a missing image.
    """
    categories = read_classes(classes)
    mids = [mid for mid, _ in categories]
    names = [name for _, name in categories]
    box_runs, box_labels, edges, group = _read_boxes(boxes, mids)
    label_runs, verified, present = _read_labels(labels, mids)
    image_names, run = np.unique(np.concatenate([box_runs.names, label_runs.names]), return_inverse=True)
    if len(image_names) == 0:
        raise UserError(f"{boxes}: has no rows; nothing can be trained or evaluated with it")
    image_of_box = np.repeat(run[: len(box_runs.names)], box_runs.counts)
    image_of_label = np.repeat(run[len(box_runs.names) :], label_runs.counts)
    folder = images.name
    files = [f"{name.decode()}.jpg" for name in image_names.tolist()]
    logger.info(f"{boxes}: {len(box_labels):,} boxes in {len(files):,} images, sizes from {sizes or images}")
    size = jpeg_sizes(images, files) if sizes is None else _read_sizes(sizes, image_names)
    return {
        "category_ids": np.arange(1, len(mids) + 1),
        "frequencies": np.array([], "<U1"),
        **pack_strings(names, "category_name"),
        **pack_strings(mids, "category_key"),
        **ancestor_columns(read_hierarchy(hierarchy, mids), names, str(hierarchy)),
        "image_ids": np.arange(1, len(files) + 1),
        "sizes": size,
        "federated": np.array([labels is not None]),
        "heeds_ignore": np.array([False]),
        **_label_columns("negative", image_of_label[~present], verified[~present], len(files), len(mids)),
        **_label_columns("positive", image_of_label[present], verified[present], len(files), len(mids)),
        **_label_columns("not_exhaustive", image_of_label[:0], verified[:0], len(files), len(mids)),
        **pack_strings([f"{folder}/{file}" for file in files], "file_name"),
        "problem:images without federated lists": np.array([0]),
        "problem:unknown category in federated lists": np.array([0]),
        **_box_columns(image_of_box, box_labels, edges, group, size),
    }


def read_classes(path: Path) -> list[tuple[str, str]]:
    """(MID, name) of every category, in file order.

    Raises:
        UserError: no such file, a line without MID and name, a MID twice.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file; check the path")
    found: dict[str, str] = {}
    with path.open(newline="", encoding="utf-8-sig") as file:
        for line, row in enumerate(csv.reader(file), 1):
            if not row:
                continue
            if len(row) != 2 or not row[0].startswith("/"):
                raise UserError(f"{path}: line {line}: {','.join(row)[:80]!r} is not MID,name; give the class list")
            if row[0] in found:
                raise UserError(f"{path}: line {line}: {row[0]} was listed before; remove one of the two lines")
            found[row[0]] = row[1]
    if not found:
        raise UserError(f"{path}: lists no categories; give the class list, one MID,name a line")
    return list(found.items())


def read_hierarchy(path: Path, mids: list[str]) -> list[set[int]]:
    """Labels of the direct parents of every category; the root and other nodes that are no category are passed over.

    Raises:
        UserError: no such file, not a hierarchy, none of the categories in it.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file; check the path")
    label = {mid: c for c, mid in enumerate(mids)}
    parents: list[set[int]] = [set() for _ in mids]
    seen: set[int] = set()

    def visit(node: Any, parent: int | None) -> None:
        own = label.get(node["LabelName"])
        if own is not None:
            seen.add(own)
            if parent is not None:
                parents[own].add(parent)
        for child in node.get("Subcategory", ()):
            visit(child, parent if own is None else own)

    try:
        for child in json.loads(path.read_bytes())["Subcategory"]:
            visit(child, None)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(
            f"{path}: not a hierarchy of nested LabelName and Subcategory ({type(error).__name__}: {error}); give "
            "the json file of the challenge"
        ) from error
    if not seen:
        raise UserError(
            f"{path}: names none of the {len(mids)} categories of the class list; give the files of one set"
        )
    return parents


def _read_boxes(path: Path, mids: Sequence[str]) -> tuple[Runs, Ints, list[Floats], Bools]:
    """Runs of images, labels [N], edges as pieces [n, 4] of all N rows in fractions of the image, group-of [N]."""
    runs, labels, edges, group = [], [], [], []
    unknown = 0
    for batch in read_batches(path, ("ImageID", "LabelName"), (*_EDGES, "IsGroupOf")):
        label = _labels_of(batch, mids)
        known = label >= 0
        piece = np.stack([batch.numbers(name) for name in _EDGES], axis=1)
        _refuse_pixels(batch, piece)
        unknown += len(known) - int(known.sum())
        runs.append(_runs_of(batch, known))
        labels.append(label[known].astype(np.int32))
        edges.append(piece[known])
        group.append((batch.numbers("IsGroupOf") == 1)[known])
    count = sum(map(len, labels))
    if unknown:
        logger.warning(f"{path}: {unknown:,} of {count + unknown:,} boxes left out, their category is not in the list")
    if unknown and not count:
        raise UserError(f"{path}: has no box of the {len(mids)} categories of the class list; give files of one set")
    return _joined(runs), _concatenate(labels, np.int64), edges, _concatenate(group, bool)


def _read_labels(path: Path | None, mids: Sequence[str]) -> tuple[Runs, Ints, Bools]:
    """Runs of images, labels [M], verified present (or absent) [M]."""
    runs, labels, present = [], [], []
    for batch in read_batches(path, ("ImageID", "LabelName"), ("Confidence",)) if path is not None else ():
        confidence = batch.numbers("Confidence")
        machine = (confidence != 0) & (confidence != 1)
        if machine.any():
            row = int(np.argmax(machine))
            raise UserError(
                f"{batch.line(row)}: Confidence {confidence[row]:g} is neither 0 nor 1; give the labels verified by "
                "people (*-human-imagelabels.csv)"
            )
        # An image whose labels are all of other categories is still one that was looked at.
        runs.append(_runs_of(batch, np.ones(len(batch), bool)))
        labels.append(_labels_of(batch, mids).astype(np.int32))
        present.append(confidence == 1)
    return _joined(runs), _concatenate(labels, np.int64), _concatenate(present, bool)


def _read_sizes(path: Path, image_names: Names) -> Ints:
    """int64 [I, 2], (height, width) of the sorted `image_names`."""
    result = np.zeros((len(image_names), 2), np.int64)
    for batch in read_batches(path, ("ImageID",), ("Width", "Height")):
        index, texts = batch.texts("ImageID")
        names = _bytes(texts)[index]
        place = np.searchsorted(image_names, names).clip(max=len(image_names) - 1)
        known = image_names[place] == names
        size = np.stack([batch.numbers("Height"), batch.numbers("Width")], axis=1)
        bad = ~(size >= 1).all(axis=1)
        if bad.any():
            raise UserError(f"{batch.line(int(np.argmax(bad)))}: Width and Height must be at least 1; correct the line")
        result[place[known]] = size[known]
    missing = np.flatnonzero(result[:, 0] == 0)
    if len(missing):
        raise UserError(
            f"{path}: has no size of image {image_names[missing[0]].decode()} and {len(missing) - 1:,} others; add "
            "them, or leave the file away to read the images' headers"
        )
    return result


def _labels_of(batch: Batch, mids: Sequence[str]) -> Ints:
    """Label of every row, -1 for a category that is not among `mids`, which are in the order of the labels."""
    index, texts = batch.texts("LabelName")
    label = {mid: c for c, mid in enumerate(mids)}
    return np.array([label.get(text, -1) for text in texts], np.int64)[index]


def _bytes(texts: Sequence[str]) -> Names:
    return np.array([text.encode() for text in texts], "S")


def _runs_of(batch: Batch, keep: Bools) -> Runs:
    """Runs of the rows that are kept."""
    index, texts = batch.texts("ImageID")
    index = index[keep]
    starts = np.flatnonzero(np.append(True, index[1:] != index[:-1])[: len(index)])
    return Runs(_bytes(texts)[index[starts]], np.diff(np.append(starts, len(index))))


def _joined(runs: list[Runs]) -> Runs:
    return Runs(_concatenate([r.names for r in runs], "S8"), _concatenate([r.counts for r in runs], np.int64))


def _concatenate(parts: list[Any], dtype: Any) -> Any:
    """All parts; an empty array of `dtype` for none. Numbers come out as `dtype`, texts as wide as the widest."""
    if not parts:
        return np.zeros(0, dtype)
    whole = np.concatenate(parts)
    return whole if whole.dtype.kind == "S" else whole.astype(dtype)


def _refuse_pixels(batch: Batch, edges: Floats) -> None:
    outside = (edges < -TOLERANCE) | (edges > 1 + TOLERANCE)
    if outside.any():
        row, column = (int(i[0]) for i in np.nonzero(outside))
        raise UserError(
            f"{batch.line(row)}: {_EDGES[column]} {edges[row, column]:g} is not in [0, 1]; give "
            "coordinates as fractions of the image's width and height"
        )


def _label_columns(name: str, image: Ints, labels: Ints, num_images: int, num_categories: int) -> Columns:
    """A list of distinct categories per image; label -1 stands for a category that is not in the list."""
    code = distinct((image * num_categories + labels)[labels >= 0])
    offsets = offsets_of(np.bincount(code // num_categories, minlength=num_images))
    return {f"{name}_offsets": offsets, f"{name}_labels": code % num_categories}


def _box_columns(image: Ints, labels: Ints, pieces: list[Floats], group: Bools, sizes: Ints) -> Columns:
    """Columns of N boxes, grouped by image, in file order inside an image. Empties `pieces` to save memory."""
    count = len(labels)
    boxes = np.empty((count, 4))
    start = 0
    pieces.reverse()
    while pieces:
        edges = pieces.pop()
        end = start + len(edges)
        size = sizes[image[start:end]]  # [n, 2], (height, width)
        for axis, low, high in ((0, 0, 1), (1, 2, 3)):
            length = size[:, 1 - axis]
            boxes[start:end, axis] = edges[:, low] * length
            boxes[start:end, 2 + axis] = (edges[:, high] - edges[:, low]) * length
        start = end
    columns = {
        "boxes": boxes,
        "labels": labels,
        "areas": boxes[:, 2] * boxes[:, 3],
        "annotation_ids": np.arange(1, count + 1),
        "group_of": group,
    }
    if (np.diff(image) < 0).any():  # the published files are in order already
        order = np.argsort(image, kind="stable")
        for name in columns:
            columns[name] = columns[name][order]
    counts = np.bincount(image, minlength=len(sizes))
    return columns | {"box_offsets": offsets_of(counts)}
