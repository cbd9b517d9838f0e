"""VOC folders: convention of the corners, names, places of images, bad files."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.data.own_data import voc_object, voc_xml, write_image
from yolox_lt.data.annotations.index import AnnotationIndex
from yolox_lt.data.annotations.source import Source
from yolox_lt.errors import UserError
from yolox_lt.evaluate import evaluate_coco


def load(folder: Path, *names: str) -> AnnotationIndex:
    return AnnotationIndex.load(Source((str(folder),), class_names=names), cache=False)


def test_corners__count_from_1_and_belong_to_the_box(tmp_path) -> None:
    corners = "<bndbox><xmin>1</xmin><ymin>11</ymin><xmax>10</xmax><ymax>20.5</ymax></bndbox>"
    (tmp_path / "a.xml").write_text(voc_xml("a.jpg", 30, 20, f"<object><name>cup</name>{corners}</object>"))
    index = load(tmp_path)
    assert index.boxes.tolist() == [[0, 10, 10, 10.5]]
    assert index.areas.tolist() == [105]
    assert index.sizes.tolist() == [[20, 30]]
    assert index.boxes_of(0).tolist() == [[0, 10, 10, 20]]  # clipped to the image


def test_names__sorted_over_all_files_or_as_given(tmp_path) -> None:
    """A split without one of the classes still knows all of them."""
    (tmp_path / "Annotations").mkdir()
    for name, things in (("a", ["dog", "ant"]), ("b", ["cat"]), ("c", [])):
        text = voc_xml(f"{name}.jpg", 30, 20, "".join(voc_object(thing, [1, 1, 5, 5]) for thing in things))
        (tmp_path / f"Annotations/{name}.xml").write_text(text)
    (tmp_path / "ImageSets/Main").mkdir(parents=True)
    (tmp_path / "ImageSets/Main/x.txt").write_text("c  1\nb.jpg -1\n\n")
    index = load(tmp_path / "ImageSets/Main/x.txt")
    assert index.category_names == ("ant", "cat", "dog")
    assert index.category_ids.tolist() == [1, 2, 3]
    assert [index.file_name(i) for i in range(2)] == ["Annotations/b.jpg", "Annotations/c.jpg"]
    assert index.labels.tolist() == [1]
    assert index.problems["images without usable boxes"] == 1
    assert load(tmp_path, "dog", "cat", "ant", "eel").labels.tolist() == [0, 2, 1]
    with pytest.raises(UserError, match=r"class_names dog, dog: a name occurs twice"):
        load(tmp_path, "dog", "dog")


def test_images__by_stem_before_the_name_in_the_xml(tmp_path) -> None:
    (tmp_path / "Annotations").mkdir()
    for stem, said in (("a", "b.png"), ("c", "d.png"), ("e", "f.png")):
        (tmp_path / f"Annotations/{stem}.xml").write_text(voc_xml(said, 30, 20))
    for name in ("images/a.PNG", "images/b.png", "images/d.png"):
        write_image(tmp_path / name.lower(), 30, 20)
    (tmp_path / "images/a.png").rename(tmp_path / "images/a.PNG")
    (tmp_path / "Annotations/e.xml").write_text(voc_xml("f.png", 30, 20, voc_object("cup", [0, 0, 3, 3])))
    index = load(tmp_path)
    assert [index.file_name(i) for i in range(3)] == ["images/a.PNG", "images/d.png", "images/f.png"]


def test_difficult__is_trained_on_and_not_scored(tmp_path) -> None:
    things = voc_object("cup", [0, 0, 10, 10]) + voc_object("cup", [15, 5, 10, 10], "<difficult>1</difficult>")
    (tmp_path / "a.xml").write_text(voc_xml("a.jpg", 30, 20, things))
    index = load(tmp_path)
    assert index.ignore.tolist() == [False, True]
    assert index.usable.all()
    found = [
        {"image_id": 1, "category_id": 1, "bbox": [0, 0, 10, 10], "score": 0.5},
        {"image_id": 1, "category_id": 1, "bbox": [15, 5, 10, 10], "score": 0.9},
    ]
    report = evaluate_coco(index, found)
    assert report.metrics["AP"] == pytest.approx(1)
    assert report.box_counts.tolist() == [1]
    assert report.status_names() == ["tp", "ignored"]
    assert evaluate_coco(index, found[:1]).metrics["AR"] == 1  # the difficult one need not be found


def test_empty_boxes__are_counted(tmp_path) -> None:
    things = "".join(voc_object("cup", box) for box in ([5, 5, 0, 4], [5, 5, -3, 4], [40, 5, 3, 3], [1, 1, 3, 3]))
    (tmp_path / "a.xml").write_text(voc_xml("a.jpg", 30, 20, things))
    index = load(tmp_path)
    assert index.usable.tolist() == [False, False, False, True]
    assert (index.problems["zero-size"], index.problems["outside image"]) == (2, 1)


GOOD = voc_xml("a.jpg", 30, 20, voc_object("cup", [0, 0, 10, 10]))
BOMB = '<!DOCTYPE lolz [<!ENTITY a "ha"><!ENTITY b "&a;&a;">]>'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (GOOD.replace("</object>", ""), r"a\.xml, line \d, column \d+: not well-formed xml \(mismatched tag\)"),
        ("", r"a\.xml, line 1, column 1: not well-formed xml \(no element found\)"),
        (BOMB + GOOD.replace("cup", "&b;"), r"a\.xml: has a DOCTYPE, .*; remove it"),
        (GOOD.replace("<width>30</width>", ""), r"a\.jpg: not a readable image"),  # the size is then its header's
        (GOOD.replace("20</height>", "-2</height>"), r"a\.xml: size has width 30 and height -2"),
        (GOOD.replace("<name>cup</name>", ""), r"a\.xml: object 1 has no <name>"),
        (GOOD.replace("<xmin>1</xmin>", ""), r"a\.xml: object 1 \(cup\) has no <bndbox><xmin>"),
        (
            GOOD.replace("<xmin>1</xmin>", "<xmin>left</xmin>"),
            r"object 1 \(cup\) has 'left' as <bndbox><xmin>; write a",
        ),
        (GOOD.replace("<xmin>1</xmin>", "<xmin>nan</xmin>"), r"object 1 \(cup\) has 'nan' as <bndbox><xmin>"),
        (GOOD.replace("cup", "mug"), r"a\.xml: object 1 is a 'mug', which class_names does not list \(cup\); add it"),
    ],
)
def test_bad_file__is_named(text, message, tmp_path) -> None:
    (tmp_path / "a.xml").write_text(text)
    with pytest.raises(UserError, match=message):
        load(tmp_path, "cup")


@pytest.mark.parametrize("text", [GOOD.replace("<width>30</width>", ""), GOOD.replace("30</width>", "0</width>")])
def test_size__that_is_missing_or_0_is_the_image_header_s(text, tmp_path) -> None:
    write_image(tmp_path / "a.jpg", 30, 20)
    (tmp_path / "a.xml").write_text(text)
    index = load(tmp_path, "cup")
    assert (index.sizes.tolist(), index.boxes.tolist()) == ([[20, 30]], [[0, 0, 10, 10]])


def test_bad_encoding__and_utf16_cannot_hide_a_doctype(tmp_path) -> None:
    (tmp_path / "a.xml").write_bytes(('<?xml version="1.0" encoding="utf-16"?>' + BOMB + GOOD).encode("utf-16"))
    with pytest.raises(UserError, match="has a DOCTYPE"):
        load(tmp_path, "cup")
    (tmp_path / "a.xml").write_text('<?xml version="1.0" encoding="klingon"?>' + GOOD)
    with pytest.raises(UserError, match=r"a\.xml.*not (readable as|well-formed) xml"):
        load(tmp_path, "cup")


def test_lists_and_folders__that_are_not_what_they_should_be(tmp_path) -> None:
    (tmp_path / "Annotations").mkdir()
    (tmp_path / "Annotations/a.xml").write_text(GOOD)
    listing = tmp_path / "val.txt"
    listing.write_text("a\nz\n")
    with pytest.raises(UserError, match=r"val\.txt, line 2: there is no .*Annotations/z\.xml; remove the line"):
        load(listing)
    listing.write_text("\n\n")
    with pytest.raises(UserError, match=r"val\.txt: lists no images"):
        load(listing)
    (tmp_path / "Annotations/a.xml").unlink()
    with pytest.raises(UserError, match=r"has no xml files"):
        AnnotationIndex.load(Source((str(tmp_path),), "voc"), cache=False)
