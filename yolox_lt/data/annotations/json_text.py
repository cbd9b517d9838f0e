"""Json text -> checked values, by msgspec; slower readers help where a file is not quite as it should be."""

from __future__ import annotations

import codecs
import json
import mmap
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from yolox_lt.errors import UserError

T = TypeVar("T")


def decode_json(source: Path | object, kind: type[T], repair: Callable[[Any, Path], None] | None = None) -> T:
    """A json file, or the Python object it would hold, as a checked value of the msgspec type `kind`.

    NaN and Infinity, which Python writes though json has no such numbers, are read as what they are; numpy scalars
    inside a Python object count as plain numbers.

    repair: changes what a file with an entry of the wrong type holds, before it is looked at again; numbers that it
        holds as texts count then.

    Raises:
        UserError: no such file, malformed json, a missing key or a value of the wrong type.
    """
    try:
        if isinstance(source, Path):
            return _decode_file(source, kind, repair)
        return _convert(source, kind)
    except msgspec.ValidationError as error:
        what, _, where = str(error).partition(" - at `$")
        where = where.strip(".`")  # "annotations[3].bbox"
        where = f"entry {where}" if where.startswith("[") else where or "top level"
        raise UserError(f"{name_of(source)}: {where}: {what}; correct it or write the file again") from error


def name_of(source: object) -> str:
    """How messages call a source: its path, or what stands in for one."""
    return str(source) if isinstance(source, Path) else "the given data"


def _decode_file(path: Path, kind: type[T], repair: Callable[[Any, Path], None] | None) -> T:
    if not path.is_file():
        raise UserError(f"{path}: no such file; check the path")
    with path.open("rb") as file:
        if path.stat().st_size == 0:
            raise UserError(f"{path}: the file is empty; write or copy it again")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            try:
                return msgspec.json.decode(without_mark(content), type=kind)
            except msgspec.ValidationError as problem:
                if repair is None:
                    raise
                return _decode_again(path, kind, repair, problem)
            except msgspec.DecodeError as error:
                byte = str(error).rpartition("(byte ")[2].rstrip(")")
                if byte.isdigit() and content[int(byte) : int(byte) + 1] in (b"N", b"I"):
                    return _decode_with_nan(path, kind)
                raise UserError(f"{path}: not a json file: {error}; write or copy it again") from error
            except (UnicodeDecodeError, RecursionError) as error:
                raise UserError(f"{path}: not a json file in utf-8: {error}; write or copy it again") from error


def without_mark(content: mmap.mmap) -> memoryview:
    """The bytes behind a byte order mark, all of them without one."""
    return memoryview(content)[3 if content[:3] == codecs.BOM_UTF8 else 0 :]


def _decode_again(
    path: Path, kind: type[T], repair: Callable[[Any, Path], None], problem: msgspec.ValidationError
) -> T:
    """For files with numbers as texts, and those that `repair` can help: by the standard library, slowly.

    problem: raised for a file that is no json behind the place where it came up.

    Raises:
        msgspec.ValidationError: what is wrong after all.
    """
    try:
        content = json.loads(path.read_bytes().decode("utf-8-sig"))
    except (ValueError, RecursionError):
        raise problem from None
    repair(content, path)
    return msgspec.convert(_whole(content), kind, strict=False)


def _whole(value: Any) -> Any:
    """Ids that were written as 1.0, as tables do, as whole numbers; changed in place."""
    for entry in value if isinstance(value, list) else value.values() if isinstance(value, dict) else ():
        if isinstance(entry, dict):
            for key in ("id", "image_id", "category_id", "width", "height"):
                number = entry.get(key)
                if isinstance(number, str) and number.strip().endswith(".0"):
                    number = entry[key] = float(number) if number.strip()[:-2].lstrip("-").isdecimal() else number
                if isinstance(number, float) and number.is_integer():
                    entry[key] = int(number)
        else:
            _whole(entry)
    return value


def _decode_with_nan(path: Path, kind: type[T]) -> T:
    """For files with NaN or Infinity: the slower reader of the standard library knows them."""
    try:
        return _convert(json.loads(path.read_bytes().decode("utf-8-sig")), kind)
    except (ValueError, RecursionError) as error:  # a msgspec.ValidationError is one too
        if isinstance(error, msgspec.ValidationError):
            raise
        raise UserError(f"{path}: not a json file: {error}; write or copy it again") from error


def _convert(value: object, kind: type[T]) -> T:
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError:
        # Once more with numpy and torch scalars as plain numbers; what is wrong otherwise raises again.
        return msgspec.convert(msgspec.to_builtins(value, enc_hook=_plain), kind)


def _plain(value: object) -> object:
    return value.tolist() if hasattr(value, "tolist") else repr(value)
