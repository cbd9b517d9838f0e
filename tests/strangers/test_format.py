"""Stranger (c): an annotation format of ten lines, a csv of `image,width,height,category,x1,y1,x2,y2` rows."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import pytest

from tests.strangers.walk import run, walk
from tests.tiny import tiny_data

EXP = """
import csv

from yolox_lt.data.annotations.coco_json import AnnotationFile, BoxEntry, CategoryEntry, ImageEntry
from yolox_lt.data.annotations.formats import FORMATS
from yolox_lt.data.annotations.reader import Reader
from yolox_lt.exp import YOLOXStarExp


def read(path, options):
    rows = list(csv.reader(path.open()))
    names = sorted({row[3] for row in rows})
    files = {row[0]: ImageEntry(i, int(row[1]), int(row[2]), file_name=row[0]) for i, row in enumerate(rows, 1)}
    boxes = []
    for name, _, _, category, *corners in rows:
        x1, y1, x2, y2 = map(float, corners)
        boxes.append(BoxEntry(files[name].id, names.index(category) + 1, (x1, y1, x2 - x1, y2 - y1)))
    return AnnotationFile(list(files.values()), [CategoryEntry(i, name) for i, name in enumerate(names, 1)], boxes)


class Exp(YOLOXStarExp):
    num_classes = 4
    train_ann, val_ann, train_images, val_images = "train.csv", "val.csv", None, None

    def get_formats(self):
        own = Reader(lambda path: path.suffix == ".csv", lambda path, _: path, read, lambda path: [path])
        return {"csv": own} | FORMATS
"""


def write_csv(source: Path, target: Path, folder: str) -> None:
    """A glyph json as rows, images as `folder`/name."""
    content = json.loads(source.read_text())
    names = {c["id"]: c["name"] for c in content["categories"]}
    images = {i["id"]: i for i in content["images"]}
    with target.open("w", newline="") as file:
        for box in content["annotations"]:
            image, (x, y, w, h) = images[box["image_id"]], box["bbox"]
            name = f"{folder}/{image['id']:012d}.jpg"
            csv.writer(file).writerow(
                [name, image["width"], image["height"], names[box["category_id"]], x, y, x + w, y + h]
            )


@pytest.mark.usefixtures("without_report")
def test_stranger__an_annotation_format_of_ten_lines(tmp_path, tmp_path_factory, capsys):
    glyphs, data = tiny_data(tmp_path_factory), tmp_path / "data"
    data.mkdir()
    for split in ("train", "val"):
        shutil.copytree(glyphs / f"{split}2017", data / f"{split}2017")
        write_csv(glyphs / f"annotations/glyphs_{split}.json", data / f"{split}.csv", f"{split}2017")
    file = tmp_path / "csv_exp.py"
    file.write_text(EXP)
    walk(file, tmp_path, data, [])  # a checkpoint does not need the format
    capsys.readouterr()
    run("inspect", "-f", file, "--pictures", 0, "data_dir", data, "output_dir", tmp_path)
    assert "296 of 296 images used" in capsys.readouterr().out
