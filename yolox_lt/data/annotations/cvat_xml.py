"""CVAT's format "CVAT for images": one annotations.xml, beside it images/.

Boxes are taken as they are, a turned one and an ellipse as the box around it, polygons and masks likewise. Other shapes
(points, lines, cuboids, skeletons) have no box: they are counted and left out.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from xml.etree.ElementTree import Element  # nosec B405

from yolox_lt.data.annotations.coco_json import AnnotationFile, Box, BoxEntry, CategoryEntry, ImageEntry
from yolox_lt.data.annotations.files_of_images import find_image, ids_of, relative, size_of, unknown_name
from yolox_lt.data.annotations.reader import Reader, ReadOptions
from yolox_lt.data.annotations.xml_text import parse_xml
from yolox_lt.errors import UserError

HEAD = 4096
"""Bytes in which the outermost element begins."""


@dataclass(frozen=True)
class CvatFile:
    """root: that paths of images start from. text: the xml file."""

    root: Path
    text: Path

    def files(self) -> Iterable[Path]:
        """All on which the annotations depend."""
        return [self.text]


def is_cvat(path: Path) -> bool:
    """Whether a file is CVAT's, from its beginning."""
    if path.suffix.lower() != ".xml" or not path.is_file():
        return False
    with path.open("rb") as file:
        return b"<annotations>" in file.read(HEAD)


def holds_cvat(path: Path) -> bool:
    """The xml file, or a folder with it."""
    return is_cvat(path) if path.is_file() else is_cvat(path / "annotations.xml")


def find_cvat(path: Path, options: ReadOptions) -> CvatFile:
    """The xml file itself, or annotations.xml of a folder.

    Raises:
        UserError: no such file.
    """
    text = path / "annotations.xml" if path.is_dir() else path
    if not text.is_file():
        raise UserError(f"{text}: no such file; give the annotations.xml of CVAT's export")
    return CvatFile(text.parent, text)


def read_cvat(found: CvatFile, options: ReadOptions) -> AnnotationFile:
    """Annotations of a file. Image ids are 1, 2, ... in the order of paths, category ids 1, 2, ... in that of
    `class_names`, else of the labels that the file declares, else of the sorted labels.

    Raises:
        UserError: not well-formed, video tracks, a shape without its numbers, an unknown label.
    """
    tree, root = parse_xml(found.text), options.root or found.root
    if tree.find("track") is not None:
        raise UserError(
            f"{found.text}: is 'CVAT for video', whose tracks are not read; export 'CVAT for images' or COCO"
        )
    entries = sorted(tree.iterfind("image"), key=lambda image: image.get("name", ""))
    declared = tuple(dict.fromkeys((e.text or "").strip() for e in tree.iterfind("./meta//labels/label/name")))
    id_of = ids_of(
        ((shape.get("label") or "").strip() for image in entries for shape in image), options.class_names or declared
    )
    images, boxes, left = [], [], Counter[str]()
    for image_id, entry in enumerate(entries, 1):
        where = f"{found.text}: image {entry.get('name')!r}"
        image = _image_of(found, entry.get("name", ""))
        width, height = (int(_number(entry, side, where, "0")) for side in ("width", "height"))
        if width < 1 or height < 1:
            width, height = size_of(image)
        images.append(ImageEntry(image_id, width, height, file_name=relative(image, root)))
        for number, shape in enumerate(entry, 1):
            box = box_of(shape, f"{where}, shape {number}")
            if box is None:
                left[shape.tag] += 1
                continue
            name = (shape.get("label") or "").strip()
            if name not in id_of:
                raise unknown_name(f"{where}, shape {number}", name, id_of)
            boxes.append(BoxEntry(image_id, id_of[name], box))
    notes = [f"{found.text.name}: {count} elements <{tag}> are not read" for tag, count in left.items()]
    return AnnotationFile(images, [CategoryEntry(i, name) for name, i in id_of.items()], boxes, notes=notes)


def box_of(shape: Element, where: str) -> Box | None:
    """(x, y, width, height) around a shape, in pixels of the image as shown; None for one without a box.

    Raises:
        UserError: a number that is missing or none.
    """
    if shape.tag == "box":
        x1, y1, x2, y2 = (_number(shape, name, where) for name in ("xtl", "ytl", "xbr", "ybr"))
        return _turned(x1, y1, x2, y2, _number(shape, "rotation", where, "0"))
    if shape.tag == "polygon":
        pairs = [pair.split(",") for pair in (shape.get("points") or "").split(";")]
        try:
            x, y = [float(pair[0]) for pair in pairs], [float(pair[1]) for pair in pairs]
        except (ValueError, IndexError):
            raise UserError(f"{where}: points {shape.get('points')!r:.80} are no pairs x,y; export it again") from None
        return min(x), min(y), max(x) - min(x), max(y) - min(y)
    if shape.tag == "mask":
        left, top, width, height = (_number(shape, name, where) for name in ("left", "top", "width", "height"))
        return left, top, width, height
    if shape.tag == "ellipse":
        cx, cy, rx, ry = (_number(shape, name, where) for name in ("cx", "cy", "rx", "ry"))
        angle = math.radians(_number(shape, "rotation", where, "0"))
        half_x = math.hypot(rx * math.cos(angle), ry * math.sin(angle))
        half_y = math.hypot(rx * math.sin(angle), ry * math.cos(angle))
        return cx - half_x, cy - half_y, 2 * half_x, 2 * half_y
    return None


def _turned(x1: float, y1: float, x2: float, y2: float, degrees: float) -> Box:
    """The box around a box that is turned about its centre."""
    width, height = x2 - x1, y2 - y1
    if degrees:
        cos, sin = abs(math.cos(math.radians(degrees))), abs(math.sin(math.radians(degrees)))
        width, height = width * cos + height * sin, width * sin + height * cos
    return (x1 + x2 - width) / 2, (y1 + y2 - height) / 2, width, height


def _number(element: Element, name: str, where: str, default: str | None = None) -> float:
    text = element.get(name, default)
    try:
        value = float(text or "")
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise UserError(f"{where}: {name} is {text!r}; write a number of pixels")
    return value


def _image_of(found: CvatFile, name: str) -> Path:
    """Where the image is; if it is nowhere, where CVAT puts it."""
    folders = (found.root / "images", found.root)
    return find_image(folders, (name,)) or folders[0] / name.replace("\\", "/")


CVAT = Reader(holds_cvat, find_cvat, read_cvat, CvatFile.files)
