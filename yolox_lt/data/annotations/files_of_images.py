"""Annotations beside or above image files: where an image is that a file names, and its size from its header."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from yolox_lt.data.image_file import shown_size
from yolox_lt.errors import UserError


def find_image(folders: Iterable[Path], names: Iterable[str]) -> Path | None:
    """The first file that is there: every name, with backslashes as slashes, then its last part, in every folder."""
    folders = list(folders)
    for name in filter(None, names):
        slashes = name.replace("\\", "/")
        for spelt in dict.fromkeys((slashes, slashes.rpartition("/")[2])):
            for folder in folders:
                if (folder / spelt).is_file():
                    return Path(os.path.normpath(folder / spelt))
    return None


def size_of(path: Path) -> tuple[int, int]:
    """(width, height) of an image as shown, without decoding.

    Raises:
        UserError: no readable image.
    """
    try:
        with Image.open(path) as image:
            return shown_size(image)[0]
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, SyntaxError) as error:
        problem = f" ({error.strerror})" if isinstance(error, OSError) and error.strerror else ""
        raise UserError(f"{path}: not a readable image{problem}; repair it, or take it out of the data set") from error


def relative(path: Path, root: Path) -> str:
    """A path as annotations give it, with slashes, from `root`."""
    return os.path.relpath(path, root).replace(os.sep, "/")


def ids_of(names: Iterable[str], class_names: tuple[str, ...]) -> dict[str, int]:
    """Category ids 1, 2, ... of `class_names`, without these of the sorted `names`.

    Raises:
        UserError: a name that occurs twice.
    """
    wanted = class_names or tuple(sorted(set(names)))
    found = {name: i for i, name in enumerate(wanted, 1)}
    if len(found) < len(wanted):
        raise UserError(f"class_names {', '.join(wanted)}: a name occurs twice; list every class once")
    return found


def unknown_name(where: str, name: str, known: Iterable[str]) -> UserError:
    """The error for an object whose class `class_names` does not list."""
    names = list(known)
    return UserError(
        f"{where} is a {name!r}, which class_names does not list "
        f"({', '.join(names[:5])}{', ...' if len(names) > 5 else ''}); add it or rename the object"
    )
