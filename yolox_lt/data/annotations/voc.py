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
from xml.etree import ElementTree  # nosec B405

from yolox_lt.data.annotations.coco_json import AnnotationFile, BoxEntry, CategoryEntry, ImageEntry
from yolox_lt.data.annotations.reader import Reader, ReadOptions
from yolox_lt.data.image_files import first_line, is_image
from yolox_lt.errors import UserError

CORNERS = ("xmin", "ymin", "xmax", "ymax")


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
    """One xml file: `filename` as it says, empty if it does not."""

    path: Path
    filename: str
    width: int
    height: int
    objects: tuple[VocObject, ...]


class _TreeBuilder(ElementTree.TreeBuilder):
    """Refuses a document type before anything of it is read: entities may expand to any size."""

    def doctype(self, name: str, public: str | None, system: str | None) -> None:
        raise UserError("has a DOCTYPE, which annotation files need not have and entities can abuse; remove it")


def find_voc(path: Path, options: ReadOptions | None = None) -> VocFolder:
    """A folder with xml files (its own or those of Annotations/), or a list ImageSets/Main/*.txt of image names.

    Raises:
        UserError: no xml files, or a list that names one that is not there.
    """
    if path.is_dir():
        folder = path / "Annotations" if any((path / "Annotations").glob("*.xml")) else path
        everything = tuple(sorted(folder.glob("*.xml")))
        if not everything:
            raise UserError(
                f"{path}: has no xml files, nor has {path / 'Annotations'}; give the folder that holds them"
            )
        return VocFolder(path, everything, everything, _image_folders(path, folder))
    if not path.is_file():
        raise UserError(f"{path}: no such folder or list of image names; check the path")
    root = next((p for p in path.absolute().parents[:3] if (p / "Annotations").is_dir()), path.parent)
    root = Path(os.path.relpath(root)) if not path.is_absolute() else root
    folder = root / "Annotations" if (root / "Annotations").is_dir() else root
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
    names = class_names or tuple(sorted({o.name for image in parsed.values() for o in image.objects}))
    id_of = {name: i for i, name in enumerate(names, 1)}
    if len(id_of) < len(names):
        raise UserError(f"class_names {', '.join(names)}: a name occurs twice; list every class once")
    places = {p: _names_in(p) for p in found.image_folders}
    images, boxes = [], []
    for image_id, path in enumerate(sorted(found.chosen, key=lambda p: p.name), 1):
        image = parsed[path]
        name = os.path.relpath(_image_path(image, places), root).replace(os.sep, "/")
        images.append(ImageEntry(image_id, image.width, image.height, file_name=name))
        for number, thing in enumerate(image.objects, 1):
            if thing.name not in id_of:
                raise UserError(
                    f"{path}: object {number} is a {thing.name!r}, which class_names does not list "
                    f"({', '.join(names[:5])}{', ...' if len(names) > 5 else ''}); add it or rename the object"
                )
            x1, y1, x2, y2 = thing.corners
            box = (x1 - 1, y1 - 1, x2 - x1 + 1, y2 - y1 + 1)
            boxes.append(BoxEntry(image_id, id_of[thing.name], box, ignore=thing.difficult))
    categories = [CategoryEntry(i, name) for name, i in id_of.items()]
    return AnnotationFile(images, categories, boxes, ignored_not_scored=True)


def parse(path: Path) -> VocImage:
    """One xml file.

    Raises:
        UserError: not well-formed xml, a DOCTYPE, a missing element, a value that is no number, an empty image size.
    """
    try:
        # Entities, by which a small file grows, need a DOCTYPE, and the builder refuses one.
        parser = ElementTree.XMLParser(target=_TreeBuilder())  # nosec B314
        tree = ElementTree.parse(path, parser).getroot()  # nosec B314
    except ElementTree.ParseError as error:
        line, column = error.position
        raise UserError(
            f"{path}, line {line}, column {column + 1}: not well-formed xml ({str(error).partition(':')[0]}); "
            "write the file again"
        ) from error
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    except (ValueError, LookupError) as error:  # an unknown encoding
        raise UserError(f"{path}: not readable as xml ({error}); write the file again") from error
    width, height = (_number(tree, f"size/{side}", str(path)) for side in ("width", "height"))
    if width < 1 or height < 1:
        raise UserError(f"{path}: size has width {width:g} and height {height:g}; write the image's size in pixels")
    objects = []
    for number, element in enumerate(tree.iterfind("object"), 1):
        where = f"{path}: object {number}"
        name = _text(element, "name", where)
        corners = tuple(_number(element, f"bndbox/{corner}", f"{where} ({name})") for corner in CORNERS)
        objects.append(VocObject(name, corners, (element.findtext("difficult") or "0").strip() not in ("0", "")))
    return VocImage(path, (tree.findtext("filename") or "").strip(), int(width), int(height), tuple(objects))


def _text(element: ElementTree.Element, tag: str, where: str) -> str:
    text = (element.findtext(tag) or "").strip()
    if not text:
        raise UserError(f"{where} has no <{tag.replace('/', '><')}>, or an empty one; add it")
    return text


def _number(element: ElementTree.Element, tag: str, where: str) -> float:
    text = _text(element, tag, where)
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
    for wanted in (image.path.stem, image.filename):
        for folder, names in places.items():
            if wanted in names:
                return folder / names[wanted]
    return next(iter(places)) / (image.filename or f"{image.path.stem}.jpg")


def _listed(path: Path, folder: Path, known: set[Path]) -> tuple[Path, ...]:
    """xml files of the names in a list; a second column (1, 0 or -1 in the lists of single classes) is left out."""
    chosen = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        name = re.sub(r"\s+-?[01]$", "", line.strip())
        if not name:
            continue
        stem = Path(name).stem if is_image(name) or name.lower().endswith(".xml") else name
        xml = folder / f"{stem}.xml"
        if xml not in known:
            raise UserError(f"{path}, line {number}: there is no {xml}; remove the line or add the file")
        chosen.append(xml)
    if not chosen:
        raise UserError(f"{path}: lists no images; write one name a line")
    return tuple(chosen)


def holds_voc(path: Path) -> bool:
    """A folder with xml files, its own or those of Annotations/, or a text file with names of images without suffix."""
    if path.is_file():
        return path.suffix.lower() == ".txt" and not is_image(first_line(path))
    return any(any(folder.glob("*.xml")) for folder in (path / "Annotations", path))


VOC = Reader(holds_voc, find_voc, read_voc, VocFolder.files)
