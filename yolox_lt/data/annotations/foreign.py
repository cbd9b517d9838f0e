"""Names of formats that are not read, so that a message can say what a file is."""

from __future__ import annotations

import re
from pathlib import Path

ENDS = 1 << 16
"""Bytes at either end of a file that are looked at."""

JSON = (
    ("VGG Image Annotator's project or json", (r'"_via_img_metadata"|"region_attributes"|"shape_attributes"',)),
    ("Label Studio's own json", (r'"from_name"', r'"to_name"')),
    ("Label Studio's own json (JSON-MIN)", (r'"rectanglelabels"|"original_width"',)),
    ("Supervisely's json", (r'"classTitle"|"classId"', r'"objects"')),
    ("Create ML's json", (r'"coordinates"', r'"label"', r'"image(?:filename)?"')),
    ("BDD100K's (Scalabel's) json", (r'"box2d"',)),
    ("Datumaro's json", (r'"items"', r'"media_type"|"label_id"|"dm_format_version"')),
    ("Darwin's (V7's) json", (r'"bounding_box"',)),
    ("Labelbox's json", (r'"data_row"|"featureId"',)),
    ("COCO's panoptic json", (r'"segments_info"',)),
    ("COCO's captions json", (r'"caption"',)),
    ("a results file with scores, no annotations", (r"^\s*\[\s*\{", r'"image_id"', r'"score"')),
    ("labelme's json (data_format labelme)", (r'"shapes"', r'"imagePath"')),
)
"""What a json file is, and the patterns that its ends hold."""

CSV = (
    ("Open Images' csv (tools/convert_dataset.py openimages reads it)", r"^\W*ImageID,"),
    ("VGG Image Annotator's csv", r"region_shape_attributes"),
    ("TensorFlow's csv (filename,width,height,class,xmin,...)", r"filename,width,height,class"),
    ("Google AutoML's csv", r"^(TRAIN|TEST|VALIDATION|UNASSIGNED),"),
    ("RetinaNet's csv (path,x1,y1,x2,y2,class)", r"^[^,\n]+\.\w+,\d+,\d+,\d+,\d+,"),
)

SUFFIXES = {
    ".tfrecord": "TensorFlow's records",
    ".record": "TensorFlow's records",
    ".pkl": "a Python pickle, as mmdetection's middle format",
    ".mat": "a Matlab file",
    ".zip": "an archive, which has to be unpacked",
    ".tar": "an archive, which has to be unpacked",
    ".gz": "an archive, which has to be unpacked",
    ".ndjson": "json with one object a line, as Labelbox exports it",
    ".parquet": "a Parquet table",
    ".xlsx": "an Excel table",
}

REMEDY = "which is not read; export COCO, Pascal VOC or YOLO"


def foreign_format(path: Path) -> str | None:
    """What a file is whose format is not read, None if it is nothing that is known."""
    suffix = path.suffix.lower()
    if suffix in SUFFIXES:
        return SUFFIXES[suffix]
    with path.open("rb") as file:
        data = file.read(ENDS)
        file.seek(max(path.stat().st_size - ENDS, len(data)))
        data += file.read(ENDS)
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return "text in utf-16, which has to be saved as utf-8"
    text = data.decode("utf-8-sig", "replace")
    if suffix in (".csv", ".tsv"):
        return next((name for name, pattern in CSV if re.search(pattern, text)), "a csv file")
    if suffix == ".xml":
        if "<annotations>" in text[:4096]:
            return "CVAT's xml (data_format cvat)"
        return "one file of Pascal VOC, of which the folder is to be given" if "<object>" in text else "an xml file"
    if re.match(r"\w+( -?[\d.]+){14,15}\s", text):
        return "KITTI's text"
    if re.match(r"\s*[\[{]", text):
        return next((name for name, parts in JSON if all(re.search(part, text) for part in parts)), None)
    return None


def name_folder(folder: Path) -> str | None:
    """What the first file of a folder is that is of a format that is not read."""
    for suffix in (".json", ".csv", ".xml", *SUFFIXES):
        first = next(iter(sorted(folder.glob(f"*{suffix}")) or sorted(folder.glob(f"*/*{suffix}"))), None)
        if first is not None and (found := foreign_format(first)):
            return f"{first.relative_to(folder)} is {found}"
    return None
