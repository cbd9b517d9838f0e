"""Annotation json -> typed entries -> numpy columns. LVIS v1, LVIS v0.5 and plain COCO files; polygons are skipped.

Typed decoding builds only the fields named below, so a file of a gigabyte costs seconds and not tens of gigabytes.
The meaning of every column is documented at `AnnotationIndex`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path
from typing import Annotated

import msgspec
import numpy as np
from numpy.typing import NDArray

from yolox_lt.data.annotations.json_text import decode_json
from yolox_lt.data.annotations.mask_boxes import boxes_from_masks
from yolox_lt.data.annotations.meant import refuse_fractions, unmeant
from yolox_lt.data.columns import Columns, Floats, Ints, look_up, offsets_of, pack_strings
from yolox_lt.data.image_files import is_image
from yolox_lt.errors import UserError

Int64 = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
Box = tuple[float, float, float, float]

CLIP_TOLERANCE = 0.5
"""Pixels by which a box may leave its image before it is reported: most files carry rounded coordinates."""


MAX_SIDE = 2**24
"""Pixels; up to here every coordinate of a box is exact in float32."""


class ImageEntry(msgspec.Struct, gc=False):
    """One entry of "images"."""

    id: Int64
    width: Int64
    height: Int64
    coco_url: str | None = None
    file_name: str | None = None
    neg_category_ids: list[Int64] | None = None
    not_exhaustive_category_ids: list[Int64] | None = None
    pos_category_ids: list[Int64] | None = None


class BoxEntry(msgspec.Struct, gc=False):
    """One entry of "annotations"."""

    image_id: Int64
    category_id: Int64
    bbox: Box
    area: float | None = None
    id: Int64 | None = None
    iscrowd: int | bool | None = None
    ignore: int | bool | None = None
    is_group_of: int | bool | None = None


class CategoryEntry(msgspec.Struct, gc=False):
    """One entry of "categories"."""

    id: Int64
    name: str | None = None
    frequency: str | None = None
    freebase_id: str | None = None
    parent_ids: list[Int64] | None = None


class AnnotationFile(msgspec.Struct, gc=False):
    """The whole file. Test splits have no "annotations".

    ignored_not_scored: ours, "heeds_ignore" in files, absent from published ones, see `AnnotationIndex`.
    notes: ours: what the reader has found that makes labels wrong or was changed, a sentence each; kept with the index.
    """

    images: list[ImageEntry]
    categories: list[CategoryEntry]
    annotations: list[BoxEntry] = []
    ignored_not_scored: bool = msgspec.field(default=False, name="heeds_ignore")
    notes: list[str] = []


def decode_annotations(source: Path | object) -> AnnotationFile:
    """An annotation file, or the Python object it would hold; errors as `decode_json`."""
    return decode_json(source, AnnotationFile, boxes_from_masks)


def build_columns(content: AnnotationFile, source: str) -> Columns:
    """All columns of an `AnnotationIndex` from decoded entries; `source` names the file in messages."""
    if not content.images:
        raise UserError(f"{source}: the file lists no images; nothing can be trained or evaluated with it")
    if not content.categories:
        raise UserError(f'{source}: the file lists no categories; add them under "categories"')
    try:
        columns = _category_columns(content.categories, source)
        columns |= _image_columns(content.images, columns["category_ids"], source)
    except UnicodeEncodeError as error:  # json can write half of a pair of surrogates
        raise UserError(f"{source}: {error.object!r:.200} is no text; correct the name") from error
    columns |= _box_columns(content.annotations, columns, source)
    refuse_fractions(columns["boxes"], source)
    image_of_box = np.repeat(np.arange(len(columns["image_ids"])), np.diff(columns["box_offsets"]))
    odd = unmeant(columns["boxes"], columns["sizes"][image_of_box], Path(source).name)
    notes = pack_strings([*content.notes, *odd], "note")
    return columns | notes | {"heeds_ignore": np.array([content.ignored_not_scored])}


def clip_boxes(boxes: Floats, sizes: Ints) -> NDArray[np.float32]:
    """float64 xywh [N, 4] and (height, width) [N, 2] or [2] -> float32 x1 y1 x2 y2 [N, 4] inside the image."""
    limit = sizes[..., ::-1].astype(np.float64)  # (height, width) -> (width, height)
    low = np.clip(boxes[:, :2], 0, limit)
    with np.errstate(over="ignore"):  # the sum of two numbers of 1e308 is clipped like any other
        high = np.clip(boxes[:, :2] + boxes[:, 2:], 0, limit)
    return np.concatenate([low, high], axis=1).astype(np.float32)


def _ints(values: Iterable[int], count: int) -> Ints:
    return np.fromiter(values, np.int64, count)


def _refuse_duplicates(ids: Ints, what: str, source: str) -> None:
    """`ids` sorted."""
    repeated = ids[1:][ids[1:] == ids[:-1]]
    if len(repeated):
        raise UserError(f"{source}: {what} id {repeated[0]} occurs more than once; ids must be unique")


def _category_columns(categories: list[CategoryEntry], source: str) -> Columns:
    categories = sorted(categories, key=lambda category: category.id)
    ids = _ints((category.id for category in categories), len(categories))
    _refuse_duplicates(ids, "category", source)
    frequencies = [category.frequency for category in categories]
    if all(frequency is None for frequency in frequencies):
        frequencies = []
    for category, frequency in zip(categories, frequencies):
        if frequency not in ("r", "c", "f"):
            where = f"{source}: category id {category.id}"
            raise UserError(f"{where} has frequency {frequency!r}; give every category r, c or f, or none of them any")
    names = [str(category.id) if category.name is None else category.name for category in categories]
    return {
        "category_ids": ids,
        "frequencies": np.array(frequencies, "<U1"),
        **pack_strings(names, "category_name"),
        **pack_strings([category.freebase_id or "" for category in categories], "category_key"),
        **ancestor_columns(_parents(categories, ids, source), names, source),
    }


def _parents(categories: list[CategoryEntry], ids: Ints, source: str) -> list[set[int]]:
    """Labels of the direct parents of every category."""
    label = {category: c for c, category in enumerate(ids.tolist())}
    for category in categories:
        for parent in category.parent_ids or ():
            if parent not in label:
                raise UserError(
                    f"{source}: category id {category.id} has {parent} among its parent_ids, which the file does not "
                    "list; add the category or remove the id"
                )
    return [{label[parent] for parent in category.parent_ids or ()} for category in categories]


def ancestor_columns(parents: Sequence[set[int]], names: Sequence[str], source: str) -> Columns:
    """The columns `ancestor_offsets`, `ancestor_labels`.

    Args:
        parents: labels of the direct parents of each of C categories.
        names: of the categories; `source`: of the file, both for messages.

    Raises:
        UserError: a category that is its own ancestor.
    """
    above: list[list[int]] = []
    for c in range(len(parents)):
        found: set[int] = set()
        ahead = list(parents[c])
        while ahead:
            parent = ahead.pop()
            if parent not in found:
                found.add(parent)
                ahead += parents[parent]
        if c in found:
            raise UserError(f"{source}: category {names[c]!r} is its own ancestor; a hierarchy must not have circles")
        above.append(sorted(found))
    counts = np.array([len(found) for found in above], np.int64)
    labels = _ints(chain.from_iterable(above), int(counts.sum()))
    return {"ancestor_offsets": offsets_of(counts), "ancestor_labels": labels}


def _relative_path(image: ImageEntry) -> str:
    # The end of an address is a path where it is a plain one; a server of one's own may have anything there.
    if image.coco_url and ((is_image(image.coco_url) and "?" not in image.coco_url) or not image.file_name):
        return "/".join(image.coco_url.rsplit("/", 2)[-2:])
    return image.file_name or ""


def _image_columns(images: list[ImageEntry], category_ids: Ints, source: str) -> Columns:
    images = sorted(images, key=lambda image: image.id)
    ids = _ints((image.id for image in images), len(images))
    _refuse_duplicates(ids, "image", source)
    sizes = np.array([(image.height, image.width) for image in images], np.int64)
    bad = np.flatnonzero((sizes <= 0).any(axis=1))
    if len(bad):
        height, width = sizes[bad[0]]
        raise UserError(
            f"{source}: image id {ids[bad[0]]} has width {width} and height {height}; both must be positive pixels"
        )
    huge = np.flatnonzero((sizes > MAX_SIDE).any(axis=1))
    if len(huge):
        height, width = sizes[huge[0]]
        raise UserError(
            f"{source}: image id {ids[huge[0]]} has width {width} and height {height}; sides of more than "
            f"{MAX_SIDE} pixels cannot be used, correct them"
        )
    negatives = [image.neg_category_ids for image in images]
    partial = [image.not_exhaustive_category_ids for image in images]
    without = sum(a is None and b is None for a, b in zip(negatives, partial))
    federated = without < len(images)
    negative_columns, unknown_negative = _label_lists(negatives, category_ids, "negative")
    partial_columns, unknown_partial = _label_lists(partial, category_ids, "not_exhaustive")
    positives = [image.pos_category_ids for image in images]
    positive_columns, unknown_positive = _label_lists(positives, category_ids, "positive")
    return {
        "image_ids": ids,
        "sizes": sizes,
        "federated": np.array([federated]),
        **negative_columns,
        **partial_columns,
        **positive_columns,
        **pack_strings([_relative_path(image) for image in images], "file_name"),
        "problem:images without federated lists": np.array([without if federated else 0]),
        "problem:unknown category in federated lists": np.array(
            [unknown_negative + unknown_partial + unknown_positive]
        ),
    }


def _label_lists(lists: list[list[int] | None], category_ids: Ints, name: str) -> tuple[Columns, int]:
    """Category id lists per image as labels with offsets, and how many ids the file has no category for.

    Such ids are left out: they mean nothing to the evaluation, and files cut to a few categories are full of them.
    """
    counts = np.array([len(item or ()) for item in lists], np.int64)
    ids = _ints(chain.from_iterable(item or () for item in lists), int(counts.sum()))
    labels, known = look_up(ids, category_ids)
    image = np.repeat(np.arange(len(lists)), counts)
    offsets = offsets_of(np.bincount(image[known], minlength=len(lists)))
    return {f"{name}_labels": labels[known], f"{name}_offsets": offsets}, int((~known).sum())


def _box_columns(entries: list[BoxEntry], columns: Columns, source: str) -> Columns:
    """Columns of the boxes, grouped by image, in file order inside an image."""
    image_ids, category_ids = columns["image_ids"], columns["category_ids"]
    count = len(entries)
    ids = _ints((i + 1 if entry.id is None else entry.id for i, entry in enumerate(entries)), count)
    given = _ints((entry.image_id for entry in entries), count)
    image = _positions(given, image_ids, "image", ids, source)
    given = _ints((entry.category_id for entry in entries), count)
    label = _positions(given, category_ids, "category", ids, source)
    boxes = np.fromiter(chain.from_iterable(entry.bbox for entry in entries), np.float64, 4 * count).reshape(-1, 4)
    areas = np.fromiter((np.nan if entry.area is None else entry.area for entry in entries), np.float64, count)
    missing = np.fromiter((entry.area is None for entry in entries), bool, count)
    with np.errstate(all="ignore"):  # boxes that are not finite or beyond float64 are counted as problems later
        areas = np.where(missing, boxes[:, 2] * boxes[:, 3], areas)
    order = np.argsort(image, kind="stable")
    return {
        "box_offsets": offsets_of(np.bincount(image, minlength=len(image_ids))),
        "boxes": boxes[order],
        "labels": label[order],
        "areas": areas[order],
        "annotation_ids": ids[order],
        "crowd": np.fromiter((bool(entry.iscrowd) for entry in entries), bool, count)[order],
        "ignore": np.fromiter((bool(entry.ignore) for entry in entries), bool, count)[order],
        "group_of": np.fromiter((bool(entry.is_group_of) for entry in entries), bool, count)[order],
    }


def _positions(given: Ints, known: Ints, what: str, annotation_ids: Ints, source: str) -> Ints:
    """Positions of the `given` ids [N] in the sorted `known` ids, which must hold them all."""
    found, present = look_up(given, known)
    if not present.all():
        bad = int(np.flatnonzero(~present)[0])
        raise UserError(
            f"{source}: annotation id {annotation_ids[bad]} has {what}_id {given[bad]}, which the file does not "
            f"list; add the {what} or remove the annotation"
        )
    return found
