"""The file `<annotation file>.index`: numpy columns on disk, mapped into memory by every process that needs them.

A converter writes its annotations as such a file and nothing else.

Layout: magic (8 bytes), length of the header (8 bytes, little endian), header (json), then the arrays, each on a
multiple of 64 bytes. A file that was not written for exactly this annotation file, or not to its end, counts as absent.
"""

from __future__ import annotations

import hashlib
import math
import os
import uuid
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from yolox_lt.data.columns import Columns
from yolox_lt.errors import UserError

FORMAT_VERSION = 2
"""Raise it whenever a column changes its meaning: older cache files are then rebuilt."""

CACHE_VERSION = 5
"""Raise it whenever files are read in another way, so that what was made of them before is made again."""

PACKED_KEY = f"{FORMAT_VERSION}:packed"
"""Key of a file that is no cache of another one: the converters write columns without a json file behind them."""

_MAGIC = b"YLTINDEX"
_ALIGNMENT = 64
_SAMPLE = 1 << 16  # bytes at either end of the annotation file that enter its key


class _Array(msgspec.Struct):
    name: str
    dtype: str
    shape: list[int]
    offset: int  # from the beginning of the file


class _Header(msgspec.Struct):
    key: str
    size: int  # of the whole file in bytes
    arrays: list[_Array]


def cache_path(path: Path) -> Path:
    """Where the columns of the annotation file `path` are kept."""
    return path.with_name(path.name + ".index")


def source_key(path: Path) -> str:
    """Identifies the content of an annotation file without reading all of it: size, time, both ends, format version."""
    state = path.stat()
    digest = hashlib.sha256()
    with path.open("rb") as file:
        digest.update(file.read(_SAMPLE))
        file.seek(max(0, state.st_size - _SAMPLE))
        digest.update(file.read(_SAMPLE))
    return f"{FORMAT_VERSION}.{CACHE_VERSION}:{state.st_size}:{state.st_mtime_ns}:{digest.hexdigest()}"


def is_packed(path: Path) -> bool:
    """Whether `path` itself holds columns, and not json."""
    with path.open("rb") as file:
        return file.read(len(_MAGIC)) == _MAGIC


def read_cache(path: Path, key: str) -> Columns | None:
    """The columns of cache file `path`, mapped read-only; None if it is absent, incomplete or of another `key`."""
    if not path.is_file():
        return None
    size = path.stat().st_size
    if size < 16:
        return None
    content = np.asarray(np.memmap(path, np.uint8, mode="r"))
    header_length = int(content[8:16].view("<u8")[0])
    if content[:8].tobytes() != _MAGIC or header_length > size - 16:
        return None
    try:
        header = msgspec.json.decode(content[16 : 16 + header_length].tobytes(), type=_Header)
    except msgspec.DecodeError:
        return None
    if header.key != key or header.size != size:
        return None
    try:
        return {array.name: _column(content, array) for array in header.arrays}
    except (ValueError, TypeError):  # a header that does not fit its file
        return None


def _column(content: NDArray[np.uint8], array: _Array) -> NDArray[Any]:
    dtype = np.dtype(array.dtype)
    if dtype.kind not in "biufU" or array.offset < 0 or min(array.shape, default=0) < 0:
        raise ValueError(f"{array.name} cannot be mapped")
    length = math.prod(array.shape) * dtype.itemsize
    return content[array.offset : array.offset + length].view(dtype).reshape(array.shape)


def read_packed(path: Path) -> Columns:
    """The columns that a converter wrote to `path`, mapped read-only.

    Raises:
        UserError: the file is no such one, or not whole.
    """
    columns = read_cache(path, PACKED_KEY)
    if columns is None:
        raise UserError(
            f"{path}: is not complete, of another version, or the cache of another file; write it again with "
            "tools/convert_dataset.py, or give the file that it was made from"
        )
    return columns


def write_cache(path: Path, key: str, columns: Columns) -> None:
    """Write `columns` to the cache file `path` under a temporary name, then rename it.

    Raises:
        OSError: the folder cannot be written.
    """
    header = _place(key, columns)
    encoded = msgspec.json.encode(header)
    temporary = path.with_name(f"{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        with temporary.open("xb") as file:
            file.write(_MAGIC + len(encoded).to_bytes(8, "little") + encoded)
            for array in header.arrays:
                file.write(b"\0" * (array.offset - file.tell()))
                file.write(np.ascontiguousarray(columns[array.name]).reshape(-1).view(np.uint8).data)  # no copy
            file.write(b"\0" * (header.size - file.tell()))
            file.flush()
            os.fsync(file.fileno())  # else a crash may leave the new name with blocks of zeros
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _bytes_of(array: _Array) -> int:
    return math.prod(array.shape) * np.dtype(array.dtype).itemsize


def _place(key: str, columns: Columns) -> _Header:
    """The header with every array's offset; its own length moves the first array, so room is left for it."""
    header = _Header(key, 2**62, [_Array(name, a.dtype.str, list(a.shape), 2**62) for name, a in columns.items()])
    end = 16 + len(msgspec.json.encode(header))  # no real offset has more digits
    for array in header.arrays:
        array.offset = _align(end)
        end = array.offset + _bytes_of(array)
    header.size = _align(end)
    return header


def _align(offset: int) -> int:
    return -(-offset // _ALIGNMENT) * _ALIGNMENT
