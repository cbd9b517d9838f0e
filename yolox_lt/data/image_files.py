"""Which files are images."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"})


def is_image(name: str) -> bool:
    """By the suffix alone, capitals or not."""
    return os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES


def first_line(path: Path) -> str:
    """The first line of a text file that is not blank, "" without one."""
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        return next((line.strip() for line in file if line.strip()), "")


def images_below(folder: Path) -> Iterator[Path]:
    """Image files of a folder and of the folders below, in no order."""
    for place, _, names in os.walk(folder, followlinks=True):
        yield from (Path(place, name) for name in names if is_image(name))


def listed_names(line: str) -> tuple[str, ...]:
    """What a line of a list may name: itself, and itself without the flag (a number) that may stand behind a name."""
    return tuple(dict.fromkeys((line.strip(), re.sub(r"\s+-?\d+$", "", line.strip()))))
