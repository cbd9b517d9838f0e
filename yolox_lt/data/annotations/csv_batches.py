"""Large csv files as batches of columns, read by pyarrow (the extra `openimages`); errors name the line."""

from __future__ import annotations

import csv
import importlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from yolox_lt.data.columns import Floats, Ints
from yolox_lt.errors import UserError

BLOCK = 1 << 20
"""Bytes that are parsed at a time."""


@dataclass(frozen=True)
class Batch:
    """R consecutive rows of a file.

    path: the file. first: which row of the file the first one is, from 0. record: pyarrow's RecordBatch.
    """

    path: Path
    first: int
    record: Any

    def __len__(self) -> int:
        return int(self.record.num_rows)

    def numbers(self, name: str) -> Floats:
        """A column of numbers, float64 [R]."""
        values: Floats = self.record.column(name).to_numpy(zero_copy_only=False)
        return values

    def texts(self, name: str) -> tuple[Ints, list[str]]:
        """A column of texts: index int64 [R] of each row into the distinct texts, and these."""
        column = self.record.column(name)
        return column.indices.to_numpy().astype(np.int64), column.dictionary.to_pylist()

    def line(self, row: int) -> str:
        """How a message begins that is about a row. The file is read again: pyarrow skips blank lines uncounted."""
        with opened(self.path) as file:
            rows = csv.reader(file)
            filled = (rows.line_num for fields in rows if fields)
            return f"{self.path}: line {next(islice(filled, 1 + self.first + row, None))}"


def read_batches(path: Path, texts: Sequence[str], numbers: Sequence[str]) -> Iterator[Batch]:
    """The rows of a csv file in file order, with the columns named as texts and as numbers in its header.

    The order of the columns and further ones do not matter; blank lines are skipped.

    Raises:
        UserError: pyarrow is missing, no such file, a missing column, a row with another number of fields than the
            header, a number that is none.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file; check the path")
    arrow, arrow_csv = require("pyarrow"), require("pyarrow.csv")
    with opened(path) as file:
        names = next(csv.reader(file), [])
    missing = [name for name in (*texts, *numbers) if name not in names]
    if missing:
        raise UserError(
            f"{path}: line 1: has no column {missing[0]} (found: {', '.join(names)[:200]}); give the csv file with its "
            "header"
        )
    types = dict.fromkeys(texts, arrow.dictionary(arrow.int32(), arrow.string()))
    types |= dict.fromkeys(numbers, arrow.float64())
    # Without null values an empty field or NA is an error, as any other text that is no number.
    options = arrow_csv.ConvertOptions(include_columns=list(types), column_types=types, null_values=[])
    first = 0
    try:
        for record in arrow_csv.open_csv(
            path, read_options=arrow_csv.ReadOptions(block_size=BLOCK), convert_options=options
        ):
            yield Batch(path, first, record)
            first += record.num_rows
    except arrow.ArrowInvalid as error:
        if "Empty CSV file" in str(error):  # a header without a line end
            return
        raise UserError(bad_line(path, names, numbers) or f"{path}: {error}; copy the file again") from error


def opened(path: Path) -> TextIO:
    """A csv file as text, for the reader of the standard library."""
    return path.open(encoding="utf-8-sig", errors="replace", newline="")


def bad_line(path: Path, names: Sequence[str], numbers: Sequence[str]) -> str | None:
    """A sentence about the first row that cannot be read: pyarrow does not tell its line."""
    places = {name: names.index(name) for name in numbers}
    with opened(path) as file:
        rows = csv.reader(file)
        next(rows)
        for row in rows:
            where = f"{path}: line {rows.line_num}"
            if row and len(row) != len(names):
                return (
                    f"{where}: has {len(row)} fields where the header has {len(names)}; correct the line, or copy the "
                    "file again"
                )
            for name, place in places.items() if row else ():
                try:
                    float(row[place])
                except ValueError:
                    return f"{where}: {name} is {row[place]!r}, which is no number; correct the line"
    return None


def require(package: str) -> Any:
    """pyarrow or a part of it.

    Raises:
        UserError: it is not installed.
    """
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise UserError(
            f"pyarrow, which reads Open Images' csv files, is not installed ({error}); run pip install pyarrow, or "
            "install this package with its extra openimages"
        ) from error
