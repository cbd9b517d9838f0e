"""YOLO sets: where labels and images are found, what a data.yaml may say, bad files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.data.own_data import write_image
from yolox_lt.data.annotations.index import AnnotationIndex
from yolox_lt.data.annotations.source import Source
from yolox_lt.data.annotations.yolo import label_path
from yolox_lt.errors import UserError


def load(path: Path, split: str = "val", *names: str) -> AnnotationIndex:
    return AnnotationIndex.load(Source((str(path),), "yolo", split, names), cache=False)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """images/val/{a,b,c}.jpg of 40 x 20 pixels: an object, an empty label file, no label file."""
    for name in ("a", "b", "c"):
        write_image(tmp_path / f"images/val/{name}.jpg", 40, 20)
    (tmp_path / "labels/val").mkdir(parents=True)
    (tmp_path / "labels/val/a.txt").write_text("1 0.5 0.5 0.25 0.5\n")
    (tmp_path / "labels/val/b.txt").write_text("\n")
    (tmp_path / "data.yaml").write_text("val: images/val\nnames: [ant, bee]\n")
    return tmp_path


def test_boxes__fractions_of_the_image(folder) -> None:
    index = load(folder / "data.yaml")
    assert index.boxes.tolist() == [[15, 5, 10, 10]]
    assert index.sizes.tolist() == [[20, 40]] * 3
    assert index.box_offsets.tolist() == [0, 1, 1, 1]
    assert index.labels.tolist() == [1]
    assert (index.category_ids.tolist(), index.category_names) == ([1, 2], ("ant", "bee"))
    assert [index.file_name(i) for i in range(3)] == [f"images/val/{name}.jpg" for name in "abc"]
    assert load(folder).boxes.tolist() == index.boxes.tolist()  # the folder of the data.yaml


@pytest.mark.parametrize(
    ("image", "labels"),
    [
        ("a/images/b/c.jpg", "a/labels/b/c.txt"),
        ("images/x/images/c.d.png", "images/x/labels/c.d.txt"),
        ("a/pictures/c.jpg", "a/pictures/c.txt"),
        ("a/images.jpg", "a/images.txt"),
    ],
)
def test_label_path__last_folder_called_images(image, labels) -> None:
    assert label_path(Path(image)) == Path(labels)


@pytest.mark.parametrize(
    "text",
    [
        "path: .\nval: images/val\nnames: {0: ant, 1: bee}\nnc: 2\n",
        "val: [images/val]\nnames: [ant, bee]\n",
        "val: val.txt\nnames: [ant, bee]\n",
        "val: ../images/val\nnames: [ant, bee]\n",  # as Roboflow writes it
        "path: images\nval: val\nnames:\n- ant\n- bee\n",
    ],
)
def test_yaml__ways_to_say_the_same(folder, text) -> None:
    (folder / "val.txt").write_text("./images/val/c.jpg\nimages/val/a.jpg\n\nimages/val/b.jpg\n")
    (folder / "data.yaml").write_text(text)
    index = load(folder / "data.yaml")
    assert (len(index), index.category_names, index.boxes.tolist()) == (3, ("ant", "bee"), [[15, 5, 10, 10]])


def test_names__without_a_yaml(folder) -> None:
    assert load(folder / "images/val", "val", "ant", "bee").labels.tolist() == [1]
    listing = folder / "val.txt"
    listing.write_text("images/val/a.jpg\n")
    assert load(listing, "val", "ant", "bee").file_name(0) == "images/val/a.jpg"
    with pytest.raises(UserError, match=r"val: holds 0 yaml files and no classes\.txt; give the data\.yaml"):
        load(folder / "images/val")
    with pytest.raises(UserError, match=r"val\.txt: text labels have no names, .*--classes"):
        load(listing)


def test_names__gaps_between_numbers_stay(folder) -> None:
    (folder / "data.yaml").write_text("val: images/val\nnames: {1: bee, 4: eel}\n")
    index = load(folder / "data.yaml")
    assert (index.category_ids.tolist(), index.labels.tolist()) == ([2, 5], [0])


def test_splits__of_one_file(folder) -> None:
    write_image(folder / "images/test/d.jpg", 20, 20)
    (folder / "labels/test").mkdir()
    (folder / "labels/test/d.txt").write_text("0 .5 .5 1 1\n")
    (folder / "data.yaml").write_text("val: images/val\ntest: images/test\nnames: [ant, bee]\n")
    named = AnnotationIndex.load(f"{folder / 'data.yaml'}:test", cache=False)
    assert named.boxes.tolist() == load(folder / "data.yaml", "test").boxes.tolist() == [[0, 0, 20, 20]]


def test_notes__orphans_are_told_by_every_reading_and_turned_images_have_their_shown_size(folder) -> None:
    (folder / "labels/val/z.txt").write_text("0 .5 .5 .1 .1\n")
    image = Image.fromarray(np.full((20, 40, 3), 80, np.uint8))
    exif = image.getexif()
    exif[274] = 6
    image.save(folder / "images/val/c.jpg", exif=exif)
    for _ in range(2):  # the second time from the cache
        index = AnnotationIndex.load(Source((str(folder / "data.yaml"),), "yolo", "val"))
        assert index.sizes.tolist() == [[20, 40], [20, 40], [40, 20]]
        assert index.notes == ("labels/val/z.txt: 1 files with labels have no image; they are not read",)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1 .5 .5 .1 .1\n0 .5 .5 .1\n", r"a\.txt, line 2: has 4 columns instead of 5; write: class x y width height"),
        ("0 .5 .5 .1 .1 .9\n", r"a\.txt, line 1: has 6 columns"),
        ("0 .1 .1 .2 .1 .2 .2 .9\n", r"a\.txt, line 1: has 8 columns instead of 5; write: class x y width height"),
        ("cup .5 .5 .1 .1\n", r"a\.txt, line 1: 'cup \.5 \.5 \.1 \.1' are not five numbers"),
        ("\n2 .5 .5 .1 .1\n", r"a\.txt, line 2: class 2 is not among the 2 names \(from 0\); add its name"),
        ("-1 .5 .5 .1 .1\n", r"class -1 is not among"),
        ("0.5 .5 .5 .1 .1\n", r"class 0\.5 is not among"),
        ("nan .5 .5 .1 .1\n", r"class nan is not among"),
        ("0 .5 .5 -.1 .1\n", r"a\.txt, line 1: width -0\.1 and height 0\.1; sizes must not be negative"),
        ("0 20 10 5 5\n", r"a\.txt, line 1: 20 10 5 5 are no fractions of the image; divide pixels by its width"),
        ("0 nan .5 .1 .1\n", r"a\.txt, line 1: nan .* are no fractions"),
    ],
)
def test_bad_row__is_named(folder, text, message) -> None:
    (folder / "labels/val/a.txt").write_text(text)
    with pytest.raises(UserError, match=message):
        load(folder / "data.yaml")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("val: [images/val\nnames: [ant]\n", r"data\.yaml, line \d: not a yaml file \(.*\); correct it"),
        ("just words\n", r"data\.yaml: holds no keys; it needs train, val and names"),
        ("train: images/val\nnames: [ant]\n", r"data\.yaml: has no 'val', only train; add the key"),
        ("val: images/val\n", r"data\.yaml: names is None; list the names"),
        ("val: images/val\nnames: {a: ant}\n", r"data\.yaml: names has the class 'a'; classes are numbers from 0"),
        ("val: images/val\nnc: 3\nnames: [ant, bee]\n", r"data\.yaml: nc is 3 but names has 2 entries; correct one"),
        (
            "val: pictures\nnames: [ant]\n",
            r"data\.yaml: val is 'pictures', but there is no .*pictures; correct path or val",
        ),
        ("val: labels\nnames: [ant]\n", r"labels: holds no images; put them there, or correct the path"),
        ("val: v.txt\nnames: [ant]\n", r"v\.txt, line 2: there is no image .*q\.jpg; remove the line or add the file"),
        ("val: empty.txt\nnames: [ant]\n", r"empty\.txt: lists no images"),
    ],
)
def test_bad_yaml__is_named(folder, text, message) -> None:
    (folder / "v.txt").write_text("images/val/a.jpg\nimages/val/q.jpg\n")
    (folder / "empty.txt").write_text("\n")
    (folder / "data.yaml").write_text(text)
    with pytest.raises(UserError, match=message):
        load(folder / "data.yaml")


def test_bad_image_and_missing_labels__are_named(folder) -> None:
    (folder / "images/val/b.jpg").write_text("no image")
    with pytest.raises(UserError, match=r"b\.jpg: not a readable image; repair it, or take it out of the data set"):
        load(folder / "data.yaml")
    write_image(folder / "images/val/b.jpg", 40, 20)
    (folder / "labels/val/a.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match=r"a\.txt: not a text file"):
        load(folder / "data.yaml")
    for path in (folder / "labels/val").iterdir():
        path.unlink()
    with pytest.raises(
        UserError, match=r"labels/val/[abc]\.txt: none of the 3 images has a file with labels; put them"
    ):
        load(folder / "data.yaml")
