"""AnnotationIndex: columns, usable boxes, problems, refusals. The cache file is tested in test_index_cache."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from yolox_lt.data.annotations.index import AnnotationIndex
from yolox_lt.errors import UserError

GOLDEN = Path(__file__).parents[1] / "golden"


def box(image_id: int, category_id: int, bbox: list[float], **more: Any) -> dict[str, Any]:
    return {"image_id": image_id, "category_id": category_id, "bbox": bbox, **more}


def example() -> dict[str, Any]:
    """Ids in no order, an id 0, gaps between ids, an image without boxes, annotations of images interleaved."""
    return {
        "images": [
            {"id": 9, "width": 101, "height": 51, "file_name": "a/b/nine.jpg"},
            {
                "id": 0,
                "width": 40,
                "height": 30,
                "coco_url": "http://x.org/y/val2017/000.jpg",
                "file_name": "COCO_000.jpg",
            },
            {"id": 4, "width": 10, "height": 20},
        ],
        "categories": [{"id": 8, "name": "zebra"}, {"id": 3, "name": "ant"}, {"id": 5}],
        "annotations": [
            box(9, 8, [90.5, 40, 20, 5], id=0, area=7.5),
            box(0, 3, [1, 2, 3, 4], id=12),
            box(9, 3, [0, 0, 101, 51], id=11, area=4.0),
            box(9, 8, [5, 5, 2.5, 2.5], id=10, area=1.0),
        ],
    }


def test_load__columns() -> None:
    index = AnnotationIndex.load(example())
    assert len(index) == 3
    assert index.image_ids.tolist() == [0, 4, 9]
    assert index.sizes.tolist() == [[30, 40], [20, 10], [51, 101]]
    assert index.box_offsets.tolist() == [0, 1, 1, 4]
    assert index.category_ids.tolist() == [3, 5, 8]
    assert index.category_names == ("ant", "5", "zebra")
    assert index.labels.tolist() == [0, 2, 0, 2]  # file order inside an image
    assert index.boxes.tolist() == [[1, 2, 3, 4], [90.5, 40, 20, 5], [0, 0, 101, 51], [5, 5, 2.5, 2.5]]
    assert index.areas.tolist() == [12, 7.5, 4, 1]  # width * height where the file has no area
    assert index.annotation_ids.tolist() == [12, 0, 11, 10]
    assert index.image_counts.tolist() == [2, 0, 1]
    assert index.instance_counts.tolist() == [2, 0, 2]
    assert not index.federated
    assert index.frequencies is None
    assert index.path is None
    for name in ("image_ids", "sizes", "box_offsets", "labels", "annotation_ids", "image_counts", "instance_counts"):
        assert getattr(index, name).dtype == np.int64, name


def test_load__annotation_ids_missing() -> None:
    content = example()
    for entry in content["annotations"]:
        del entry["id"]
    assert AnnotationIndex.load(content).annotation_ids.tolist() == [2, 1, 3, 4]  # running number in the file


def test_load__index_is_returned() -> None:
    index = AnnotationIndex.load(example())
    assert AnnotationIndex.load(index) is index


def test_load__does_not_change_its_input() -> None:
    content = example()
    AnnotationIndex.load(content)
    assert content == example()


def test_load__federated_lists() -> None:
    content = example()
    content["images"][0] |= {"neg_category_ids": [5, 77], "not_exhaustive_category_ids": [8]}
    content["images"][1] |= {"neg_category_ids": [8, 5, 3], "not_exhaustive_category_ids": []}
    index = AnnotationIndex.load(content)
    assert index.federated
    assert index.negative_offsets.tolist() == [0, 3, 3, 4]
    assert index.negative_labels.tolist() == [2, 1, 0, 1]
    assert index.not_exhaustive_offsets.tolist() == [0, 0, 0, 1]
    assert index.not_exhaustive_labels.tolist() == [2]
    assert index.problems["unknown category in federated lists"] == 1
    assert index.problems["images without federated lists"] == 1
    assert index.problems["negative category with boxes"] == 1  # 3 in image 0
    assert index.problems["non-exhaustive category without boxes"] == 0


def test_load__no_annotations() -> None:
    content = example()
    del content["annotations"]
    index = AnnotationIndex.load(content)
    assert len(index.boxes) == 0
    assert index.boxes.shape == (0, 4)
    assert index.boxes_of(2).shape == (0, 4)
    assert index.image_counts.tolist() == [0, 0, 0]
    assert index.problems["images without usable boxes"] == 3


def test_load__numpy_scalars() -> None:
    content = example()
    content["annotations"][0] |= {"bbox": np.array([90.5, 40, 20, 5]), "area": np.float32(7.5), "image_id": np.int64(9)}
    index = AnnotationIndex.load(content)
    assert index.boxes.tolist() == AnnotationIndex.load(example()).boxes.tolist()


def test_boxes_of__clipped_xyxy() -> None:
    index = AnnotationIndex.load(example())
    boxes = index.boxes_of(2)
    assert boxes.dtype == np.float32
    assert boxes.tolist() == [[90.5, 40, 101, 45], [0, 0, 101, 51], [5, 5, 7.5, 7.5]]
    assert index.labels_of(2).tolist() == [2, 0, 2]
    assert index.labels_of(2).dtype == np.int64
    assert index.categories_of(2).tolist() == [0, 2]


def test_boxes_of__image_without_boxes() -> None:
    index = AnnotationIndex.load(example())
    assert index.boxes_of(1).shape == (0, 4)
    assert index.labels_of(1).tolist() == []
    assert index.categories_of(1).tolist() == []


def test_problems__every_kind() -> None:
    content = example()
    content["annotations"] = [
        box(0, 3, [1, 1, 5, 5], area=25, id=1),
        box(0, 3, [1, 1, 5, 5], area=20, id=1),  # repeats box and id
        box(0, 8, [1, 1, 5, 5], area=25, id=3),  # another category: no repetition
        box(4, 3, [1, 1, 5, 5], area=25, id=4, iscrowd=1),
        box(9, 3, [1, 1, 0, 5], area=25, id=5),
        box(9, 3, [1, 1, 5, -2], area=25, id=6),
        box(9, 3, [101, 1, 5, 5], area=25, id=7),  # begins where the image ends
        box(9, 3, [-5, -5, 5, 5], area=25, id=8),
        box(9, 3, [98, 1, 5, 5], area=25, id=9),
        box(9, 3, [96, 1, 5.3, 5], area=25, id=10),  # within rounding
        box(9, 3, [1, float("nan"), 5, 5], area=25, id=11),
        box(9, 3, [1, 1, float("inf"), 5], area=25, id=12),
        box(9, 5, [1, 1, 5, 5], area=0, id=13, ignore=1),
    ]
    index = AnnotationIndex.load(content)
    usable = [True] * 3 + [False] + [False] * 4 + [True, True, False, False, True]
    assert index.usable.tolist() == usable
    assert index.crowd.tolist() == [False] * 3 + [True] + [False] * 9
    assert index.ignore.tolist() == [False] * 12 + [True]
    assert index.problems == {
        "crowd": 1,
        "ignored": 1,
        "non-finite": 2,
        "zero-size": 2,
        "outside image": 2,
        "clipped": 1,
        "zero area": 1,
        "duplicate annotation": 1,
        "duplicate annotation id": 1,
        "images without usable boxes": 1,
        "group-of": 0,
        "images without federated lists": 0,
        "unknown category in federated lists": 0,
        "negative category with boxes": 0,
        "non-exhaustive category without boxes": 0,
    }
    assert index.instance_counts.tolist() == [4, 1, 1]
    assert index.image_counts.tolist() == [2, 1, 1]
    assert index.boxes_of(2).tolist() == [[98, 1, 101, 6], [96, 1, 101, 6], [1, 1, 6, 6]]


def test_file_name__url_before_name() -> None:
    index = AnnotationIndex.load(example())
    assert index.file_name(0) == "val2017/000.jpg"
    assert index.file_name(2) == "a/b/nine.jpg"
    with pytest.raises(UserError, match="image id 4 has neither coco_url nor file_name"):
        index.file_name(1)


def test_groups__from_file_or_train_counts() -> None:
    content = example()
    index = AnnotationIndex.load(content)
    assert index.groups() is None
    assert index.groups([10, 0, 101]).tolist() == ["r", "r", "f"]
    assert index.groups([11, 100, 101]).tolist() == ["c", "c", "f"]
    with pytest.raises(ValueError, match="train_counts"):
        index.groups([1, 2])
    for category, frequency in zip(content["categories"], "fcr"):
        category["frequency"] = frequency
    index = AnnotationIndex.load(content)
    assert index.groups([500, 500, 500]).tolist() == ["c", "r", "f"]  # ascending ids 3, 5, 8
    assert index.frequencies.tolist() == ["c", "r", "f"]


def test_groups__rule_reproduces_lvis() -> None:
    """The rule by training images gives the published group of all 1203 categories."""
    table = json.loads((GOLDEN / "lvis_v1_categories.json").read_text())["categories"]
    content = example()
    content["categories"] = [{"id": entry["id"], "name": entry["name"]} for entry in table]
    content["annotations"] = []
    groups = AnnotationIndex.load(content).groups([entry["image_count"] for entry in table])
    assert groups.tolist() == [entry["frequency"] for entry in table]


def test_load__lvis_subset_equals_plain_reading() -> None:
    content = json.loads((GOLDEN / "lvis_val_100.json").read_text())
    index = AnnotationIndex.load(GOLDEN / "lvis_val_100.json", cache=False)
    assert index.federated
    assert index.frequencies.tolist() == [c["frequency"] for c in sorted(content["categories"], key=lambda c: c["id"])]
    assert sum(index.problems.values()) == index.problems["images without usable boxes"] == 7
    for i, image in enumerate(sorted(content["images"], key=lambda image: image["id"])):
        entries = [entry for entry in content["annotations"] if entry["image_id"] == image["id"]]
        rows = slice(index.box_offsets[i], index.box_offsets[i + 1])
        assert index.boxes[rows].tolist() == [entry["bbox"] for entry in entries]
        assert index.category_ids[index.labels[rows]].tolist() == [entry["category_id"] for entry in entries]
        assert index.areas[rows].tolist() == [entry["area"] for entry in entries]
        assert index.annotation_ids[rows].tolist() == [entry["id"] for entry in entries]
        assert index.sizes[i].tolist() == [image["height"], image["width"]]
        assert index.file_name(i) == f"val2017/{image['id']:012d}.jpg"
        negative = index.negative_labels[index.negative_offsets[i] : index.negative_offsets[i + 1]]
        assert index.category_ids[negative].tolist() == image["neg_category_ids"]


def test_load__nan_literals_in_file(tmp_path: Path) -> None:
    content = example()
    content["annotations"][0]["bbox"][0] = float("nan")
    content["annotations"][3]["bbox"][2] = float("-inf")
    path = tmp_path / "nan.json"
    path.write_text(json.dumps(content))
    index = AnnotationIndex.load(path)
    assert index.problems["non-finite"] == 2
    assert index.usable.tolist() == [True, False, True, False]


def drop(*keys: str | int) -> Callable[[dict[str, Any]], None]:
    def change(content: Any) -> None:
        for key in keys[:-1]:
            content = content[key]
        del content[keys[-1]]

    return change


def put(value: object, *keys: str | int) -> Callable[[dict[str, Any]], None]:
    def change(content: Any) -> None:
        for key in keys[:-1]:
            content = content[key]
        content[keys[-1]] = value

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (drop("images"), r"missing required field `images`"),
        (drop("categories"), r"missing required field `categories`"),
        (drop("annotations", 3, "bbox"), r"annotations\[3\]: .*`bbox`"),
        (drop("images", 1, "width"), r"images\[1\]: .*`width`"),
        (drop("images", 2, "height"), r"images\[2\]: .*`height`"),
        (put([1, 2, 3], "annotations", 3, "bbox"), r"annotations\[3\]\.bbox: .*length 4"),
        (put([1, 2, None, 4], "annotations", 3, "bbox"), r"annotations\[3\]\.bbox\[2\]: .*null"),
        (put("twelve", "annotations", 1, "image_id"), r"annotations\[1\]\.image_id: Expected `int`, got `str`"),
        (put(9.5, "annotations", 1, "image_id"), r"annotations\[1\]\.image_id: Expected `int`, got `float`"),
        (put(2**70, "annotations", 1, "id"), r"annotations\[1\]\.id"),
        (put(6, "annotations", 1, "category_id"), r"annotation id 12 has category_id 6"),
        (put(1, "annotations", 1, "image_id"), r"annotation id 12 has image_id 1"),
        (put(9, "images", 2, "id"), r"image id 9 occurs more than once"),
        (put(8, "categories", 1, "id"), r"category id 8 occurs more than once"),
        (put([], "images"), r"lists no images"),
        (put([], "categories"), r"lists no categories"),
        (put(0, "images", 0, "width"), r"image id 9 has width 0 and height 51"),
        (put(-3, "images", 0, "height"), r"image id 9 has width 101 and height -3"),
        (put("r", "categories", 0, "frequency"), r"category id 3 has frequency None"),
        (put("x", "categories", 1, "frequency"), r"category id 3 has frequency 'x'"),
    ],
)
def test_load__refuses(change: Callable[[dict[str, Any]], None], message: str, tmp_path: Path) -> None:
    content = copy.deepcopy(example())
    change(content)
    path = tmp_path / "wrong.json"
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match=rf"wrong\.json: .*{message}"):
        AnnotationIndex.load(path)
    with pytest.raises(UserError, match=message):
        AnnotationIndex.load(content)
    assert [entry.name for entry in tmp_path.iterdir()] == ["wrong.json"]  # no cache of a refused file


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"images": [}', r"not a json file: .*byte 12"),
        ('{"images": [{"id": NaN}, }', r"not a json file: .*char 2"),
        ('{"images": [', r"not a json file: .*truncated"),
        ("", r"the file is empty"),
        ("[1, 2]", r"top level: Expected `object`, got `array`"),
    ],
)
def test_load__malformed_file(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "broken.json"
    path.write_text(text)
    with pytest.raises(UserError, match=rf"broken\.json: {message}"):
        AnnotationIndex.load(path)


def test_load__missing_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.json: no such annotation file"):
        AnnotationIndex.load(tmp_path / "none.json")
