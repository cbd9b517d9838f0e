"""Pascal VOC: one xml file an image.

Corners are pixels counted from 1 and belong to the box, as VOC's devkit defines them: xmin 1 and xmax 10 are x = 0 and
width 10. Boxes of no size or outside the image are counted and left out, as in every format.
An object marked difficult is trained on and not scored (the index's `ignore`, which VOC's scoring heeds).
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from xml.etree.ElementTree import Element  # nosec B405

import numpy as np

from yolox_lt.data.annotations.coco_json import AnnotationFile, BoxEntry, CategoryEntry, ImageEntry
from yolox_lt.data.annotations.files_of_images import ids_of, relative, size_of, unknown_name
from yolox_lt.data.annotations.meant import refuse_fractions
from yolox_lt.data.annotations.reader import Reader, ReadOptions
from yolox_lt.data.annotations.xml_text import parse_xml
from yolox_lt.data.image_files import first_line, is_image, listed_names
from yolox_lt.errors import UserError

CORNERS = ("xmin", "ymin", "xmax", "ymax")

XML_FOLDERS = ("Annotations", "annotations", "xml", "xmls", "labels")
"""Where the xml files lie below the folder of a data set: the devkit's name first, then those of other tools."""


@dataclass(frozen=True)
class VocFolder:
    """Files of a VOC data set.

    root: of the data set. chosen: xml files of the split. everything: all xml files, which together name the classes.
    image_folders: where the images may lie, in the order in which they are looked for. listing: the list of the split.
    """

    root: Path
    chosen: tuple[Path, ...]
    everything: tuple[Path, ...]
    image_folders: tuple[Path, ...]
    listing: Path | None = None

    def files(self) -> Iterable[Path]:
        """All on which the annotations depend; of image folders the time of the latest new or removed file."""
        return [*self.everything, *self.image_folders, *([self.listing] if self.listing else [])]


@dataclass(frozen=True)
class VocObject:
    """An object: its place in the file from 1, class, corners as in the file, difficult or not."""

    name: str
    corners: tuple[float, ...]
    difficult: bool


@dataclass(frozen=True)
class VocImage:
    """One xml file: `filename` as it says, empty if it does not; a size of 0 if it says none."""

    path: Path
    filename: str
    width: int
    height: int
    objects: tuple[VocObject, ...]


def find_voc(path: Path, options: ReadOptions | None = None) -> VocFolder:
    """A folder with xml files (see `xml_folder`), or a list ImageSets/Main/*.txt of image names.

    Raises:
        UserError: no xml files, or a list that names one that is not there.
    """
    if path.is_dir():
        folder = xml_folder(path)
        if folder is None:
            raise UserError(
                f"{path}: has no xml files, nor has {path / XML_FOLDERS[0]}; give the folder that holds them"
            )
        everything = tuple(sorted(folder.glob("*.xml")))
        return VocFolder(path, everything, everything, _image_folders(path, folder))
    if not path.is_file():
        raise UserError(f"{path}: no such folder or list of image names; check the path")
    root = next((p for p in path.absolute().parents[:3] if xml_folder(p) is not None), path.parent)
    root = Path(os.path.relpath(root)) if not path.is_absolute() else root
    folder = xml_folder(root) or root
    everything = tuple(sorted(folder.glob("*.xml")))
    return VocFolder(root, _listed(path, folder, set(everything)), everything, _image_folders(root, folder), path)


def read_voc(found: VocFolder, options: ReadOptions) -> AnnotationFile:
    """Annotations of the chosen files. Image ids are 1, 2, ... in the order of file names, category ids 1, 2, ... in
    that of the class names; without these the names of all xml files (other splits' too) count, sorted.

    Raises:
        UserError: see `parse`; a class that `class_names` does not list.
    """
    root, class_names = options.root or found.root, options.class_names
    parsed = {path: parse(path) for path in (found.chosen if class_names else found.everything)}
    id_of = ids_of((o.name for image in parsed.values() for o in image.objects), class_names)
    places = {p: _names_in(p) for p in found.image_folders}
    corners = np.array([o.corners for image in parsed.values() for o in image.objects]).reshape(-1, 4)
    refuse_fractions(corners, str(found.root))  # as in the files: boxes count from 0
    images, boxes = [], []
    for image_id, path in enumerate(sorted(found.chosen, key=lambda p: p.name), 1):
        image = parsed[path]
        file = _image_path(image, places)
        width, height = (image.width, image.height) if image.width and image.height else size_of(file)
        images.append(ImageEntry(image_id, width, height, file_name=relative(file, root)))
        for number, thing in enumerate(image.objects, 1):
            if thing.name not in id_of:
                raise unknown_name(f"{path}: object {number}", thing.name, id_of)
            x1, y1, x2, y2 = thing.corners
            box = (x1 - 1, y1 - 1, x2 - x1 + 1, y2 - y1 + 1)
            boxes.append(BoxEntry(image_id, id_of[thing.name], box, ignore=thing.difficult))
    categories = [CategoryEntry(i, name) for name, i in id_of.items()]
    return AnnotationFile(images, categories, boxes, ignored_not_scored=True)


def parse(path: Path) -> VocImage:
    """One xml file.

    Raises:
        UserError: not well-formed xml, a DOCTYPE, a missing element, a value that is no number, a negative size.
    """
    tree = parse_xml(path)
    width, height = (_number(tree, f"size/{side}", str(path), "0") for side in ("width", "height"))
    if width < 0 or height < 0:
        raise UserError(f"{path}: size has width {width:g} and height {height:g}; write the image's size in pixels")
    objects = []
    for number, element in enumerate(tree.iterfind("object"), 1):
        where = f"{path}: object {number}"
        name = _text(element, "name", where)
        corners = tuple(_number(element, f"bndbox/{corner}", f"{where} ({name})") for corner in CORNERS)
        objects.append(VocObject(name, corners, (element.findtext("difficult") or "0").strip() not in ("0", "")))
    return VocImage(path, (tree.findtext("filename") or "").strip(), int(width), int(height), tuple(objects))


def _text(element: Element, tag: str, where: str) -> str:
    text = (element.findtext(tag) or "").strip()
    if not text:
        raise UserError(f"{where} has no <{tag.replace('/', '><')}>, or an empty one; add it")
    return text


def _number(element: Element, tag: str, where: str, default: str = "") -> float:
    text = (element.findtext(tag) or "").strip() or default or _text(element, tag, where)
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise UserError(f"{where} has {text!r} as <{tag.replace('/', '><')}>; write a number of pixels")
    return value


def _image_folders(root: Path, annotations: Path) -> tuple[Path, ...]:
    folders = dict.fromkeys((root / "JPEGImages", root / "images", annotations, root))
    return tuple(folder for folder in folders if folder.is_dir())


def _names_in(folder: Path) -> dict[str, str]:
    """Stem -> name of the image files of a folder, and name -> name."""
    names = sorted(n for n in os.listdir(folder) if is_image(n))
    return {Path(name).stem: name for name in names} | {name: name for name in names}


def _image_path(image: VocImage, places: dict[Path, dict[str, str]]) -> Path:
    """The image beside its xml by the same stem (the devkit's rule), else the one that the xml names.

    Programs that copy data sets leave wrong names in the xml. A file that is not there is reported when it is read.
    """
    same_stem = image.filename if Path(image.filename).stem == image.path.stem else ""  # a.png beside a.jpg
    for wanted in filter(None, (same_stem, image.path.stem, image.filename)):
        for folder, names in places.items():
            if wanted in names:
                return folder / names[wanted]
    return next(iter(places)) / (image.filename or f"{image.path.stem}.jpg")


def _listed(path: Path, folder: Path, known: set[Path]) -> tuple[Path, ...]:
    """xml files of the names in a list; a second column (1, 0 or -1 in the lists of single classes) is left out."""
    chosen = []
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").splitlines(), 1):
        if not line.strip():
            continue
        spelt = (line.strip(), re.sub(r"\s+-?[01]$", "", line.strip()))  # a name may end like a flag
        tried = [folder / f"{_stem(name)}.xml" for name in spelt]
        xml = next((xml for xml in tried if xml in known), tried[-1])
        if xml not in known:
            raise UserError(f"{path}, line {number}: there is no {xml}; remove the line or add the file")
        chosen.append(xml)
    if not chosen:
        raise UserError(f"{path}: lists no images; write one name a line")
    return tuple(chosen)


def _stem(name: str) -> str:
    """A name of a list without the suffix of an image or an xml file."""
    return Path(name).stem if is_image(name) or name.lower().endswith(".xml") else name


def xml_folder(root: Path) -> Path | None:
    """The folder of a data set that holds its xml files: one of `XML_FOLDERS`, else itself; None if none does."""
    return next((p for p in (*(root / name for name in XML_FOLDERS), root) if any(p.glob("*.xml"))), None)


def holds_voc(path: Path) -> bool:
    """A folder with xml files (see `xml_folder`), or a text file with names of images without suffix."""
    if path.is_file():
        return path.suffix.lower() == ".txt" and not any(map(is_image, listed_names(first_line(path))))
    return xml_folder(path) is not None


VOC = Reader(holds_voc, find_voc, read_voc, VocFolder.files)
