"""The size of a JPEG from its header: a few hundred bytes are read and nothing is decoded."""

from __future__ import annotations

import io
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image

from yolox_lt.data.columns import Ints
from yolox_lt.data.image_file import shown_size
from yolox_lt.errors import UserError

_THREADS = 8  # they wait for the disk, not for each other
_NAMES_AT_ONCE = 512
_HEAD = 4096  # bytes
# Markers without a length behind them, and the "start of frame" markers, which carry the size.
_BARE = {0x01, *range(0xD0, 0xD9)}
_FRAMES = set(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


def jpeg_size(path: Path) -> tuple[int, int]:
    """(height, width) in pixels as shown: an EXIF rotation counts, as for `ImageStore.read`.

    Raises:
        UserError: no such file, or not a JPEG with a size.
    """
    return _size_of(str(path))


def _size_of(path: str) -> tuple[int, int]:
    """`jpeg_size`, of a name: making a Path of each of a million names takes longer than reading them."""
    try:
        with open(path, "rb", buffering=0) as file:
            # Nearly always in the first bytes, which are read at once; a long profile or preview may come before it.
            head = file.read(_HEAD)
            size = _frame_size(io.BytesIO(head))
            if size is None:
                file.seek(0)
                size = _frame_size(file)
    except FileNotFoundError as error:
        raise UserError(f"{path}: image file not found; complete the folder, or leave its rows out") from error
    if size is not None and b"Exif\0" in head:  # few files have one, and Pillow reads it
        with Image.open(path) as image:
            width, height = shown_size(image)[0]
        return height, width
    if size is None:
        raise UserError(f"{path}: not a JPEG with a size in its header; copy the file again")
    return size


def jpeg_sizes(folder: Path, names: Sequence[str]) -> Ints:
    """int64 [I, 2], (height, width) of the files `names` in `folder`.

    Raises:
        UserError: as `jpeg_size`.
    """

    def some(start: int) -> list[tuple[int, int]]:
        return [_size_of(f"{folder}/{name}") for name in names[start : start + _NAMES_AT_ONCE]]

    with ThreadPoolExecutor(_THREADS) as pool:
        parts = list(pool.map(some, range(0, len(names), _NAMES_AT_ONCE)))
    return np.array([size for part in parts for size in part], np.int64).reshape(-1, 2)


def _frame_size(file: BinaryIO) -> tuple[int, int] | None:
    """(height, width) of the first frame, None if there is none."""
    if file.read(2) != b"\xff\xd8":
        return None
    while True:
        head = file.read(2)
        if len(head) < 2 or head[0] != 0xFF:
            return None
        if head[1] == 0xFF:  # filling
            file.seek(-1, 1)
        elif head[1] not in _BARE:
            length = int.from_bytes(file.read(2), "big")
            if head[1] in _FRAMES:
                frame = file.read(5)  # precision, height, width
                height, width = int.from_bytes(frame[1:3], "big"), int.from_bytes(frame[3:5], "big")
                return (height, width) if len(frame) == 5 and height and width else None
            file.seek(max(length - 2, 0), 1)
