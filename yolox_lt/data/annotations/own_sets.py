"""Where the parts of a user's own data set are: from one path to training and validation annotations."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml

from yolox_lt.data.annotations.formats import FORMATS, detect_format
from yolox_lt.data.annotations.index import AnnotationIndex
from yolox_lt.data.annotations.reader import Reader
from yolox_lt.data.annotations.source import Source
from yolox_lt.data.annotations.voc import xml_folder
from yolox_lt.data.annotations.yolo import is_yaml, label_path
from yolox_lt.data.annotations.yolo_names import data_file, names_beside
from yolox_lt.data.dataset import ImageStore
from yolox_lt.data.image_files import images_below
from yolox_lt.errors import UserError

TRAIN_NAMES = ("train", "training", "train2017")
VAL_NAMES = ("val", "valid", "validation", "val2017")
"""How folders and lists of a part are called."""


@dataclass(frozen=True)
class OwnParts:
    """Settings of `DataExp` that say where a data set is.

    data_dir: root, absolute. train_ann, val_ann: absolute paths; val_ann None: there is no validation part.
    class_names: where the annotations do not know them.
    """

    data_dir: str
    train_ann: str
    val_ann: str | None
    class_names: tuple[str, ...] = ()


def find_own(path: str | Path, formats: Mapping[str, Reader] = FORMATS) -> OwnParts:
    """The parts of the data set at `path`: a data.yaml; a json; a folder with train and val json files at its top or in
    annotations/, with folders train and val (or valid), in VOC's layout, or of images with their labels.

    Raises:
        UserError: no such path, nothing that is known in it, or several files that could be meant.
    """
    place = Path(path).absolute()
    if not place.exists():
        raise UserError(f"{path}: no such file or folder; check the path after --data")
    if place.is_file():
        return _of_file(place, formats)
    yamls = sorted(p for p in place.iterdir() if is_yaml(p))
    if yamls:
        named = [p for p in yamls if p.stem in ("data", "dataset")] or yamls
        if len(named) > 1:
            raise UserError(f"{path}: holds {len(named)} yaml files ({named[0].name}, ...); give the one that is meant")
        return _of_file(named[0], formats)
    jsons = _json_parts(place)
    if jsons is not None:
        return OwnParts(str(place), str(jsons[0]), None if jsons[1] is None else str(jsons[1]))
    lists = place / "ImageSets" / "Main"
    if (lists / "train.txt").is_file():
        val = lists / "val.txt"
        return OwnParts(str(place), str(lists / "train.txt"), str(val) if val.is_file() else None)
    if not any(place.iterdir()):
        raise UserError(f"{path}: the folder is empty; put images and their labels there, or correct the path")
    train, val_folder = place, None
    if xml_folder(place) is None:
        train, val_folder = _part_folders(place)
    kind = detect_format(train, "auto", formats)
    names = _class_numbers(place, train) if kind == "yolo" else ()
    return OwnParts(str(place), str(train), None if val_folder is None else str(val_folder), names)


def _part_folders(place: Path) -> tuple[Path, Path | None]:
    """The folders of the parts: train/ and val/ of the folder or of its images/; without train/ the folder itself."""
    for root in (place, place / "images"):
        train = next((root / name for name in TRAIN_NAMES if (root / name).is_dir()), None)
        if train is not None:
            return train, next((root / name for name in VAL_NAMES if (root / name).is_dir()), None)
    return place, None


def _of_file(place: Path, formats: Mapping[str, Reader]) -> OwnParts:
    if is_yaml(place):
        try:
            content = yaml.safe_load(place.read_text(encoding="utf-8-sig"))
        except (yaml.YAMLError, UnicodeDecodeError):
            content = {}  # told with its line when the training part is read
        has_val = isinstance(content, dict) and bool(content.get("val")) and content["val"] != content.get("train")
        return OwnParts(str(place.parent), f"{place}:train", f"{place}:val" if has_val else None)
    detect_format(place, "auto", formats)
    root = place.parent.parent if place.parent.name == "annotations" else place.parent
    val = None
    if "train" in place.stem:
        found = [place.with_name(place.name.replace("train", name)) for name in VAL_NAMES]
        val = next((str(p) for p in found if p.is_file()), None)
    return OwnParts(str(root), str(place), val)


def _json_parts(folder: Path) -> tuple[Path, Path | None] | None:
    """The train and the val json of a folder or of its annotations/, None if there are none.

    Raises:
        UserError: several files that could be meant.
    """
    for place in (folder, folder / "annotations"):
        train = _only([p for p in place.glob("*.json") if "train" in p.stem.lower()], place, "train")
        if train is not None:
            names = re.compile("|".join(VAL_NAMES))
            val = _only([p for p in place.glob("*.json") if names.search(p.stem.lower()) and p != train], place, "val")
            return train, val
    files = sorted((folder / "annotations").glob("*.json"))
    return (files[0], None) if len(files) == 1 else None


def _only(files: Iterable[Path], place: Path, part: str) -> Path | None:
    """The one file that is meant: COCO's instances_*.json among its others."""
    found = sorted(files)
    instances = [p for p in found if p.stem.startswith("instances")]
    chosen = instances if len(instances) == 1 else found
    if len(chosen) > 1:
        names = ", ".join(p.name for p in chosen[:3])
        raise UserError(
            f"{place}: {len(chosen)} json files could be the {part} part ({names}); give the one for --data"
        )
    return chosen[0] if chosen else None


def _class_numbers(folder: Path, train: Path) -> tuple[str, ...]:
    """The numbers of text labels as names of their classes, where nothing names them; none where something does.

    Args:
        folder: of the data set. train: of the training part.

    Raises:
        UserError: no image has labels.
    """
    if names_beside(train)[0] or data_file(train) is not None:
        return ()
    highest = -1
    for image in images_below(folder):
        labels = label_path(image)
        if labels.is_file():
            first = (line.split()[0] for line in labels.read_text(encoding="utf-8-sig").splitlines() if line.strip())
            highest = max([highest, *(int(word) for word in first if word.isdecimal())])
    if highest < 0:
        raise UserError(
            f"{folder}: holds images, but no labels (text files of YOLO, xml of VOC, or a json); add them, or give "
            "the annotation file for --data"
        )
    return tuple(str(number) for number in range(highest + 1))


def image_folder(index: AnnotationIndex, data_dir: str, ann: str) -> str | None:
    """Folder of the images below `data_dir` for `train_images` or `val_images`: None where the names lead there.

    Raises:
        UserError: no folder holds the first image.
    """
    root, name = Path(data_dir), index.file_name(0)
    if ImageStore(index, root).path(0).is_file():
        return None
    part = Path(ann.partition(":")[0])
    inside = [part] if part.is_dir() else [part.parent]
    below = [p for p in sorted(root.glob("*")) + sorted(root.glob("*/*")) if p.is_dir()]
    for folder in [*inside, *below]:
        if (folder / name).is_file() and folder.is_relative_to(root):
            return folder.relative_to(root).as_posix()
    raise UserError(
        f"{root}: the image {name} of {ann} is in no folder there; put the images into images/, or set train_images"
    )


def source_of_part(parts: OwnParts, split: str, share: float | None) -> Source:
    """The annotations of a split, of a single set its part."""
    ann = parts.train_ann if split == "train" or parts.val_ann is None else parts.val_ann
    return Source((ann,), "auto", split, parts.class_names, root=parts.data_dir, held_out=share)
