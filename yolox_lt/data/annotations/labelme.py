"""labelme's json files (also X-AnyLabeling's): one an image, beside it.

Rectangles are boxes; of polygons and circles the box around them is taken, one of several with the same label and
group_id. Points, lines and masks have no box: they are counted and left out.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from yolox_lt.data.annotations.coco_json import AnnotationFile, Box, BoxEntry, CategoryEntry, ImageEntry
from yolox_lt.data.annotations.files_of_images import find_image, ids_of, relative, size_of, unknown_name
from yolox_lt.data.annotations.json_text import decode_json
from yolox_lt.data.annotations.reader import Reader, ReadOptions
from yolox_lt.data.image_files import IMAGE_SUFFIXES
from yolox_lt.errors import UserError

ENDS = 1 << 16
"""Bytes at either end of a file that tell its format: the image itself may stand between them."""

CORNERS = {"rectangle": 2, "polygon": 3, "rotation": 3, "circle": 2}
"""Shapes that have a box, and how many points they need at least."""


class Shape(msgspec.Struct):
    """One object. group_id: equal for the parts of one object. points: x, y in pixels of the image as shown."""

    label: str
    points: list[tuple[float, float]]
    shape_type: str = "polygon"
    group_id: int | str | None = None


class LabelmeFile(msgspec.Struct):
    """One image; older versions write no size."""

    shapes: list[Shape]
    imagePath: str = ""  # noqa: N815
    imageHeight: int | None = None  # noqa: N815
    imageWidth: int | None = None  # noqa: N815


@dataclass(frozen=True)
class LabelmeFolder:
    """root: that paths of images start from. texts: its json files in labelme's format."""

    root: Path
    texts: tuple[Path, ...]

    def files(self) -> Iterable[Path]:
        """All on which the annotations depend."""
        return [*self.texts, *sorted({text.parent for text in self.texts})]


def is_labelme(path: Path) -> bool:
    """Whether a file is labelme's, from its ends."""
    if path.suffix.lower() != ".json" or not path.is_file():
        return False
    with path.open("rb") as file:
        ends = file.read(ENDS)
        file.seek(max(path.stat().st_size - ENDS, len(ends)))
        ends += file.read(ENDS)
    return b'"shapes"' in ends and b'"imagePath"' in ends and b'"annotations"' not in ends


def holds_labelme(path: Path) -> bool:
    """One of its files, or a folder that holds some (itself, or in folders below that hold nothing else)."""
    return is_labelme(path) if path.is_file() else next(iter(_texts(path)), None) is not None


def find_labelme(path: Path, options: ReadOptions) -> LabelmeFolder:
    """The files of a folder and of the folders below, or one of them.

    Raises:
        UserError: none there.
    """
    texts = (path,) if path.is_file() else tuple(_texts(path)) if path.is_dir() else ()
    if not texts:
        raise UserError(f"{path}: holds no json files of labelme; give the folder that holds them")
    return LabelmeFolder(path if path.is_dir() else path.parent, texts)


def read_labelme(found: LabelmeFolder, options: ReadOptions) -> AnnotationFile:
    """Annotations of a folder. Image ids are 1, 2, ... in the order of paths, category ids 1, 2, ... in that of
    `class_names`, else of the sorted labels.

    Raises:
        UserError: a malformed file, a label that `class_names` does not list, no size and no image to take it from.
    """
    root = options.root or found.root
    parsed = {path: decode_json(path, LabelmeFile) for path in found.texts}
    id_of = ids_of((s.label.strip() for file in parsed.values() for s in file.shapes), options.class_names)
    images, boxes, left = [], [], Counter[str]()
    for image_id, (path, content) in enumerate(parsed.items(), 1):
        image = _image_of(path, content.imagePath)
        width, height = content.imageWidth or 0, content.imageHeight or 0
        if width < 1 or height < 1:
            width, height = size_of(image)
        images.append(ImageEntry(image_id, width, height, file_name=relative(image, root)))
        for name, box in boxes_of(content.shapes, path, left):
            if name not in id_of:
                raise unknown_name(f"{path}: an object", name, id_of)
            boxes.append(BoxEntry(image_id, id_of[name], box))
    notes = [
        f"{relative(found.texts[0].parent, root)}: {n} shapes of type {kind} are not read" for kind, n in left.items()
    ]
    return AnnotationFile(images, [CategoryEntry(i, name) for name, i in id_of.items()], boxes, notes=notes)


def boxes_of(shapes: Iterable[Shape], path: Path, left: Counter[str]) -> list[tuple[str, Box]]:
    """(label, (x, y, width, height)) of the objects of one file; shapes without a box are counted in `left`.

    Raises:
        UserError: a shape with too few points, or points that are no numbers.
    """
    corners: dict[Any, list[float]] = {}  # label and group -> x1, y1, x2, y2
    for number, shape in enumerate(shapes, 1):
        kind, name = shape.shape_type, shape.label.strip()
        if kind not in CORNERS:
            left[kind] += 1
            continue
        if len(shape.points) < CORNERS[kind] or not all(map(math.isfinite, sum(shape.points, ()))):
            raise UserError(f"{path}: shape {number} ({name}) is a {kind} of {len(shape.points)} points; draw it again")
        x, y = zip(*shape.points)
        box = [min(x), min(y), max(x), max(y)]
        if kind == "circle":  # its centre and a point of its border
            radius = math.dist(*shape.points[:2])
            box = [x[0] - radius, y[0] - radius, x[0] + radius, y[0] + radius]
        # X-AnyLabeling gives separate objects one group to count them by; parts of one object are polygons.
        key = (name, shape.group_id) if shape.group_id is not None and kind == "polygon" else (name, "alone", number)
        other = corners.get(key, box)
        corners[key] = [*map(min, other[:2], box[:2]), *map(max, other[2:], box[2:])]
    return [(key[0], (x1, y1, x2 - x1, y2 - y1)) for key, (x1, y1, x2, y2) in corners.items()]


def _image_of(path: Path, named: str) -> Path:
    """The image that a file names, else the one beside it with its stem; if none is there, where it should be."""
    stems = [path.with_suffix(suffix).name for suffix in sorted(IMAGE_SUFFIXES)]
    folders = (path.parent, path.parent.parent / "images", path.parent / "images")
    return find_image(folders, (named, *stems)) or path.parent / (named.replace("\\", "/") or stems[1])


def _texts(folder: Path) -> Iterable[Path]:
    """Files in labelme's format below a folder, sorted; none if the folder's first json file is of another format."""
    found = sorted(folder.glob("*.json")) or sorted(folder.rglob("*.json"))
    if found and is_labelme(found[0]):
        yield from (path for path in found if is_labelme(path))


LABELME = Reader(holds_labelme, find_labelme, read_labelme, LabelmeFolder.files)
