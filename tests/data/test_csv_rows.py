"""Csv files as columns: whatever the pieces in which the file is read, every field comes out as Python reads it."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

import yolox_lt.data.annotations.csv_rows as csv_rows
from yolox_lt.data.annotations.csv_rows import read_rows
from yolox_lt.errors import UserError

NUMBERS = ["0", "1", "7", "0.5", "0.25", "0.123456", "0.12345678", "0.123456789", "0.30000000000000004", "1.000000"]
NUMBERS += ["9.99999999", "1e-05", "-1", "-0.5", "+0.5", "12.5", "0.", ".5", " 0.5", "nan", "inf", "10000000"]


def columns(path: Path, piece: int, monkeypatch: pytest.MonkeyPatch) -> tuple[list[str], list[float], list[int]]:
    """(texts, numbers, lines) of a file with the columns "text" and "number"."""
    monkeypatch.setattr(csv_rows, "PIECE", piece)
    texts, numbers, lines = [], [], []
    for rows in read_rows(path, ("number", "text"), ("not there",)):
        words = rows.words("text")
        texts += [word.decode() for word in words.view(f"S{8 * words.shape[1]}").reshape(-1).tolist()]
        numbers += rows.numbers("number").tolist()
        lines += rows.lines.tolist()
        assert [rows.text("text", k) for k in range(len(rows))] == texts[len(texts) - len(rows) :]
    return texts, numbers, lines


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("piece", [1, 7, 64, 1 << 20])
def test_rows__equal_those_of_the_csv_module(tmp_path, monkeypatch, newline, piece):
    rng = np.random.default_rng(0)
    path = tmp_path / "a.csv"
    lines = ["text,other,number"]
    for k in range(300):
        text = "".join(rng.choice(list("abc/_é"), int(rng.integers(0, 20))))
        lines.append(f"{text},{k},{NUMBERS[k % len(NUMBERS)]}")
    path.write_bytes(newline.join(lines).encode())  # the last line has no end
    with path.open(newline="", encoding="utf-8") as file:
        expected = list(csv.DictReader(file))
    texts, numbers, numbers_of_lines = columns(path, piece, monkeypatch)
    assert texts == [row["text"] for row in expected]
    np.testing.assert_array_equal(numbers, [float(row["number"]) for row in expected])
    assert numbers_of_lines == list(range(2, 302))


def test_rows__blank_lines_and_a_byte_order_mark(tmp_path, monkeypatch):
    path = tmp_path / "a.csv"
    path.write_bytes(b"\xef\xbb\xbfnumber,text\n\n1,a\n\r\n\n2,b\n\n")
    assert columns(path, 1 << 20, monkeypatch) == (["a", "b"], [1, 2], [3, 6])
    assert columns(path, 3, monkeypatch) == (["a", "b"], [1, 2], [3, 6])
    path.write_text("number,text\n")
    assert columns(path, 1 << 20, monkeypatch) == ([], [], [])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("number\n1\n", r"line 1: has no column text \(found: number\); give the csv file with its header"),
        ("", r"line 1: has no column number"),
        ("number,text\n1,a\n2\n3,c\n", r"line 3: has 1 fields where the header has 2; correct the line"),
        ("number,text\n1,a\n2,b,c\n", r"line 3: has 3 fields where the header has 2"),
        ("number,text\n1,a\n\nx1,b\n", r"line 4: number is 'x1', which is no number; correct the line"),
        ("number,text\n0.12x,a\n", r"line 2: number is '0.12x', which is no number"),
        ("number,text\n,a\n", r"line 2: number is '', which is no number"),
        (f"number,text\n1,{'a' * 65}\n", r"line 2: text has 65 characters; give a plain csv file, without quotes"),
    ],
)
def test_rows__what_cannot_be_read_is_named(tmp_path, monkeypatch, text, message):
    path = tmp_path / "a.csv"
    path.write_text(text)
    for piece in (5, 1 << 20):
        with pytest.raises(UserError, match=message) as error:
            columns(path, piece, monkeypatch)
        assert str(error.value).startswith(f"{path}: ")


def test_rows__no_such_file(tmp_path):
    with pytest.raises(UserError, match=r"a\.csv: no such file; check the path"):
        next(read_rows(tmp_path / "a.csv", ("number",)))
