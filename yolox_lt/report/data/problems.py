"""What is wrong with a data set: found before the training, counted, and told apart by whether it must be fixed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from yolox_lt.data.annotations.index import AnnotationIndex
from yolox_lt.data.annotations.meant import CANNOT
from yolox_lt.data.dataset import BadImageError, ImageStore
from yolox_lt.data.image_file import shown_size

EXAMPLES = 3
"""Names that are listed with a problem."""

ERRORS = {
    "non-finite": "boxes with NaN or infinite coordinates, left out",
    "zero-size": "boxes without width or height, left out",
    "outside image": "boxes outside their image, left out",
    "duplicate annotation": "boxes that repeat another one of the same image and category",
    "duplicate annotation id": "annotation ids that were used before",
    "negative category with boxes": "categories listed as absent from an image that has boxes of them",
}
"""Problems of `AnnotationIndex.problems` that make labels wrong, and what is said about them."""

REMARKS = {
    "clipped": "boxes that reach beyond their image by more than half a pixel, clipped",
    "crowd": "crowd regions, not trained on",
    "group-of": "boxes around a group of objects (Open Images), not trained on",
    "ignored": "boxes marked as ignored: trained on, not scored",
    "zero area": "boxes whose area in the file is 0: LVIS's scoring leaves them out",
    "images without usable boxes": "images without a usable box",
    "images without federated lists": "images without federated lists in a file that has them",
    "unknown category in federated lists": "entries of the federated lists that name no category of the file",
    "non-exhaustive category without boxes": "categories listed as not exhaustive in an image without boxes of them",
}
"""The others: worth knowing, nothing to fix."""


@dataclass(frozen=True)
class Problem:
    """split: "train" or "val". error: has to be fixed; otherwise a remark. examples: a few names, maybe none."""

    split: str
    error: bool
    count: int
    text: str
    examples: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """For json."""
        return asdict(self)


def find_problems(
    train: ImageStore,
    positions: np.ndarray,
    val: ImageStore | None,
    read: bool = False,
    most_files: int | None = None,
) -> list[Problem]:
    """Everything that is found, errors first.

    Args:
        train, val: images and annotations, None without validation. positions: of the training images that are used.
        read: decode every image file instead of looking whether it is there.
        most_files: of either split so many files are looked for, spread evenly over it; None: all.
    """
    train_files = file_names(train, spread(positions, most_files))
    found = annotation_problems("train", train) + unused_categories(train.index)
    found += file_problems("train", train, train_files, read)
    if val is not None:
        val_files = file_names(val, spread(np.arange(len(val.index)), most_files))
        found += annotation_problems("val", val) + category_problems(train.index, val.index)
        found += file_problems("val", val, val_files, read)
        both = sorted(set(val_files.values()) & set(train_files.values()))
        found.append(problem("val", True, "images that are trained on too", both))
    return sorted((p for p in found if p.count), key=lambda p: not p.error)


def problem(split: str, error: bool, text: str, names: Iterable[str]) -> Problem:
    """One with as many counts as names, the first of which are its examples."""
    names = list(names)
    return Problem(split, error, len(names), text, tuple(names[:EXAMPLES]))


def annotation_problems(split: str, store: ImageStore) -> list[Problem]:
    """What the reader of the file counted, and what was seen in the images that were looked at."""
    texts, index = ERRORS | REMARKS, store.index
    counted = [Problem(split, name in ERRORS, count, texts[name]) for name, count in index.problems.items()]
    counted += [Problem(split, True, 1, note) for note in store.notes]
    return [*counted, *(Problem(split, "not read" in note or CANNOT in note, 1, note) for note in index.notes)]


def unused_categories(train: AnnotationIndex) -> list[Problem]:
    """Those that are never seen in training."""
    unused = [name for name, count in zip(train.category_names, train.image_counts) if not count]
    return [problem("train", False, "categories without a box", unused)]


def category_problems(train: AnnotationIndex, val: AnnotationIndex) -> list[Problem]:
    """Categories that do not match, and those that only validation has boxes of."""
    found: list[Problem] = []
    foreign = [name for name in val.category_names if name not in train.category_names]
    if foreign:
        return [*found, problem("val", True, "categories that the training annotations do not list", foreign)]
    if train.category_names != val.category_names:
        lacking = [name for name in train.category_names if name not in val.category_names]
        found.append(problem("val", False, "categories that only the training annotations list", lacking))
        order = [name for name in train.category_names if name in val.category_names]
        moved = [name for name, other in zip(order, val.category_names) if name != other]
        found.append(problem("val", False, "categories numbered otherwise than in training, matched by name", moved))
    images = dict(zip(train.category_names, train.image_counts.tolist()))
    counts = zip(val.category_names, val.instance_counts.tolist())
    unseen = [name for name, in_val in counts if in_val and not images[name]]
    return [*found, problem("val", True, "categories with boxes here and none in training", unseen)]


def spread(positions: np.ndarray, most: int | None) -> list[int]:
    """At most `most` of the positions [I], the first and the last among them."""
    if most is None or len(positions) <= most:
        return positions.tolist()
    return positions[np.linspace(0, len(positions) - 1, most).astype(int)].tolist()


def file_names(store: ImageStore, positions: Iterable[int]) -> dict[int, str]:
    """Path of the image file at each position."""
    return {position: str(store.path(position)) for position in positions}


def file_problems(split: str, store: ImageStore, files: dict[int, str], read: bool) -> list[Problem]:
    """Files that are missing, listed twice, of another size than the annotations say or, with `read`, not readable."""
    twice = [name for name, count in Counter(files.values()).items() if count > 1]
    missing = [name for name in files.values() if not Path(name).is_file()]
    broken, odd = [], []
    absent = set(missing)
    for position, name in files.items():
        if name in absent:
            continue
        mismatch = size_mismatch(store, position, Path(name))
        if mismatch:
            odd.append(mismatch)
        elif read:
            try:
                store.read(position)
            except BadImageError as error:
                broken.append(str(error).split("; ")[0])
    return [
        problem(split, True, "image files listed more than once", twice),
        problem(split, True, "missing image files", missing),
        problem(split, True, "image files of another size than the annotations say", odd),
        problem(split, True, "unreadable images", broken),
    ]


def size_mismatch(store: ImageStore, position: int, path: Path) -> str:
    """What is wrong with the size of an image file, from its header; empty if nothing is, or if it has no header."""
    height, width = store.index.sizes[position].tolist()
    try:
        with Image.open(path) as image:
            size, is_turned = shown_size(image)
    except Exception:  # broken headers make Pillow raise many kinds; reading the file tells more
        return ""
    if size == (width, height):
        return ""
    turned = ", turned by an EXIF rotation" if is_turned else ""
    return f"{path} is {size[0]}x{size[1]}{turned}, annotated as {width}x{height}"
