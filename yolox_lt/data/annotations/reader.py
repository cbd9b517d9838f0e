"""What a format of annotations is: four functions. A new one is a file with these, and a line in `formats.FORMATS`."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from yolox_lt.data.annotations.coco_json import AnnotationFile


class ReadOptions(NamedTuple):
    """What a user says beside a path.

    split: of a file that knows several. class_names: in the order of their labels, for formats without names.
    root: folder that paths of images shall be relative to; None = the annotations' own.
    """

    split: str = "val"
    class_names: tuple[str, ...] = ()
    root: Path | None = None


@dataclass(frozen=True)
class Reader:
    """A format of annotations.

    detect: whether a path that exists holds it; formats are asked in the order of their table.
    find: path and options -> what is to be read, of any type; None is not allowed.
    read: what was found and the options -> entries; errors are UserErrors with file, place and remedy.
    files: what was found -> all files on which the annotations depend; if one changes they are read again.
    """

    detect: Callable[[Path], bool]
    find: Callable[[Path, ReadOptions], Any]
    read: Callable[[Any, ReadOptions], AnnotationFile]
    files: Callable[[Any], Iterable[Path]]
