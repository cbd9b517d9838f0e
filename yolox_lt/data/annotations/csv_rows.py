"""Large plain csv files as numpy columns, a few megabytes of rows at a time and without a Python object for any field.

Made for files of millions of short rows: separators are found in a whole piece of the file at once, fields are gathered
eight bytes at a time, numbers are converted by arithmetic on those eight bytes. Fields are not quoted.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from yolox_lt.data.columns import Bools, Floats, Ints
from yolox_lt.errors import UserError

Words = NDArray[np.uint64]

PIECE = 1 << 20
"""Bytes read at a time: the columns of a piece stay in the processor's cache."""

LONGEST_FIELD = 64
"""Bytes of text that a field may have; longer ones mean that the file is none of this kind."""

_PADDING = 8  # bytes behind the last field that a gathered word may reach
_COMMA, _NEWLINE, _RETURN, _POINT, _ZERO = (ord(c) for c in ",\n\r.0")
_FIRST_BYTES = np.array([256**n - 1 for n in range(9)], np.uint64)  # little endian: the first bytes are the low ones


def _every_byte(value: int) -> np.uint64:
    return np.uint64(int.from_bytes(bytes([value] * 8), "little"))


@dataclass(frozen=True)
class Rows:
    """R consecutive rows of a file.

    path: the file. lines: int64 [R], line of each row, the header being line 1.
    starts, lengths: column name -> int64 [R], where its fields begin in `content` and their bytes.
    content: uint8, a piece of the file with padding behind it.
    """

    path: Path
    lines: Ints
    content: NDArray[np.uint8]
    starts: dict[str, Ints]
    lengths: dict[str, Ints]

    def __len__(self) -> int:
        return len(self.lines)

    def words(self, name: str) -> Words:
        """Text of a column as uint64 [R, W], 8 * W bytes filled up with zeros; `.view("S")` makes strings of them.

        Raises:
            UserError: a field of more than LONGEST_FIELD bytes.
        """
        starts, lengths = self.starts[name], self.lengths[name]
        longest = int(lengths.max(initial=1))
        if longest > LONGEST_FIELD:
            row = int(lengths.argmax())
            raise UserError(
                f"{self.path}: line {self.lines[row]}: {name} has {longest} characters; give a plain csv file, "
                "without quotes"
            )
        result = np.empty((len(self), -(-longest // 8)), "<u8")
        for w in range(result.shape[1]):
            result[:, w] = self._gather(starts + 8 * w) & _FIRST_BYTES[(lengths - 8 * w).clip(0, 8)]
        return result

    def numbers(self, name: str) -> Floats:
        """A column as float64 [R], every value as Python's float() reads it.

        Raises:
            UserError: a field that is no number.
        """
        starts, lengths = self.starts[name], self.lengths[name]
        first = self.content[starts].astype(np.int64) - _ZERO
        decimals = (lengths - 2).clip(0, 8)
        known = _FIRST_BYTES[decimals]
        digits = (self._gather(starts + 2) & known) | (_every_byte(_ZERO) & ~known)
        # One digit; or one digit, a point and up to eight more: a quotient of two numbers that float64 holds exactly.
        plain = (first >= 0) & (first <= 9) & ((lengths == 1) | (self.content[starts + 1] == _POINT) & (lengths > 2))
        plain &= (lengths <= 10) & _all_digits(digits)
        values = (first * 10**8 + _eight_digits(digits)) / 1e8
        rest = np.flatnonzero(~plain)
        whole = self._whole_numbers(starts[rest], lengths[rest])
        values[rest] = whole
        for row in rest[np.isnan(whole)].tolist():
            values[row] = self._number(name, row)
        return values

    def _whole_numbers(self, starts: Ints, lengths: Ints) -> Floats:
        """Fields of one to eight digits as float64 [R], NaN for what is no such field."""
        known = _FIRST_BYTES[lengths.clip(0, 8)]
        digits = (self._gather(starts) & known) | (_every_byte(_ZERO) & ~known)
        plain = (lengths >= 1) & (lengths <= 8) & _all_digits(digits)
        return np.where(plain, _eight_digits(digits) // 10 ** (8 - lengths.clip(0, 8)), np.nan)

    def text(self, name: str, row: int) -> str:
        """One field."""
        start = self.starts[name][row]
        return self.content[start : start + self.lengths[name][row]].tobytes().decode(errors="replace")

    def _number(self, name: str, row: int) -> float:
        try:
            return float(self.text(name, row))
        except ValueError as error:
            raise UserError(
                f"{self.path}: line {self.lines[row]}: {name} is {self.text(name, row)!r}, which is no number; "
                "correct the line"
            ) from error

    def _gather(self, starts: Ints) -> Words:
        """The eight bytes from each of the places on."""
        count = len(self.content) - 7
        every = np.ndarray((count,), "<u8", self.content, strides=(1,))  # overlapping: one word for every byte
        return every[np.minimum(starts, count - 1)]


def read_rows(path: Path, required: tuple[str, ...], optional: tuple[str, ...] = ()) -> Iterator[Rows]:
    """The rows of a csv file in file order, with the columns that the header names as `required` and `optional`.

    The order of the columns and further ones do not matter; blank lines are skipped.

    Raises:
        UserError: no such file, a missing column, a row with another number of fields than the header.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file; check the path")
    with path.open("rb") as file:
        names = file.readline().decode("utf-8-sig", errors="replace").rstrip("\r\n").split(",")
        missing = [name for name in required if name not in names]
        if missing:
            raise UserError(
                f"{path}: line 1: has no column {missing[0]} (found: {', '.join(names)[:200]}); give the csv file with "
                "its header"
            )
        places = {name: names.index(name) for name in (*required, *optional) if name in names}
        line, rest = 2, b""
        while piece := file.read(PIECE):
            whole, newline, end = (rest + piece).rpartition(b"\n")
            rest = end
            if newline:
                yield _split(path, whole + newline, line, len(names), places)
                line += whole.count(b"\n") + 1
        if rest:
            yield _split(path, rest + b"\n", line, len(names), places)


def _split(path: Path, text: bytes, line: int, fields: int, places: dict[str, int]) -> Rows:
    """Whole lines, the first of them line number `line`."""
    content = np.frombuffer(text + bytes(_PADDING), np.uint8)
    ends = np.flatnonzero((content == _COMMA) | (content == _NEWLINE))  # of fields
    starts = np.concatenate([[0], ends[:-1] + 1])
    last = content[ends] == _NEWLINE
    lines = line + np.concatenate([[0], np.cumsum(last[:-1])])  # of fields
    lengths = ends - starts - (last & (content[np.maximum(ends - 1, 0)] == _RETURN) & (ends > starts))
    blank = last & (lengths == 0) & np.append(True, last[:-1])
    if blank.any():
        starts, lengths, lines, last = (column[~blank] for column in (starts, lengths, lines, last))
    row_ends = np.flatnonzero(last)
    counts = np.diff(row_ends, prepend=-1)
    if (counts != fields).any():
        row = int(np.argmax(counts != fields))
        raise UserError(
            f"{path}: line {lines[row_ends[row]]}: has {counts[row]} fields where the header has {fields}; correct "
            "the line, or copy the file again"
        )
    starts, lengths = starts.reshape(-1, fields), lengths.reshape(-1, fields)  # [R * fields] -> [R, fields]
    return Rows(
        path,
        lines[row_ends],
        content,
        {name: np.ascontiguousarray(starts[:, place]) for name, place in places.items()},
        {name: np.ascontiguousarray(lengths[:, place]) for name, place in places.items()},
    )


def _all_digits(words: Words) -> Bools:
    """Whether all eight bytes are 0 to 9: their upper half is 3, and still is when 6 is added."""
    high, zeros = _every_byte(0xF0), _every_byte(_ZERO)
    return ((words & high) == zeros) & (((words + _every_byte(6)) & high) == zeros)


def _eight_digits(words: Words) -> Ints:
    """The number that eight bytes 0 to 9 spell. Neighbours are joined: eight digits to four pairs to two fours to one.

    Each step multiplies all neighbours at once; D. Lemire, "Quickly parsing eight digits", 2018.
    """
    pairs = (words - _every_byte(_ZERO)) * np.uint64(10) + ((words - _every_byte(_ZERO)) >> np.uint64(8))
    low = np.uint64(0x000000FF000000FF)
    first = (pairs & low) * np.uint64(100 + (1_000_000 << 32))
    second = ((pairs >> np.uint64(16)) & low) * np.uint64(1 + (10_000 << 32))
    return ((first + second) >> np.uint64(32)).astype(np.int64)
