"""COCO's and LVIS's json as a format: one file, or the only one of a folder."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from yolox_lt.data.annotations.coco_json import AnnotationFile, decode_annotations
from yolox_lt.data.annotations.foreign import REMEDY, foreign_format
from yolox_lt.data.annotations.reader import Reader, ReadOptions
from yolox_lt.errors import UserError


def holds_coco(path: Path) -> bool:
    """A file, or a folder with one json file."""
    return path.is_file() or len(list(path.glob("*.json"))) == 1


def find_coco(path: Path, options: ReadOptions) -> Path:
    """The json file itself, or the only one of a folder.

    Raises:
        UserError: no such file, or several.
    """
    if not path.is_dir():
        if not path.is_file():
            raise UserError(f"{path}: no such annotation file; check the path")
        return path
    found = sorted(path.glob("*.json"))
    if len(found) != 1:
        raise UserError(f"{path}: holds {len(found)} json files; give the annotation file itself")
    return found[0]


def read_coco(found: Path, options: ReadOptions) -> AnnotationFile:
    """The entries of a file; errors as `decode_json`, or the name of the format that the file is of."""
    try:
        return decode_annotations(found)
    except UserError as error:
        foreign = foreign_format(found) if found.is_file() else None
        if foreign is None:
            raise
        raise UserError(f"{found}: is {foreign}, {REMEDY} ({str(error).removeprefix(f'{found}: ')})") from error


def coco_files(found: Path) -> Iterable[Path]:
    """The file."""
    return [found]


COCO = Reader(holds_coco, find_coco, read_coco, coco_files)
