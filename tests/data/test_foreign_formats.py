"""Exports of annotation tools: read with the boxes worked by hand, or named as what they are."""

from __future__ import annotations

import json

import pytest

from tests.data.own_data import write_image
from yolox_lt.data.annotations.index import AnnotationIndex
from yolox_lt.data.annotations.source import Source
from yolox_lt.errors import UserError

CVAT = """<?xml version="1.0" encoding="utf-8"?>
<annotations><version>1.1</version>
<meta><task><labels><label><name>red</name></label><label><name>green</name></label></labels></task></meta>
<image id="0" name="a.jpg" width="40" height="20">
<box label="green" xtl="1" ytl="2" xbr="11" ybr="8"/>
<polygon label="red" points="4,5;14,5;9,15"/>
<ellipse label="red" cx="20" cy="10" rx="4" ry="2" rotation="90"/>
<box label="red" xtl="10" ytl="8" xbr="20" ybr="12" rotation="90"/>
<points label="red" points="1,1"/>
</image>
<image id="1" name="b.jpg" width="40" height="20"/>
</annotations>
"""


def load(path, *names, split="val"):
    return AnnotationIndex.load(Source((str(path),), "auto", split, names), cache=False)


def boxes(index):
    return [[round(v, 6) for v in box] for box in index.boxes.tolist()]


def test_cvat__boxes_around_every_shape(tmp_path):
    for name in "ab":
        write_image(tmp_path / f"images/{name}.jpg", 40, 20)
    (tmp_path / "annotations.xml").write_text(CVAT)
    for place in (tmp_path, tmp_path / "annotations.xml"):
        index = load(place)
        # A turned box of 10 x 4 about (15, 10), an ellipse of radii 4, 2 turned by a right angle.
        assert boxes(index) == [[1, 2, 10, 6], [4, 5, 10, 10], [18, 6, 4, 8], [13, 5, 4, 10]]
        assert (index.category_names, index.labels.tolist()) == (("red", "green"), [1, 0, 0, 0])
        assert [index.file_name(i) for i in range(2)] == ["images/a.jpg", "images/b.jpg"]
    assert index.notes == ("annotations.xml: 1 elements <points> are not read",)
    (tmp_path / "annotations.xml").write_text(CVAT.replace("<image", "<track/><image", 1))
    with pytest.raises(UserError, match="CVAT for video"):
        load(tmp_path)


def test_labelme__boxes_around_every_shape(tmp_path):
    shapes = [
        ("bee", "rectangle", [[11, 8], [1, 2]], None),  # drawn from its lower right corner
        ("ant", "polygon", [[4, 5], [14, 5], [9, 15]], None),
        ("ant", "circle", [[20, 10], [23, 14]], None),  # radius 5
        ("ant", "polygon", [[0, 0], [2, 0], [2, 2]], 7),  # two parts of one object
        ("ant", "polygon", [[6, 3], [8, 3], [8, 4]], 7),
        ("ant", "point", [[1, 1]], None),
    ]
    told = [{"label": n, "shape_type": t, "points": p, "group_id": g} for n, t, p, g in shapes]
    content = {"version": "5.0.1", "shapes": told, "imagePath": "a.jpg", "imageData": None}
    write_image(tmp_path / "a.jpg", 40, 20)
    (tmp_path / "a.json").write_text(json.dumps(content))  # its size is the image header's
    index = load(tmp_path)
    assert boxes(index) == [[1, 2, 10, 6], [4, 5, 10, 10], [15, 5, 10, 10], [0, 0, 8, 4]]
    assert (index.category_names, index.labels.tolist()) == (("ant", "bee"), [1, 0, 0, 0])
    assert index.sizes.tolist() == [[20, 40]]
    assert len(index.notes) == 1
    assert "1 shapes of type point are not read" in index.notes[0]


@pytest.mark.parametrize("names", ["obj.names", "classes.txt"])
def test_darknet__names_beside_the_labels(names, tmp_path):
    write_image(tmp_path / "obj_train_data/0.jpg", 40, 20)
    (tmp_path / "obj_train_data/0.txt").write_text("1 0.5 0.5 0.25 0.5\n")
    (tmp_path / names).write_text("red\ngreen\n")
    (tmp_path / "train.txt").write_text("data/obj_train_data/0.jpg\n")
    places = [tmp_path / "train.txt"]
    if names == "obj.names":
        (tmp_path / "obj.data").write_text("classes = 2\ntrain = data/train.txt\nnames = data/obj.names\n")
        places += [tmp_path, tmp_path / "obj.data"]
    for place in places:
        index = load(place, split="train")
        assert (index.category_names, index.labels.tolist(), boxes(index)) == (("red", "green"), [1], [[15, 5, 10, 10]])


def test_yaml__all_splits_and_names_as_written(tmp_path):
    for split, count in (("train", 2), ("val", 1)):
        for i in range(count):
            write_image(tmp_path / f"images/{split}/{i}.jpg", 40, 20)
            (tmp_path / f"labels/{split}").mkdir(parents=True, exist_ok=True)
            (tmp_path / f"labels/{split}/{i}.txt").write_text("0 0.5 0.5 0.25 0.5\n")
    text = "train: images/train\nval: images/val\nnames: [no, 1.10]\n"
    (tmp_path / "data.yaml").write_text(text)
    index = load(tmp_path / "data.yaml", split="all")
    assert (len(index), index.category_names) == (3, ("no", "1.10"))
    assert len(load(tmp_path / "data.yaml", split="train")) == 2


def test_labels__of_two_images_are_refused(tmp_path):
    write_image(tmp_path / "a.jpg", 40, 20)
    write_image(tmp_path / "a.png", 40, 20)
    (tmp_path / "a.txt").write_text("0 0.5 0.5 0.25 0.5\n")
    with pytest.raises(UserError, match=r"a\.txt: is the label file of two images, a\.jpg and a\.png"):
        load(tmp_path, "red")


@pytest.mark.parametrize(
    ("name", "content", "what"),
    [
        ("via.json", {"_via_img_metadata": {}}, "VGG Image Annotator"),
        ("ls.json", [{"annotations": [{"result": [{"from_name": "a", "to_name": "b"}]}]}], "Label Studio"),
        ("results.json", [{"image_id": 1, "category_id": 1, "bbox": [0, 0, 1, 1], "score": 0.5}], "a results file"),
    ],
)
def test_foreign__is_named(name, content, what, tmp_path):
    (tmp_path / name).write_text(json.dumps(content))
    with pytest.raises(UserError, match=rf"{name}: is {what}.*export"):
        load(tmp_path / name)
