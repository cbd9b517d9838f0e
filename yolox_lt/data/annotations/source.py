"""Where annotations come from: COCO or LVIS json, Pascal VOC xml, YOLO text files; one or several of them, with their
categories mapped and their images filtered. Whatever the format, the result is the columns of `AnnotationIndex`.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from yolox_lt.data.annotations.coco_json import build_columns
from yolox_lt.data.annotations.formats import FORMATS, detect_format
from yolox_lt.data.annotations.index_cache import CACHE_VERSION, cache_path, is_packed, read_packed, source_key
from yolox_lt.data.annotations.join import concatenate, in_folder, keep_images, map_categories, read_mapping
from yolox_lt.data.annotations.reader import Reader, ReadOptions
from yolox_lt.data.annotations.yolo import is_yaml
from yolox_lt.data.columns import Columns
from yolox_lt.errors import UserError


@dataclass(frozen=True)
class Source:
    """All that decides the columns of an index that is read from files.

    paths: json files; VOC folders or lists of `ImageSets/Main`; YOLO's data.yaml (`data.yaml:test` for a split of its
        own), image folders or lists. Several are concatenated, see `concatenate`.
    format: a name of `formats`, or "auto": by looking, see `detect_format`.
    split: key of a data.yaml that names none itself.
    class_names: in the order of their labels, for VOC and for YOLO without a data.yaml; others know their names.
    category_map: json file, see `read_mapping`.
    subset: only images whose path begins so, or a text file with one image id a line.
    root: folder that paths of images shall be relative to; None = the folder of the annotations (VOC, YOLO).
    folders: for every path, the folder of its images below the data set's root; empty = as the annotations say.
    held_out: share of the images that is the validation part, the rest the training part; None = all of them.
    formats: those that are known, by name.
    """

    paths: tuple[str, ...]
    format: str = "auto"
    split: str = "val"
    class_names: tuple[str, ...] = ()
    category_map: str | None = None
    subset: str | None = None
    root: str | None = None
    folders: tuple[str, ...] = ()
    held_out: float | None = None
    formats: Mapping[str, Reader] = field(default_factory=lambda: FORMATS, compare=False)

    def __post_init__(self) -> None:
        if self.format not in ("auto", *self.formats):
            names = ", ".join(("auto", *sorted(self.formats)))
            raise UserError(f"data format {self.format!r} is unknown; choose one of {names}")
        if not self.paths:
            raise UserError("no annotation file is given; name at least one")
        if self.folders and len(self.folders) != len(self.paths):
            raise UserError(
                f"{len(self.paths)} annotation files have {len(self.folders)} image folders; name one for each file"
            )

    @property
    def path(self) -> Path:
        """Of the first annotations, without the split of a data.yaml."""
        return Path(split_of(self.paths[0], "")[0])

    def absolute(self) -> Source:
        """The same from any working directory."""
        return replace(
            self,
            paths=tuple(os.path.abspath(path) for path in self.paths),
            category_map=self.category_map and os.path.abspath(self.category_map),
            subset=os.path.abspath(self.subset) if self.subset and os.path.isfile(self.subset) else self.subset,
            root=self.root and os.path.abspath(self.root),
        )

    def cache_path(self) -> Path:
        """Where the columns are kept: `<file>.index` for a json file as it is, else with a mark of the settings."""
        if self.is_plain():
            return cache_path(self.path)
        mark = hashlib.sha256(self.settings().encode()).hexdigest()[:8]
        return cache_path(self.path.absolute()).with_name(f"{self.path.absolute().name}.{mark}.index")

    def is_plain(self) -> bool:
        """One json file and nothing done to it."""
        alone = len(self.paths) == 1 and not (self.category_map or self.subset or self.folders or self.held_out)
        return alone and detect_format(self.path, self.format, self.formats) == "coco" and self.path.is_file()

    def settings(self) -> str:
        """Text that is equal for equal settings, wherever the data set lies."""
        base = os.path.abspath(self.root or self.path.parent)
        paths = [os.path.relpath(path, base) for path in self.paths]
        part = () if self.held_out is None else (self.held_out,)
        return repr((paths, self.format, self.split, self.class_names, self.subset, self.folders, *part))

    def key(self) -> str:
        """Identifies the content of everything that is read, by `source_key` or, of many files, by size and time."""
        if self.is_plain():
            return source_key(self.path)
        parts = [self.settings(), f"version {CACHE_VERSION}"]
        parts += [source_key(Path(path)) for path in (self.category_map, self.subset) if path and os.path.isfile(path)]
        for path in self.paths:
            reader, found = self.find(path)
            files = list(reader.files(found))
            parts.append(source_key(files[0]) if len(files) == 1 else _stamp(files))
            if reader not in FORMATS.values():  # a user's reader that is changed makes other annotations
                parts.append(_stamp(_code_of(reader)))
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()

    def find(self, path: str) -> tuple[Reader, Any]:
        """The format of one of the paths, and what is to be read there."""
        where, _ = split_of(path, self.split)
        reader = self.formats[detect_format(where, self.format, self.formats)]
        return reader, reader.find(where, self.options(path))

    def options(self, path: str) -> ReadOptions:
        """What a reader is told beside one of the paths."""
        _, split = split_of(path, self.split)
        return ReadOptions(split, self.class_names, Path(self.root) if self.root else None)

    def read(self) -> Columns:
        """The columns that `build_columns` makes.

        Raises:
            UserError: whatever is wrong with the files: one sentence with file, place and remedy.
        """
        parts = [self._read_one(path) for path in self.paths]
        for i, folder in enumerate(self.folders):
            parts[i] = in_folder(parts[i], folder)
        columns = parts[0] if len(parts) == 1 else concatenate(parts, self.paths)
        name = " + ".join(self.paths)
        if self.category_map:
            columns = map_categories(columns, read_mapping(Path(self.category_map)), name, self.category_map)
        return keep_images(columns, self.subset, name) if self.subset else columns

    def _read_one(self, path: str) -> Columns:
        reader, found = self.find(path)
        if isinstance(found, Path) and is_packed(found):
            return read_packed(found)
        return build_columns(reader.read(found, self.options(path)), str(found) if isinstance(found, Path) else path)


def split_of(path: str, default: str) -> tuple[Path, str]:
    """`data.yaml:test` -> the file and "test"; any other path with `default`."""
    name, colon, split = path.rpartition(":")
    return (Path(name), split) if colon and is_yaml(Path(name)) else (Path(path), default)


def _code_of(reader: Reader) -> list[Path]:
    """Files in which the functions of a reader are written."""
    functions = (reader.detect, reader.find, reader.read, reader.files)
    code = (getattr(function, "__code__", None) for function in functions)
    return sorted({Path(found.co_filename) for found in code if found is not None})


def _stamp(files: Iterable[Path]) -> str:
    """Names, sizes and times of many files as one text."""
    digest = hashlib.sha256()
    for path in files:
        try:
            state = os.stat(path)
            digest.update(f"{path.name}:{state.st_size}:{state.st_mtime_ns}\n".encode())
        except OSError:
            digest.update(f"{path.name}:absent\n".encode())
    return digest.hexdigest()
