"""Which files are images."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"})


def is_image(name: str) -> bool:
    """By the suffix alone, capitals or not."""
    return os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES


def images_below(folder: Path) -> Iterator[Path]:
    """Image files of a folder and of the folders below, in no order."""
    for place, _, names in os.walk(folder, followlinks=True):
        yield from (Path(place, name) for name in names if is_image(name))
