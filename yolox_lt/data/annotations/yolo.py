"""YOLO text files: one row "class x y width height" an object, centre and size as fractions of the image.

The labels of `a/images/b/c.jpg` are `a/labels/b/c.txt` (the last folder of that name counts), else the .txt file beside
the image. No file, or an empty one, is an image without objects.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from yolox_lt.data.annotations.coco_json import AnnotationFile, Box, BoxEntry, CategoryEntry, ImageEntry
from yolox_lt.data.annotations.files_of_images import size_of
from yolox_lt.data.annotations.reader import Reader, ReadOptions
from yolox_lt.data.annotations.yolo_names import NAME_FILES, data_file, names_beside, names_of_yaml
from yolox_lt.data.image_files import first_line, images_below, is_image, listed_names
from yolox_lt.errors import UserError

SPLITS = ("train", "val", "test")
"""Keys of a data.yaml; "all" are those that it has."""

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
    if path.is_dir() and not options.class_names:
        found = sorted(p for p in path.iterdir() if is_yaml(p))
        if len(found) == 1:
            path = found[0]
        elif (darknet := data_file(path)) is not None and not found:
            path = darknet
    if is_yaml(path):
        return _from_yaml(path, options.split)
    if path.suffix.lower() == ".data":
        return _from_data_file(path, options)
    names, text = names_beside(path) if not options.class_names else (options.class_names, None)
    if not names and path.is_dir():
        raise UserError(
            f"{path}: holds {len(found)} yaml files and no classes.txt; give the data.yaml itself, or name the classes "
            "(class_names, --classes) and give the image folder"
        )
    if not names:
        raise UserError(
            f"{path}: text labels have no names, and there is no classes.txt or obj.names; name the classes "
            "(class_names, --classes), or give a data.yaml"
        )
    root = path if path.is_dir() else path.parent
    return _set_of(root, [path], dict(enumerate(names)), () if text is None else (text,))


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
    claimed: dict[Path, Path] = {}  # labels -> image
    root = options.root or found.root
    paths = {os.path.relpath(path, root).replace(os.sep, "/"): path for path in found.images}
    for image_id, name in enumerate(sorted(paths), 1):
        path = paths[name]
        width, height = size_of(path)
        images.append(ImageEntry(image_id, width, height, file_name=name))
        labels = label_path(path)
        if labels.is_file():
            labelled += 1
            if claimed.setdefault(labels, path) != path:
                raise UserError(
                    f"{labels}: is the label file of two images, {claimed[labels].name} and {path.name}; rename one of "
                    "them, or take it out of the data set"
                )
            for label, (x, y, w, h) in read_labels(labels, found.names):
                box = ((x - w / 2) * width, (y - h / 2) * height, w * width, h * height)
                boxes.append(BoxEntry(image_id, label + 1, box))
    if not labelled:
        raise UserError(
            f"{label_path(found.images[0])}: none of the {len(images)} images has a file with labels; put them into "
            "labels/ where the images are in images/, or next to the images"
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
        text = path.read_text(encoding="utf-8-sig")
        content = yaml.safe_load(text)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}, line {mark.line + 1}" if mark else str(path)
        problem = getattr(error, "problem", None) or "not a text"
        raise UserError(f"{where}: not a yaml file ({problem}); correct it") from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: holds no keys; it needs train, val and names")
    there = [key for key in SPLITS if content.get(key)]
    wanted = there if split == "all" else [split] if content.get(split) else []
    if not wanted:
        other = f", or write {path.name}:{there[0]} to take that one" if there else ""
        raise UserError(f"{path}: has no {split!r}, only {', '.join(there) or 'no split at all'}; add the key{other}")
    entries = [(key, str(entry)) for key in wanted for entry in _as_list(content[key])]
    places = [_place(path, str(content.get("path") or "."), entry, key) for key, entry in entries]
    # Once more with every scalar as it is written: yaml makes a truth value of no and a number of 1.10.
    written = yaml.load(text, yaml.BaseLoader)  # nosec B506: it makes texts alone
    return _set_of(path.parent, list(dict.fromkeys(places)), names_of_yaml(path, content, written), (path,))


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _from_data_file(path: Path, options: ReadOptions) -> YoloSet:
    """The split of a Darknet obj.data: lists of images under the keys train and valid, a file of names."""
    lines = [line.partition("=") for line in path.read_text(encoding="utf-8-sig").splitlines()]
    content = {key.strip().lower(): value.strip() for key, _, value in lines if value.strip()}
    content = {("val" if key == "valid" else key): value for key, value in content.items()}
    there = [key for key in SPLITS if key in content]
    wanted = there if options.split in ("all", *there[1:]) or not there else [options.split]
    wanted = [options.split] if options.split in there else wanted
    if not there or wanted[0] not in content:
        raise UserError(
            f"{path}: has no {options.split!r}, only {', '.join(there) or 'no split at all'}; add the key, or give the "
            "list of images itself"
        )
    names, text = names_beside(path)
    names = options.class_names or names
    if not names:
        raise UserError(f"{path}: its file of names is not there; name the classes (class_names, --classes)")
    places = [_below(path.parent, content[key]) for key in wanted]
    return _set_of(path.parent, places, dict(enumerate(names)), (path, *([text] if text else [])))


def _below(folder: Path, name: str) -> Path:
    """A file that a list in `folder` names, also without the folders that its names begin with: CVAT's lists say
    data/obj_train_data/0.jpg for obj_train_data/0.jpg.
    """
    parts = name.replace("\\", "/").split("/")
    tried = [folder / name, *(folder / "/".join(parts[i:]) for i in range(len(parts)))]
    return next((path for path in tried if path.exists()), tried[0])


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
    for number, line in enumerate(place.read_text(encoding="utf-8-sig").splitlines(), 1):
        if line.strip():
            tried = [_below(place.parent, name) for name in listed_names(line)]
            image = next((path for path in tried if path.is_file()), tried[-1])
            if re.search(r"\s\d+,\d+,\d+,\d+,\d+", line):
                raise UserError(
                    f"{place}, line {number}: has boxes behind the name (keras-yolo3's lists), which are not read; "
                    "export COCO, Pascal VOC or YOLO"
                )
            if not image.is_file():
                raise UserError(f"{place}, line {number}: there is no image {image}; remove the line or add the file")
            images.append(image)
    if not images:
        raise UserError(f"{place}: lists no images; write one path a line")
    return images


def orphan_notes(found: YoloSet, root: Path) -> list[str]:
    """Labels without an image: objects that would silently be missing. Lists may leave images out, folders do not."""
    wanted = {label_path(image) for image in found.images}
    orphans = [
        labels
        for folder in found.folders
        if (place := labels_folder_path(folder / "x.jpg").parent) != folder
        for labels in sorted(place.rglob("*.txt"))
        if labels not in wanted and labels.name not in NAME_FILES
    ]
    if not orphans:
        return []
    first = os.path.relpath(orphans[0], root).replace(os.sep, "/")
    return [f"{first}: {len(orphans)} files with labels have no image; they are not read"]


def holds_yolo(path: Path) -> bool:
    """A yaml file, an obj.data, a list of image files, or a folder with one of the first two, with images and names of
    classes beside them, or with images and not just one json.
    """
    if path.is_file():
        named = is_yaml(path) or path.suffix.lower() == ".data"
        return named or (path.suffix.lower() == ".txt" and any(map(is_image, listed_names(first_line(path)))))
    if any(is_yaml(file) for file in path.iterdir()) or data_file(path) is not None:
        return True
    if next(images_below(path), None) is None:
        return False
    return len(list(path.glob("*.json"))) != 1 or names_beside(path)[1] is not None


YOLO = Reader(holds_yolo, find_yolo, read_yolo, YoloSet.files)
