"""Boxes that cannot be meant: fractions are refused, boxes below a pixel and corners are said each time."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest

from tests.cases.test_cases import failure
from yolox_lt.commands import main
from yolox_lt.data.annotations.index import AnnotationIndex
from yolox_lt.data.annotations.meant import unmeant
from yolox_lt.errors import UserError

SIZE = np.array([[50, 100]])  # height, width
VOC = """<annotation><size><width>100</width><height>50</height></size><object><name>a</name><bndbox><xmin>0.1</xmin>
<ymin>0.25</ymin><xmax>0.5</xmax><ymax>1</ymax></bndbox></object></annotation>"""
EXP = """from yolox_lt.exp import YOLOXStarExp


class Exp(YOLOXStarExp):
    def __init__(self):
        super().__init__()
        self.data_dir = {folder!r}
        self.train_ann = self.val_ann = "boxes.json"
        self.train_images = self.val_images = None
        self.num_classes = 1
"""


def file_of(boxes):
    """COCO's content with these boxes on one image of 100 x 50."""
    return {
        "images": [{"id": 1, "width": 100, "height": 50, "file_name": "a.png"}],
        "categories": [{"id": 1, "name": "a"}],
        "annotations": [
            {"id": i, "image_id": 1, "category_id": 1, "bbox": list(map(float, box))} for i, box in enumerate(boxes, 1)
        ],
    }


@pytest.mark.parametrize("boxes", [[(0.1, 0.2, 0.3, 0.4)], [(0, 0, 1, 1), (0.5, 0.5, 0.5, 0.25)]])
def test_fractions__are_refused(boxes):
    with pytest.raises(UserError, match=rf"all {len(boxes)} boxes lie between 0 and 1, so they are fractions"):
        AnnotationIndex.load(file_of(boxes))


@pytest.mark.parametrize("boxes", [[(0, 0, 1, 1)], [(0.1, 0.2, 0.3, 0.4), (5, 5, 9, 9)], []])
def test_fractions__a_corner_pixel_and_a_small_box_among_others_are_none(boxes):
    assert len(AnnotationIndex.load(file_of(boxes)).boxes) == len(boxes)


def test_fractions__of_voc_are_refused(tmp_path):
    """Its corners count from 1, so that they are no fractions any more where boxes count from 0."""
    (tmp_path / "a.xml").write_text(VOC)
    with pytest.raises(UserError, match=r"all 1 boxes lie between 0 and 1, so they are fractions"):
        AnnotationIndex.load(tmp_path)


def test_unmeant__by_hand():
    good = [(10, 10, 20, 20)] * 9
    thin = unmeant(np.array([*good, (3, 3, 0.5, 9), (3, 3, 9, 0.5)]), np.repeat(SIZE, 11, 0), "f")
    assert thin == [
        "f: 2 of 11 boxes are less than a pixel wide or high, which cannot be meant; look whether their numbers are "
        "pixels of these images"
    ]
    assert unmeant(np.array([*good, (3, 3, 0.5, 9)]), np.repeat(SIZE, 10, 0), "f") == []  # a tenth
    corners = np.array([(10, 10, 20, 20), (60, 10, 90, 40), (50, 5, 100, 50)], float)
    assert "2 of 3 boxes leave their image" in unmeant(corners, np.repeat(SIZE, 3, 0), "f")[0]
    corners[0, 2] = 9  # no corner right of 10
    assert unmeant(corners, np.repeat(SIZE, 3, 0), "f") == []


def test_unmeant__is_told_each_time_and_strict_fails(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "boxes.json").write_text(json.dumps(file_of([(10, 10, 0.5, 0.25), (30, 20, 0.3, 20)])))
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((50, 100, 3), np.uint8))
    (tmp_path / "exp.py").write_text(EXP.format(folder=str(tmp_path)))
    said = "boxes.json: 2 of 2 boxes are less than a pixel wide or high"
    for _ in range(2):  # the second time from the index beside the file
        with pytest.raises(SystemExit) as end:
            main(["inspect", "-f", "exp.py", "--pictures", "0", "--strict"])
        assert end.value.code == 1
        out = capsys.readouterr().out
        assert f"error  train 1 {said}" in out
        assert f"error  val   1 {said}" in out


def test_fractions__name_the_file(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "boxes.json").write_text(json.dumps(file_of([(0.1, 0.2, 0.3, 0.4)])))
    (tmp_path / "exp.py").write_text(EXP.format(folder=str(tmp_path)))
    assert "boxes.json: all 1 boxes lie between 0 and 1" in failure(capsys, "inspect", "-f", "exp.py")
