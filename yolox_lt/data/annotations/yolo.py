"""YOLO text files: one row "class x y width height" an object, centre and size as fractions of the image.

The labels of `a/images/b/c.jpg` are `a/labels/b/c.txt` (the last folder of that name counts), else the .txt file beside
the image. No file, or an empty one, is an image without objects.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from PIL import Image, UnidentifiedImageError

from yolox_lt.data.annotations.coco_json import AnnotationFile, Box, BoxEntry, CategoryEntry, ImageEntry
from yolox_lt.data.annotations.reader import Reader, ReadOptions
from yolox_lt.data.image_file import shown_size
from yolox_lt.data.image_files import first_line, images_below, is_image
from yolox_lt.errors import UserError

SLACK = 0.01
"""By how much a fraction may leave 0..1 through rounding or a box at the border."""


@dataclass(frozen=True)
class YoloSet:
    """One split.

    root: the folder of the data.yaml, or of the images. images: its image files. names: class number -> name.
    folders, texts: the image folders, and the yaml file and lists, that say so.
    """

    root: Path
    images: tuple[Path, ...]
    names: dict[int, str]
    folders: tuple[Path, ...]
    texts: tuple[Path, ...]

    def files(self) -> Iterable[Path]:
        """All on which the annotations depend."""
        yield from self.texts
        for image in self.images:
            yield image
            yield label_path(image)


def find_yolo(path: Path, options: ReadOptions) -> YoloSet:
    """The split of a data.yaml (or of the only yaml file of a folder), an image folder, or a list of image files.

    Raises:
        UserError: what is missing or malformed in the yaml; no class names; no images.
    """
    split, class_names = options.split, options.class_names
    if path.is_dir() and not class_names:
        found = sorted(p for p in path.iterdir() if is_yaml(p))
        if len(found) != 1:
            raise UserError(
                f"{path}: holds {len(found)} yaml files; give the data.yaml itself, or class_names and the image folder"
            )
        path = found[0]
    if is_yaml(path):
        return _from_yaml(path, split)
    if not class_names:
        raise UserError(f"{path}: text labels have no names; set class_names, or give a data.yaml")
    return _set_of(path if path.is_dir() else path.parent, [path], dict(enumerate(class_names)), ())


def _set_of(root: Path, places: list[Path], names: dict[int, str], texts: tuple[Path, ...]) -> YoloSet:
    """The set of some image folders and lists."""
    return YoloSet(
        root,
        tuple(image for place in places for image in _images_of(place)),
        names,
        tuple(place for place in places if place.is_dir()),
        (*texts, *(place for place in places if place.is_file())),
    )


def read_yolo(found: YoloSet, options: ReadOptions) -> AnnotationFile:
    """Annotations of a split. Image ids are 1, 2, ... in the order of paths, category ids class numbers plus 1.

    Sizes come from the headers of the image files, as the images are shown: an EXIF rotation counts.

    Raises:
        UserError: an image that is missing or unreadable, a malformed row, not a single file with labels.
    """
    images, boxes, labelled = [], [], 0
    root = options.root or found.root
    paths = {os.path.relpath(path, root).replace(os.sep, "/"): path for path in found.images}
    for image_id, name in enumerate(sorted(paths), 1):
        path = paths[name]
        width, height = _header(path)
        images.append(ImageEntry(image_id, width, height, file_name=name))
        labels = label_path(path)
        if labels.is_file():
            labelled += 1
            for label, (x, y, w, h) in read_labels(labels, found.names):
                box = ((x - w / 2) * width, (y - h / 2) * height, w * width, h * height)
                boxes.append(BoxEntry(image_id, label + 1, box))
    if not labelled:
        raise UserError(
            f"{label_path(found.images[0])}: none of the {len(images)} images has a file with labels; put them into "
            "labels/ where the images are in images/, or beside the images"
        )
    categories = [CategoryEntry(k + 1, name) for k, name in sorted(found.names.items())]
    return AnnotationFile(images, categories, boxes, notes=orphan_notes(found, root))


def read_labels(path: Path, names: dict[int, str]) -> list[tuple[int, Box]]:
    """(class number, (centre x, centre y, width, height) as fractions) of every row; empty rows are skipped.

    Raises:
        UserError: columns that are no box (see `box_of_row`), no numbers, an unknown class, no fractions.
    """
    rows = []
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not a text file ({error.reason}); write the labels again") from error
    for number, line in enumerate(lines, 1):
        words = line.split()
        if not words:
            continue
        where = f"{path}, line {number}"
        try:
            label, values = float(words[0]), [float(word) for word in words[1:]]
        except ValueError as error:
            raise UserError(f"{where}: {line.strip()!r} are not five numbers; write: class x y width height") from error
        box = box_of_row(values)
        if box is None:
            raise UserError(
                f"{where}: has {len(words)} columns instead of 5; write: class x y width height, without a score"
            )
        if label not in names:
            raise UserError(
                f"{where}: class {words[0]} is not among the {len(names)} names (from 0); add its name, or correct it"
            )
        if min(box[2:]) < 0:
            raise UserError(f"{where}: width {box[2]:g} and height {box[3]:g}; sizes must not be negative")
        if not all(-SLACK <= value <= 1 + SLACK for value in box):
            raise UserError(
                f"{where}: {' '.join(words[1:5])} are no fractions of the image; divide pixels by its width and height"
            )
        rows.append((int(label), box))
    return rows


def box_of_row(values: list[float]) -> Box | None:
    """Box (centre x, centre y, width, height) of a row's numbers behind the class; None for a row that is none.

    Four numbers are the box. With key points behind it, each x y and a visibility of 0, 1 or 2, they are it too. Pairs
    of numbers, three or more, are the corners of a polygon, and the box is the one around it.
    """
    if len(values) == 4 or (len(values) > 6 and len(values) % 3 == 1 and set(values[6::3]) <= {0.0, 1.0, 2.0}):
        return values[0], values[1], values[2], values[3]
    if len(values) < 6 or len(values) % 2:
        return None
    x, y = values[::2], values[1::2]
    return (min(x) + max(x)) / 2, (min(y) + max(y)) / 2, max(x) - min(x), max(y) - min(y)


def label_path(image: Path) -> Path:
    """Where the labels of an image file are: below labels/ where it lies below images/, else beside it; beside it too
    where labels/ has none and there is a file.
    """
    usual, beside = labels_folder_path(image), image.with_suffix(".txt")
    return beside if usual != beside and not usual.is_file() and beside.is_file() else usual


def labels_folder_path(image: Path) -> Path:
    """The path with the last folder called images exchanged for labels, and the suffix txt."""
    parts = list(image.parts)
    for i in range(len(parts) - 2, -1, -1):
        if parts[i] == "images":
            parts[i] = "labels"
            return Path(*parts).with_suffix(".txt")
    return image.with_suffix(".txt")


def is_yaml(path: Path) -> bool:
    """Whether a path has the suffix of a yaml file."""
    return path.suffix.lower() in (".yaml", ".yml")


def _from_yaml(path: Path, split: str) -> YoloSet:
    if not path.is_file():
        raise UserError(f"{path}: no such file; check the path")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8-sig"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}, line {mark.line + 1}" if mark else str(path)
        problem = getattr(error, "problem", None) or "not a text"
        raise UserError(f"{where}: not a yaml file ({problem}); correct it") from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: holds no keys; it needs train, val and names")
    entries = content.get(split)
    if not entries:
        there = [key for key in ("train", "val", "test") if content.get(key)]
        raise UserError(f"{path}: has no {split!r}, only {', '.join(there) or 'no split at all'}; add the key")
    entries = entries if isinstance(entries, list) else [entries]
    places = [_place(path, str(content.get("path") or "."), str(entry), split) for entry in entries]
    return _set_of(path.parent, places, _names(path, content), (path,))


def _names(path: Path, content: dict[Any, Any]) -> dict[int, str]:
    """Class number -> name, from a list or a dict."""
    names = content.get("names")
    if isinstance(names, list):
        names = dict(enumerate(names))
    odd = next((name for name in names.values() if isinstance(name, bool)), None) if isinstance(names, dict) else None
    if odd is not None:
        raise UserError(f"{path}: names has {odd}, which yaml makes of yes, no, on and off; put the name in quotes")
    if not isinstance(names, dict) or not names:
        raise UserError(f"{path}: names is {names!r}; list the names of the classes, or give number: name")
    bad = next((key for key in names if not isinstance(key, int) or isinstance(key, bool) or key < 0), None)
    if bad is not None:
        raise UserError(f"{path}: names has the class {bad!r}; classes are numbers from 0")
    count = content.get("nc", len(names))
    if count != len(names):
        raise UserError(f"{path}: nc is {count!r} but names has {len(names)} entries; correct one of them")
    return {key: str(name) for key, name in names.items()}


def _place(path: Path, base: str, entry: str, split: str) -> Path:
    """An image folder or list, relative to `path` of the yaml file, which is relative to the yaml file's folder.

    Exports of Roboflow say "../train/images" for the folder beside the yaml file: taken if nothing else is there.
    """
    tried = [path.parent / base / entry, Path(base) / entry, path.parent / entry.removeprefix("../")]
    found = next((place for place in tried if place.exists()), None)
    if found is None:
        raise UserError(f"{path}: {split} is {entry!r}, but there is no {tried[0]}; correct path or {split}")
    return found


def _images_of(place: Path) -> list[Path]:
    """Image files of a folder, or those that a list names, relative to the list's folder."""
    if place.is_dir():
        images = list(images_below(place))
        if not images:
            raise UserError(f"{place}: holds no images; put them there, or correct the path")
        return images
    if not place.is_file():
        raise UserError(f"{place}: no such folder or list of images; check the path")
    images = []
    for number, line in enumerate(place.read_text(encoding="utf-8").splitlines(), 1):
        if line.strip():
            image = place.parent / line.strip()
            if not image.is_file():
                raise UserError(f"{place}, line {number}: there is no image {image}; remove the line or add the file")
            images.append(image)
    if not images:
        raise UserError(f"{place}: lists no images; write one path a line")
    return images


def _header(path: Path) -> tuple[int, int]:
    """Width and height of the image as shown, without decoding."""
    try:
        with Image.open(path) as image:
            return shown_size(image)[0]
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, SyntaxError) as error:
        problem = f" ({error.strerror})" if isinstance(error, OSError) and error.strerror else ""
        raise UserError(f"{path}: not a readable image{problem}; repair it, or take it out of the data set") from error


def orphan_notes(found: YoloSet, root: Path) -> list[str]:
    """Labels without an image: objects that would silently be missing. Lists may leave images out, folders do not."""
    wanted = {label_path(image) for image in found.images}
    orphans = [
        labels
        for folder in found.folders
        if (place := labels_folder_path(folder / "x.jpg").parent) != folder
        for labels in sorted(place.rglob("*.txt"))
        if labels not in wanted and labels.name != "classes.txt"
    ]
    if not orphans:
        return []
    first = os.path.relpath(orphans[0], root).replace(os.sep, "/")
    return [f"{first}: {len(orphans)} files with labels have no image; they are not read"]


def holds_yolo(path: Path) -> bool:
    """A yaml file, a list of image files, a folder with a yaml file, or a folder with images and not just one json."""
    if path.is_file():
        return is_yaml(path) or (path.suffix.lower() == ".txt" and is_image(first_line(path)))
    if any(is_yaml(file) for file in path.iterdir()):
        return True
    return len(list(path.glob("*.json"))) != 1 and next(images_below(path), None) is not None


YOLO = Reader(holds_yolo, find_yolo, read_yolo, YoloSet.files)
