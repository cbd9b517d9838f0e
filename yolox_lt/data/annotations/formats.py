"""The formats of annotations by name, and how a format is detected."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from yolox_lt.data.annotations.coco_reader import COCO
from yolox_lt.data.annotations.cvat_xml import CVAT
from yolox_lt.data.annotations.foreign import REMEDY, name_folder
from yolox_lt.data.annotations.labelme import LABELME
from yolox_lt.data.annotations.reader import Reader
from yolox_lt.data.annotations.voc import VOC
from yolox_lt.data.annotations.yolo import YOLO
from yolox_lt.errors import UserError

FORMATS: dict[str, Reader] = {"labelme": LABELME, "cvat": CVAT, "voc": VOC, "yolo": YOLO, "coco": COCO}
"""Asked in this order what a path holds."""


def detect_format(path: Path, given: str = "auto", formats: Mapping[str, Reader] = FORMATS) -> str:
    """Name of the format that a path holds: json; labelme; CVAT xml; a data.yaml; a list of image files (YOLO) or of
    names (VOC); a folder with xml files, with a data.yaml, with images, or with one json file; and what further
    `formats` detect.

    Args:
        given: a name is the answer; "auto": by looking.

    Raises:
        UserError: no such path, or nothing that is known in it.
    """
    if given != "auto":
        return given
    if not path.exists():
        raise UserError(f"{path}: no such annotation file; check the path")
    found = next((name for name, reader in formats.items() if reader.detect(path)), None)
    if found is None:
        foreign = name_folder(path)
        if foreign is not None:
            raise UserError(f"{path}: {foreign}, {REMEDY}")
        raise UserError(
            f"{path}: holds no annotations of a known format: one COCO json, VOC xml files (also below Annotations), a "
            "YOLO data.yaml, labelme's json files or CVAT's annotations.xml; give the file itself, or name the format "
            "(data_format, --format)"
        )
    return found
