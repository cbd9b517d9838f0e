"""The sizes of image files from their headers, read by the package imagesize; nothing is decoded."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import imagesize
import numpy as np

from yolox_lt.data.columns import Ints
from yolox_lt.errors import UserError


def jpeg_size(path: str | Path) -> tuple[int, int]:
    """(height, width) in pixels as stored, without EXIF rotation: boxes and `ImageStore.read` refer to these too.

    Raises:
        UserError: no such file, or not a JPEG with a size.
    """
    try:
        with open(path, "rb") as file:
            width, height = imagesize.get(file, exif_rotation=False) if file.peek(2)[:2] == b"\xff\xd8" else (-1, -1)
    except FileNotFoundError as error:
        raise UserError(f"{path}: image file not found; complete the folder, or leave its rows out") from error
    if width < 1 or height < 1:
        raise UserError(f"{path}: not a JPEG with a size in its header; copy the file again")
    return height, width


def jpeg_sizes(folder: Path, names: Sequence[str]) -> Ints:
    """int64 [I, 2], (height, width) of the files `names` in `folder`; errors as `jpeg_size`."""
    return np.array([jpeg_size(f"{folder}/{name}") for name in names], np.int64).reshape(-1, 2)
