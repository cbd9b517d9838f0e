"""The annotations of a data set as numpy columns, and the one place where data-set ids become labels 0..C-1.

All of LVIS train is some 90 MB in one mapped file that every worker shares, instead of millions of Python objects that
each worker copies.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from loguru import logger
from numpy.typing import ArrayLike, NDArray

from yolox_lt.data.annotations.annotation_columns import AnnotationColumns, fill_defaults, values_of
from yolox_lt.data.annotations.coco_json import CLIP_TOLERANCE, build_columns, clip_boxes, decode_annotations
from yolox_lt.data.annotations.held_out import held_out_parts
from yolox_lt.data.annotations.index_cache import (
    PACKED_KEY,
    is_packed,
    read_cache,
    read_packed,
    source_key,
    write_cache,
)
from yolox_lt.data.annotations.join import strings, take_images
from yolox_lt.data.annotations.json_text import name_of
from yolox_lt.data.annotations.source import Source
from yolox_lt.data.columns import Bools, Columns, Floats, Ints, distinct, look_up
from yolox_lt.errors import UserError

RARE_IMAGES = 10
"""A category is rare up to so many training images; checked against all 1203 categories of LVIS v1."""

COMMON_IMAGES = 100
"""A category is common up to so many training images, frequent beyond."""

_BOXES_AT_ONCE = 1 << 18
_MIXING_FACTORS = np.array([0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9, 3**40, 5**27, 7**22], np.uint64)


class AnnotationIndex(AnnotationColumns):
    """Annotations as read-only columns, see `AnnotationColumns`. Made by `AnnotationIndex.load`.

    Attributes beside the columns:
        source: where the annotations come from, None for annotations that were given as a dict.
        path: the (first) annotation file or folder, None likewise.
        ignored_not_scored: COCO's protocol does not score what is marked "ignore" (VOC's difficult objects). In json
            files it scores them, as pycocotools does.
        federated: the file has lists of absent and not exhaustive categories (LVIS); without them every category counts
            as verified everywhere.
        category_names: C names; the id where the file gives no name.
        frequencies: array of "r", "c", "f" [C] as in the file, None if the file has none.
        category_keys: C texts, the file's "freebase_id" (Open Images' MID), "" where it has none.
        open_images: the file has groups or ancestors, which only Open Images knows; it is scored by its protocol.
        problems: what was found and how often; every key is always there. Counts boxes unless the key says otherwise.
        notes: what the reader has to say of the files, a sentence each.
    """

    def __init__(self, columns: Columns, source: Source | None = None, cache_key: str | None = None) -> None:
        """For `load` alone: `columns` as `_read` makes them, `cache_key` if they are mapped from disk."""
        for column in columns.values():
            column.setflags(write=False)
        for name, column in values_of(columns):
            object.__setattr__(self, name, column)
        self._columns = columns
        self._cache_key = cache_key
        self.source = source
        self.path = None if source is None else source.path
        prefix = "problem:"
        self.problems = {k.removeprefix(prefix): int(v[0]) for k, v in columns.items() if k.startswith(prefix)}
        self.federated = bool(columns["federated"][0])
        self.ignored_not_scored = bool(columns["heeds_ignore"][0])  # the name of the column in files on disk
        self.category_names = tuple(self._string("category_name", c) for c in range(len(self.category_ids)))
        self.category_keys = tuple(self._string("category_key", c) for c in range(len(self.category_ids)))
        self.notes = tuple(self._string("note", i) for i in range(len(columns.get("note_offsets", ())) - 1))
        self.open_images = len(self.ancestor_labels) > 0 or self.problems["group-of"] > 0
        self.frequencies: NDArray[np.str_] | None = columns["frequencies"] if len(columns["frequencies"]) else None

    @classmethod
    def load(
        cls, source: str | Path | dict[str, Any] | Source | AnnotationIndex, cache: bool = True
    ) -> AnnotationIndex:
        """Annotations from files of any known format, from the dict that a json file (LVIS, plain COCO) holds, or from
        the columns that a converter wrote (tools/convert_dataset.py).

        Args:
            source: path of a json file, a VOC folder or list, a data.yaml (see `Source`); a `Source` for several files
                and other settings; a dict; or an index, which is returned as it is.
            cache: keep the columns in `<file>.index` beside the file and map them from there. A folder that cannot be
                written is reported once as a warning, and the columns stay in memory.

        Raises:
            UserError: no such file, malformed content, missing keys, wrong types, unknown or repeated ids, no images.
        """
        if isinstance(source, AnnotationIndex):
            return source
        if isinstance(source, dict):
            given = build_columns(decode_annotations(source), name_of(source))
            return cls(given | _derive(given))
        if not isinstance(source, Source):
            source = Source((str(source),))
        if source.is_plain() and is_packed(source.path):
            return cls(read_packed(source.path), source, source_key(source.path))
        if not cache:
            return cls(_read(source), source)
        key, path = source.key(), source.cache_path()
        columns = read_cache(path, key)
        if columns is None:
            if path.is_file():
                logger.info(f"{path}: of another file or version, or incomplete; it is written again")
            columns = _read(source)
            try:
                write_cache(path, key, columns)
            except OSError as error:
                logger.warning(f"{path} cannot be written ({error.strerror}); the next start reads {source.path} again")
                return cls(columns, source)
            columns = read_cache(path, key)
            if columns is None:
                raise UserError(f"{path}: the file changed while it was written; start again")
        return cls(columns, source, key)

    def __reduce__(self) -> tuple[Callable[..., AnnotationIndex], tuple[Any, ...]]:
        """A mapped index travels to workers as its source alone; one in memory travels with its columns."""
        if self.source is not None and self._cache_key is not None:
            return _reopen, (self.source.absolute(), self._cache_key)
        return AnnotationIndex, (self._columns, self.source)

    def __len__(self) -> int:
        """Number of images."""
        return len(self.image_ids)

    def file_name(self, i: int) -> str:
        """Path of image i below the image folder.

        The last two parts of "coco_url" ("train2017/000000391895.jpg": LVIS splits mix COCO's folders), else
        "file_name" as it stands, also where LVIS v0.5 writes "COCO_val2014_" before the name of a 2017 file.

        Raises:
            UserError: the file gives neither.
        """
        name = self._string("file_name", i)
        if not name:
            source = name_of(self.path)
            raise UserError(f"{source}: image id {self.image_ids[i]} has neither coco_url nor file_name; add one")
        return name

    def boxes_of(self, i: int) -> NDArray[np.float32]:
        """Usable boxes of image i, float32 [G, 4] x1 y1 x2 y2 in pixels, clipped to the image."""
        rows = slice(self.box_offsets[i], self.box_offsets[i + 1])
        return clip_boxes(self.boxes[rows][self.usable[rows]], self.sizes[i])

    def labels_of(self, i: int) -> Ints:
        """Labels of the usable boxes of image i, int64 [G]."""
        rows = slice(self.box_offsets[i], self.box_offsets[i + 1])
        return self.labels[rows][self.usable[rows]]

    def categories_of(self, i: int) -> Ints:
        """Distinct labels of the usable boxes of image i, ascending int64."""
        return np.unique(self.labels_of(i))

    def groups(self, train_counts: ArrayLike | None = None) -> NDArray[np.str_] | None:
        """ "r" (rare), "c" (common) or "f" (frequent) for every category [C].

        The file's own frequencies; else by `train_counts` [C], images of the *training* set with the category: up to
        10 rare, up to 100 common. None if there is neither: counts of a validation set would say nothing.
        """
        if self.frequencies is not None:
            return self.frequencies
        if train_counts is None:
            return None
        counts = np.asarray(train_counts)
        if counts.shape != self.category_ids.shape:
            raise ValueError(f"train_counts has shape {counts.shape} for {len(self.category_ids)} categories")
        return np.where(counts <= RARE_IMAGES, "r", np.where(counts <= COMMON_IMAGES, "c", "f"))

    def _string(self, name: str, i: int) -> str:
        offsets = self._columns[f"{name}_offsets"]
        return self._columns[f"{name}_bytes"][offsets[i] : offsets[i + 1]].tobytes().decode()


def _reopen(source: Source, key: str) -> AnnotationIndex:
    """Unpickle: map the same cache file again."""
    index = AnnotationIndex.load(source)
    if index._cache_key != key:
        raise UserError(f"{source.path}: the annotations changed after the run began; start it again")
    return index


def write_packed(path: Path, columns: Columns) -> None:
    """Write columns as `build_columns` makes them to a file that `AnnotationIndex.load` maps.

    Raises:
        OSError: the folder cannot be written.
    """
    write_cache(path, PACKED_KEY, columns | _derive(columns))


def _read(source: Source) -> Columns:
    columns = source.read()
    derived = columns | _derive(columns)
    if source.held_out is None:
        return derived
    names, categories = strings(columns, "file_name"), strings(columns, "category_name")
    train, val = held_out_parts(derived, names, categories, source.held_out)
    chosen = train if source.split == "train" else val
    if not len(train) or not len(val):
        raise UserError(f"{source.path}: {len(names)} images cannot be cut into two parts; add images")
    part = take_images(columns, chosen)
    return part | _derive(part)


def _derive(columns: Columns) -> Columns:
    """Columns that follow from those of the file: what it leaves to defaults, `usable`, the counts per category, the
    problems.
    """
    given, columns = columns, fill_defaults(columns)
    offsets, labels, boxes = columns["box_offsets"], columns["labels"], columns["boxes"]
    num_images, num_categories = len(columns["image_ids"]), len(columns["category_ids"])
    image = np.repeat(np.arange(num_images), np.diff(offsets))
    finite, empty, inside, beyond = _judge(boxes, image, columns["sizes"])
    usable = finite & inside & ~columns["crowd"] & ~columns["group_of"]
    code = distinct(image[usable] * num_categories + labels[usable])  # distinct (image, category) pairs
    problems = {
        "crowd": columns["crowd"],
        "ignored": columns["ignore"],
        "group-of": columns["group_of"],
        "non-finite": ~finite,
        "zero-size": empty,
        "outside image": finite & ~empty & ~inside,
        "clipped": usable & beyond,
        "zero area": ~(columns["areas"] > 0),
        "duplicate annotation": _repeated(image, labels, boxes),
        "images without usable boxes": np.bincount(image[usable], minlength=num_images) == 0,
        **_federated_problems(columns, image),
    }
    ids = columns["annotation_ids"]
    counts = {name: np.array([np.count_nonzero(found)]) for name, found in problems.items()}
    counts["duplicate annotation id"] = np.array([len(ids) - len(distinct(ids))])
    return {
        **{name: column for name, column in columns.items() if name not in given},
        "usable": usable,
        "image_counts": np.bincount(code % num_categories, minlength=num_categories),
        "instance_counts": np.bincount(labels[usable], minlength=num_categories),
        **{f"problem:{name}": count for name, count in counts.items()},
    }


def _judge(boxes: Floats, image: Ints, image_sizes: Ints) -> tuple[Bools, Bools, Bools, Bools]:
    """bool [N] each: finite, of no width or height, of some area inside the image, reaching beyond it.

    In blocks, as all of Open Images at once would need gigabytes in between.
    """
    result = np.zeros((4, len(boxes)), bool)
    for start in range(0, len(boxes), _BOXES_AT_ONCE):
        rows = slice(start, start + _BOXES_AT_ONCE)
        block, sizes = boxes[rows], image_sizes[image[rows]]  # [n, 4], [n, 2] (height, width)
        finite = np.logical_and.reduce(np.isfinite(block), axis=1)
        clipped = clip_boxes(np.where(finite[:, None], block, 0), sizes)
        with np.errstate(all="ignore"):  # boxes beyond float64
            low, high = block[:, :2], block[:, :2] + block[:, 2:]
        outside = (low < -CLIP_TOLERANCE) | (high > sizes[:, ::-1] + CLIP_TOLERANCE)  # [n, 2], in x, in y
        empty = finite & (block[:, 2:] <= 0).any(axis=1)
        result[:, rows] = finite, empty, (clipped[:, 2:] > clipped[:, :2]).all(axis=1), outside.any(axis=1)
    return result[0], result[1], result[2], result[3]


def _repeated(image: Ints, labels: Ints, boxes: Floats) -> Bools:
    """bool [N]: an earlier row has the same image, category and box."""
    columns = [image, labels, *boxes.view(np.int64).T]
    # Sort by a mixed 64-bit code first: comparing six columns is needed only where it repeats.
    code = np.zeros(len(labels), np.uint64)
    for column, factor in zip(columns, _MIXING_FACTORS):
        code += column.view(np.uint64) * factor
    mixed = code.view(np.int64)
    ordered = np.sort(mixed)
    _, suspect = look_up(mixed, distinct(ordered[1:][ordered[1:] == ordered[:-1]]))
    suspects = np.flatnonzero(suspect)
    repeated = np.zeros(len(labels), bool)
    if len(suspects):
        rows = np.column_stack([column[suspects] for column in columns])  # [n, 6]
        _, first, group = np.unique(rows, axis=0, return_index=True, return_inverse=True)
        repeated[suspects] = first[group.reshape(-1)] != np.arange(len(suspects))
    return repeated


def _federated_problems(columns: Columns, image: Ints) -> dict[str, Bools]:
    """Entries of the federated lists that contradict the boxes: never in LVIS, common in files made by hand."""
    num_categories = len(columns["category_ids"])
    present = distinct(image * num_categories + columns["labels"])

    def has_boxes(name: str) -> Bools:
        listed = np.repeat(np.arange(len(columns["image_ids"])), np.diff(columns[f"{name}_offsets"]))
        return look_up(listed * num_categories + columns[f"{name}_labels"], present)[1]

    return {
        "negative category with boxes": has_boxes("negative"),
        "non-exhaustive category without boxes": ~has_boxes("not_exhaustive"),
    }
