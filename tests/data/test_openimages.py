"""Open Images files -> index: equal to a plain reading, both layouts, every file that cannot be converted."""

from __future__ import annotations

import csv
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

import yolox_lt.data.annotations.csv_batches as csv_batches
from tests.openimages_files import (
    CHALLENGE,
    FOREIGN,
    V4,
    box_row,
    label_row,
    mids,
    write_lists,
    write_rows,
    write_split,
)
from yolox_lt.data.annotations.index import AnnotationIndex, write_packed
from yolox_lt.data.annotations.index_cache import cache_path
from yolox_lt.data.annotations.openimages_csv import openimages_columns
from yolox_lt.errors import UserError

Rows = list[dict[str, str]]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_lists(tmp_path)
    return tmp_path


def convert(folder: Path, name: str = "train", labels: bool = True, sizes: bool = False) -> AnnotationIndex:
    columns = openimages_columns(
        folder / f"{name}_boxes.csv",
        folder / f"{name}_labels.csv" if labels else None,
        folder / "classes.csv",
        folder / "hierarchy.json",
        folder / name,
        folder / "sizes.csv" if sizes else None,
    )
    write_packed(folder / f"{name}.index", columns)
    return AnnotationIndex.load(folder / f"{name}.index")


def plain(folder: Path, name: str, boxes: Rows, labels: Rows | None) -> AnnotationIndex:
    """The same annotations by way of COCO's layout."""
    with (folder / "classes.csv").open(newline="") as file:
        classes = list(csv.reader(file))
    number = {mid: c for c, (mid, _) in enumerate(classes, 1)}
    parents = {2: [1], 3: [2, 4], 6: [5]}
    names = sorted({row["ImageID"] for row in [*boxes, *(labels or [])]})
    images: list[dict[str, Any]] = []
    for k, image in enumerate(names, 1):
        height, width = cv2.imread(f"{folder}/{name}/{image}.jpg").shape[:2]
        images.append({"id": k, "file_name": f"{name}/{image}.jpg", "height": height, "width": width})
        if labels is not None:
            for key, value in (("neg_category_ids", "0"), ("pos_category_ids", "1")):
                fits = [row for row in labels if row["ImageID"] == image and row["Confidence"] == value]
                images[-1][key] = sorted({number[row["LabelName"]] for row in fits})
            images[-1]["not_exhaustive_category_ids"] = []
    annotations = []
    for k, row in enumerate(boxes, 1):
        image = images[names.index(row["ImageID"])]
        x1, x2, y1, y2 = (float(row[edge]) for edge in ("XMin", "XMax", "YMin", "YMax"))
        box = [x1 * image["width"], y1 * image["height"], (x2 - x1) * image["width"], (y2 - y1) * image["height"]]
        entry = {"id": k, "image_id": image["id"], "category_id": number[row["LabelName"]], "bbox": box}
        annotations.append({**entry, "is_group_of": int(row["IsGroupOf"] == "1")})
    categories = [
        {"id": number[mid], "name": name, "freebase_id": mid, "parent_ids": parents.get(number[mid], [])}
        for mid, name in classes
    ]
    return AnnotationIndex.load({"images": images, "annotations": annotations, "categories": categories})


def assert_same(a: AnnotationIndex, b: AnnotationIndex) -> None:
    assert [a.file_name(i) for i in range(len(a))] == [b.file_name(i) for i in range(len(b))]
    for name, value in vars(a).items():
        if isinstance(value, np.ndarray):
            assert value.dtype == getattr(b, name).dtype, name
            np.testing.assert_array_equal(value, getattr(b, name), err_msg=name)
        elif name not in ("path", "source", "_cache_key", "_columns", "notes"):  # notes are of json files
            assert value == getattr(b, name), name


@pytest.mark.parametrize("header", [CHALLENGE, V4])
@pytest.mark.parametrize("labels", [True, False])
def test_convert__equals_a_plain_reading(folder, monkeypatch, header, labels):
    monkeypatch.setattr(csv_batches, "BLOCK", 1000)  # images continue over the end of a piece
    boxes, verified = write_split(folder, "train", header, 0)
    index = convert(folder, labels=labels)
    assert_same(index, plain(folder, "train", boxes, verified if labels else None))
    assert (len(index), index.federated, index.open_images) == (8 if labels else 7, labels, True)
    assert index.category_names[0] == index.category_names[450] == "Bench"  # told apart by MID
    assert index.category_keys[0] != index.category_keys[450]
    assert 0 < index.problems["group-of"] < len(boxes)
    assert not (index.usable & index.group_of).any()
    assert index.not_exhaustive_labels.size == 0


def test_convert__rows_in_any_order(folder):
    boxes, labels = write_split(folder, "train", CHALLENGE, 1)
    order = np.random.default_rng(0).permutation(len(boxes))
    boxes = [boxes[k] for k in order]
    write_rows(folder / "train_boxes.csv", CHALLENGE, boxes)
    write_rows(folder / "train_labels.csv", list(labels[0]), labels[::-1])
    assert_same(convert(folder), plain(folder, "train", boxes, labels))


def test_convert__other_categories_are_left_out(folder):
    boxes, labels = write_split(folder, "train", V4, 2)
    foreign = [box_row(V4, row["ImageID"], FOREIGN, 0, 1, 0, 1) for row in boxes]
    mixed = [row for pair in zip(foreign, boxes) for row in pair]
    write_rows(folder / "train_boxes.csv", V4, mixed)
    write_rows(folder / "train_labels.csv", list(labels[0]), [*labels, label_row(labels[0]["ImageID"], FOREIGN, 1)])
    assert_same(convert(folder), plain(folder, "train", boxes, labels))


def test_convert__mids_that_begin_alike(folder):
    """Of up to 16 bytes: longer than one word, and one being the beginning of another."""
    names = ["/m/01", "/m/012345", "/m/0123456", "/m/01234567", "/m/0123456789ab", "/m/0123456789abc"]
    (folder / "classes.csv").write_text("".join(f"{name},{name}\n" for name in names))
    (folder / "hierarchy.json").write_text(json.dumps({"LabelName": "/m/0", "Subcategory": [{"LabelName": names[0]}]}))
    (folder / "train").mkdir()
    cv2.imwrite(str(folder / "train/a.jpg"), np.zeros((4, 4, 3), np.uint8))
    rows = [box_row(CHALLENGE, "a", name, 0, 1, 0, 1) for name in [*names[::-1], *names, "/m/0123456789abd", "/m/0"]]
    write_rows(folder / "train_boxes.csv", CHALLENGE, rows)
    assert convert(folder, labels=False).labels.tolist() == [5, 4, 3, 2, 1, 0, 0, 1, 2, 3, 4, 5]


def test_convert__image_ids_of_any_length(folder):
    boxes, labels = write_split(folder, "train", CHALLENGE, 3, num_images=4)
    ids = sorted({row["ImageID"] for row in labels})
    renamed = dict(zip(ids, ["b", "a_very_long_image_id_of_31_bytes", "0", "abcdefgh"]))
    for old, new in renamed.items():
        (folder / f"train/{old}.jpg").rename(folder / f"train/{new}.jpg")
    for name, rows in (("boxes", boxes), ("labels", labels)):
        rows[:] = [{**row, "ImageID": renamed[row["ImageID"]]} for row in rows]
        write_rows(folder / f"train_{name}.csv", list(rows[0]), rows)
    assert_same(convert(folder), plain(folder, "train", boxes, labels))


def test_convert__sizes_from_a_file(folder):
    write_split(folder, "train", CHALLENGE, 4)
    expected = convert(folder)
    names = [Path(expected.file_name(i)).stem for i in range(len(expected))]
    rows = [{"ImageID": "other", "Width": "0.5e1", "Height": "7"}]
    for name, (height, width) in zip(names, expected.sizes.tolist()):
        rows.append({"ImageID": name, "Width": str(width), "Height": str(height)})
    write_rows(folder / "sizes.csv", ["ImageID", "Height", "Width"], rows)
    for path in (folder / "train").iterdir():
        path.unlink()
    assert_same(convert(folder, sizes=True), expected)
    write_rows(folder / "sizes.csv", ["ImageID", "Height", "Width"], rows[:-2])
    message = rf"sizes\.csv: has no size of image {names[-2]} and 1 others; add them, or leave the file away"
    with pytest.raises(UserError, match=message):
        convert(folder, sizes=True)
    write_rows(folder / "sizes.csv", ["ImageID", "Height", "Width"], [{**rows[0], "Width": "0"}])
    with pytest.raises(UserError, match=r"sizes\.csv: line 2: Width and Height must be at least 1; correct the line"):
        convert(folder, sizes=True)


def test_index__a_packed_file_travels_by_path_and_is_checked(folder):
    write_split(folder, "train", CHALLENGE, 5)
    index = convert(folder)
    sent = pickle.dumps(index)
    assert len(sent) < 1500  # with the names of the formats' functions
    assert_same(pickle.loads(sent), index)
    assert not cache_path(folder / "train.index").exists()  # there is nothing to cache
    content = (folder / "train.index").read_bytes()
    (folder / "cut.index").write_bytes(content[:-100])
    with pytest.raises(
        UserError, match=r"cut\.index: is not complete, of another version, or the cache of another file"
    ):
        AnnotationIndex.load(folder / "cut.index")
    (folder / "a.json").write_text(
        json.dumps({"images": [{"id": 1, "width": 1, "height": 1}], "categories": [{"id": 1}]})
    )
    AnnotationIndex.load(folder / "a.json")
    with pytest.raises(UserError, match=r"a\.json\.index: .* give the file that it was made from"):
        AnnotationIndex.load(folder / "a.json.index")


def change(file: str, edit: Callable[[str], str]) -> Callable[[Path], None]:
    return lambda folder: (folder / file).write_text(edit((folder / file).read_text()))  # type: ignore[func-returns-value]


def last_line(file: str, text: str) -> Callable[[Path], None]:
    return change(file, lambda content: content + text + "\n")


BOX = "abc," + mids()[0]
BAD_FILES = {
    "boxes without a column": (
        change("train_boxes.csv", lambda text: text.replace("XMax", "Right")),
        r"train_boxes\.csv: line 1: has no column XMax \(found: ImageID, LabelName, XMin, Right",
    ),
    "a short line": (last_line("train_boxes.csv", BOX), r"train_boxes\.csv: line 44: has 2 fields where .* has 7"),
    "no number": (
        last_line("train_boxes.csv", f"{BOX},0.1,left,0.1,0.2,0"),
        r"train_boxes\.csv: line 44: XMax is 'left', which is no number; correct the line",
    ),
    "an empty field": (
        last_line("train_boxes.csv", f"{BOX},,0.2,0.1,0.2,0"),
        r"train_boxes\.csv: line 44: XMin is '', which is no number; correct the line",
    ),
    "a number that is not available": (
        last_line("train_boxes.csv", f"{BOX},NA,0.2,0.1,0.2,0"),
        r"train_boxes\.csv: line 44: XMin is 'NA', which is no number; correct the line",
    ),
    "a label without confidence": (
        last_line("train_labels.csv", f"abc,machine,{mids()[0]},"),
        r"train_labels\.csv: line 66: Confidence is '', which is no number; correct the line",
    ),
    "pixels below blank lines": (
        change("train_boxes.csv", lambda text: text.replace("\n", "\n\n", 3).rstrip() + f"\n\n{BOX},0.1,0.2,0.1,431,0"),
        r"train_boxes\.csv: line 48: YMax 431 is not in \[0, 1\]",
    ),
    "pixels": (
        last_line("train_boxes.csv", f"{BOX},0.1,0.2,0.1,431,0"),
        r"train_boxes\.csv: line 44: YMax 431 is not in \[0, 1\]; give coordinates as fractions",
    ),
    "categories of another set": (
        change("train_boxes.csv", lambda text: text.replace("/m/", "/x/")),
        r"train_boxes\.csv: has no box of the 500 categories of the class list; give files of one set",
    ),
    "no rows": (
        lambda folder: [change(f"train_{n}.csv", lambda t: t.split("\n")[0])(folder) for n in ("boxes", "labels")],
        r"train_boxes\.csv: has no rows; nothing can be trained or evaluated with it",
    ),
    "labels of a machine": (
        last_line("train_labels.csv", f"abc,machine,{mids()[0]},0.7"),
        r"train_labels\.csv: line 66: Confidence 0\.7 is neither 0 nor 1; give the labels verified by people",
    ),
    "labels without Confidence": (
        change("train_labels.csv", lambda text: text.replace("Confidence", "x")),
        r"train_labels\.csv: line 1: has no column Confidence",
    ),
    "a category twice": (
        last_line("classes.csv", f"{mids()[7]},Again"),
        rf"classes\.csv: line 501: {mids()[7]} was listed before; remove one of the two lines",
    ),
    "a class list with a header": (
        change("classes.csv", lambda text: "LabelName,DisplayName\n" + text),
        r"classes\.csv: line 1: 'LabelName,DisplayName' is not MID,name; give the class list",
    ),
    "an empty class list": (change("classes.csv", lambda _: ""), r"classes\.csv: lists no categories"),
    "no json": (change("hierarchy.json", lambda t: t[:50]), r"hierarchy\.json: not a hierarchy .*JSONDecodeError"),
    "another json": (change("hierarchy.json", lambda _: '{"a": 1}'), r"hierarchy\.json: not a hierarchy .*KeyError"),
    "another tree": (
        change("hierarchy.json", lambda text: text.replace("/m/", "/x/")),
        r"hierarchy\.json: names none of the 500 categories of the class list; give the files of one set",
    ),
    "a circle": (
        change("hierarchy.json", lambda text: text.replace(mids()[6], mids()[0]).replace(mids()[2], mids()[0])),
        r"hierarchy\.json: category 'Bench' is its own ancestor; a hierarchy must not have circles",
    ),
    "a missing image": (
        last_line("train_boxes.csv", f"{BOX},0.1,0.2,0.1,0.4,0"),
        r"train/abc\.jpg: image file not found; complete the folder, or leave its rows out",
    ),
    "no class list": (lambda folder: (folder / "classes.csv").unlink(), r"classes\.csv: no such file; check the path"),
    "no hierarchy": (lambda folder: (folder / "hierarchy.json").unlink(), r"hierarchy\.json: no such file"),
    "no boxes": (lambda folder: (folder / "train_boxes.csv").unlink(), r"train_boxes\.csv: no such file"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_convert__bad_files_are_named_with_the_remedy(folder, name):
    write_split(folder, "train", CHALLENGE, 6)
    spoil, message = BAD_FILES[name]
    spoil(folder)
    with pytest.raises(UserError, match=message):
        convert(folder)
    assert not (folder / "train.index").exists()
