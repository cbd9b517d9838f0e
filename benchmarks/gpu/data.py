"""Data that the GPU machine makes for itself."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from benchmarks import lvis_like

FILES = 200
"""Different images; the annotations refer to them in turn."""


def lvis_like_set(folder: Path, images: int) -> Path:
    """train.json, val.json and train2017/ with LVIS's 1203 categories and image sizes; made once."""
    done = folder / "done"
    if done.is_file():
        return folder
    rng = np.random.default_rng(0)
    for split, count in (("train", images), ("val", 50)):
        made = lvis_like.make(count, same_size=True)
        lvis_like.write(folder_of(folder) / f"{split}.json", made, polygons=False, pictures=FILES)
    (folder / "train2017").mkdir(exist_ok=True)
    for number in range(FILES):
        image = cv2.resize(rng.integers(0, 255, (60, 80, 3), np.uint8), (640, 480), interpolation=cv2.INTER_CUBIC)
        cv2.imwrite(str(folder / "train2017" / f"{number:012d}.jpg"), image)
    done.touch()
    return folder


def folder_of(folder: Path) -> Path:
    """The folder, made if need be."""
    folder.mkdir(parents=True, exist_ok=True)
    return folder
