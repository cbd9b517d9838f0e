"""Several files as one, categories mapped, images left out; LVIS's vocabularies and splits."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from yolox_lt.data.annotations.index import AnnotationIndex
from yolox_lt.data.annotations.source import Source
from yolox_lt.data.dataset import ImageStore
from yolox_lt.errors import UserError
from yolox_lt.exp import LVIS05Data, LVISData, YOLOXStarExp, get_exp

GOLDEN = Path(__file__).parents[1] / "golden"


def content(
    images: list[int], categories: dict[int, str], boxes: list[tuple[int, int]], **lists: Any
) -> dict[str, Any]:
    """Images of 50 x 40 pixels; boxes are (image id, category id), the n-th n pixels wide."""
    return {
        "images": [
            {
                "id": i,
                "width": 50,
                "height": 40,
                "file_name": f"d/{i}.jpg",
                **{k: v.get(i, []) for k, v in lists.items()},
            }
            for i in images
        ],
        "categories": [{"id": c, "name": name} for c, name in categories.items()],
        "annotations": [
            {"id": n, "image_id": i, "category_id": c, "bbox": [1, 1, n, 5]} for n, (i, c) in enumerate(boxes, 1)
        ],
    }


def load(
    folder: Path, *files: dict[str, Any], mapping: dict[str, str | None] | None = None, **more: Any
) -> AnnotationIndex:
    paths = []
    for i, file in enumerate(files):
        paths.append(str(folder / f"{i}.json"))
        Path(paths[-1]).write_text(json.dumps(file))
    if mapping is not None:
        (folder / "map.json").write_text(json.dumps(mapping))
        more["category_map"] = str(folder / "map.json")
    return AnnotationIndex.load(Source(tuple(paths), **more))


def boxes_by_name(index: AnnotationIndex) -> dict[str, list[tuple[str, float]]]:
    """File name -> (category, width) of its boxes, in order."""
    return {
        index.file_name(i): [
            (index.category_names[index.labels[row]], float(index.boxes[row, 2]))
            for row in range(index.box_offsets[i], index.box_offsets[i + 1])
        ]
        for i in range(len(index))
    }


def test_concatenate__ids_that_fit_stay(tmp_path) -> None:
    a = content([7, 3], {2: "ant", 5: "bee"}, [(3, 5), (7, 2), (3, 2)])
    b = content([5], {5: "bee", 9: "cat"}, [(5, 9), (5, 5)])
    b["annotations"] = [entry | {"id": entry["id"] + 10} for entry in b["annotations"]]
    index = load(tmp_path, a, b)
    assert index.image_ids.tolist() == [3, 5, 7]
    assert (index.category_ids.tolist(), index.category_names) == ([2, 5, 9], ("ant", "bee", "cat"))
    assert boxes_by_name(index) == {
        "d/3.jpg": [("bee", 1), ("ant", 3)],
        "d/5.jpg": [("cat", 1), ("bee", 2)],
        "d/7.jpg": [("ant", 2)],
    }
    assert index.annotation_ids.tolist() == [1, 3, 11, 12, 2]
    assert not index.federated
    assert index.path == tmp_path / "0.json"


def test_concatenate__ids_that_clash_are_given_anew(tmp_path) -> None:
    a = content([1, 2], {1: "ant", 2: "bee"}, [(2, 2), (1, 1)])
    b = content([1], {1: "cat", 2: "ant"}, [(1, 1), (1, 2)])
    index = load(tmp_path, a, b, folders=("x", "y/z"))
    assert index.image_ids.tolist() == [1, 2, 3]
    assert (index.category_ids.tolist(), index.category_names) == ([1, 2, 3], ("ant", "bee", "cat"))
    assert boxes_by_name(index) == {
        "x/1.jpg": [("ant", 2)],
        "x/2.jpg": [("bee", 1)],
        "y/z/1.jpg": [("cat", 1), ("ant", 2)],
    }
    assert index.annotation_ids.tolist() == [1, 2, 3, 4]
    assert index.image_counts.tolist() == [2, 1, 1]


def test_concatenate__lists_and_frequencies(tmp_path) -> None:
    a = content([1], {1: "ant", 2: "bee"}, [(1, 1)], neg_category_ids={1: [2]}, not_exhaustive_category_ids={1: [1]})
    b = content([2], {2: "bee", 1: "ant"}, [(2, 2)])
    for file in (a, b):
        for category in file["categories"]:
            category["frequency"] = "rc"[category["id"] - 1]
    index = load(tmp_path, a, b)
    assert index.federated
    assert index.negative_offsets.tolist() == [0, 1, 1]
    assert index.negative_labels.tolist() == [1]
    assert index.not_exhaustive_labels.tolist() == [0]
    assert index.problems["images without federated lists"] == 1
    assert index.frequencies.tolist() == ["r", "c"]
    b["categories"][0]["frequency"] = "f"
    assert load(tmp_path, a, b).frequencies is None  # the files disagree: counted from the training set


def test_concatenate__refuses_a_name_used_twice(tmp_path) -> None:
    a = content([1], {1: "ant", 2: "ant"}, [])
    with pytest.raises(UserError, match=r"0\.json: two categories are called 'ant'; files are joined by name"):
        load(tmp_path, a, content([2], {1: "ant"}, []))
    with pytest.raises(UserError, match=r"2 annotation files have 1 image folders; name one for each file"):
        Source(("a", "b"), folders=("x",))


def test_map__merges_renames_and_leaves_out(tmp_path) -> None:
    a = content([1, 2], {1: "ant", 2: "bee", 3: "cat", 4: "dog"}, [(1, 1), (1, 2), (2, 3), (1, 4)])
    mapping = {"cat": "pet", "ant": "insect", "bee": "insect", "*": None}
    index = load(tmp_path, a, mapping=mapping)
    assert (index.category_ids.tolist(), index.category_names) == ([1, 2], ("pet", "insect"))
    assert boxes_by_name(index) == {"d/1.jpg": [("insect", 1), ("insect", 2)], "d/2.jpg": [("pet", 3)]}
    assert index.box_offsets.tolist() == [0, 2, 3]
    assert index.image_counts.tolist() == [1, 1]
    rest = load(tmp_path, a, mapping={"dog": "dog", "*": "other"})
    assert rest.category_names == ("dog", "other")
    assert rest.labels.tolist() == [1, 1, 0, 1]


def test_map__frequencies_stay_unless_categories_are_merged(tmp_path) -> None:
    a = content([1], {1: "ant", 2: "bee", 3: "cat"}, [(1, 1)])
    for category, group in zip(a["categories"], "rcf"):
        category["frequency"] = group
    index = load(tmp_path, a, mapping={"cat": "c", "ant": "a", "bee": None})
    assert (index.category_names, index.frequencies.tolist()) == (("c", "a"), ["f", "r"])
    assert load(tmp_path, a, mapping={"cat": "c", "ant": "c", "bee": None}).frequencies is None


def test_map__federated_lists_by_hand(tmp_path) -> None:
    """x = {ant, bee}, y = {cat}. Absent only if both parts are; exhaustive only if every part is known and complete."""
    a = content(
        [1, 2, 3, 4, 5, 6],
        {1: "ant", 2: "bee", 3: "cat"},
        [(1, 1), (2, 1), (3, 1), (3, 2), (6, 3)],
        neg_category_ids={1: [2], 4: [1, 2, 3], 5: [1]},
        not_exhaustive_category_ids={3: [2], 6: [3]},
    )
    index = load(tmp_path, a, mapping={"ant": "x", "bee": "x", "cat": "y"})
    absent = [index.negative_labels[s:e].tolist() for s, e in pairwise(index.negative_offsets)]
    assert absent == [[], [], [], [0, 1], [], []]  # image 5 knows of ant alone
    offsets = index.not_exhaustive_offsets
    partial = [index.not_exhaustive_labels[s:e].tolist() for s, e in pairwise(offsets)]
    assert partial == [[], [0], [0], [], [], [1]]  # image 2: bee was not looked for; image 3: bee is not complete
    for name in ("negative category with boxes", "non-exhaustive category without boxes"):
        assert index.problems[name] == 0


def test_map__bad_files(tmp_path) -> None:
    a = content([1], {1: "ant", 2: "bee"}, [])
    with pytest.raises(UserError, match=r"map\.json: does not say what becomes of 'bee' of .*0\.json; map them"):
        load(tmp_path, a, mapping={"ant": "x"})
    with pytest.raises(UserError, match=r"map\.json: leaves no category; map at least one name"):
        load(tmp_path, a, mapping={"*": None})
    with pytest.raises(UserError, match=r"map\.json: .*Expected `str \| null`, got `int`"):
        load(tmp_path, a, mapping={"ant": 3})  # type: ignore[dict-item]
    with pytest.raises(UserError, match=r"nothing\.json: no such file"):
        load(tmp_path, a, category_map=str(tmp_path / "nothing.json"))


def test_cache__of_several_files_depends_on_each(tmp_path) -> None:
    a, b = content([1], {1: "ant"}, [(1, 1)]), content([2], {1: "ant"}, [(2, 1)])
    assert len(load(tmp_path, a, b).boxes) == 2
    assert len(list(tmp_path.glob("*.index"))) == 1
    b["annotations"].append({"id": 7, "image_id": 2, "category_id": 1, "bbox": [0, 0, 2, 2]})
    assert len(load(tmp_path, a, b).boxes) == 3
    assert load(tmp_path, a, b, mapping={"ant": "x"}).category_names == ("x",)
    assert load(tmp_path, a, b, mapping={"ant": "y"}).category_names == ("y",)  # another content of the same file
    assert AnnotationIndex.load(tmp_path / "0.json").category_names == ("ant",)


def lvis_exp(folder: Path, cls: type, **settings: Any) -> YOLOXStarExp:
    exp = type("Exp", (cls, YOLOXStarExp), {})()
    exp.update({"data_dir": str(folder), **settings})
    return exp


def test_lvis_v05__vocabulary_paths_and_dropped_polygons(tmp_path) -> None:
    """The real subset: 1230 categories, 454 rare; polygons are most of the file and are not kept."""
    (tmp_path / "annotations").mkdir()
    source = GOLDEN / "lvis_val_100.json"
    raw = json.loads(source.read_text())
    for image in raw["images"]:
        del image["coco_url"]  # then only the old style of names is there
    (tmp_path / "annotations/lvis_v0.5_val.json").write_text(json.dumps(raw))
    exp = lvis_exp(tmp_path, LVIS05Data)
    index = exp.get_index("val")
    assert len(index.category_ids) == exp.num_classes == 1230
    assert np.unique(index.frequencies, return_counts=True)[1].tolist() == [461, 315, 454]  # c, f, r
    assert len(index.boxes) == 977
    packed = sum(column.nbytes for column in index._columns.values())
    assert packed < 0.3 * source.stat().st_size
    name = f"{index.image_ids[0]:012d}.jpg"
    assert index.file_name(0) == f"COCO_val2014_{name}"
    (tmp_path / "val2017").mkdir()
    (tmp_path / "val2017" / name).touch()
    assert ImageStore(index, tmp_path, "val2017").path(0) == tmp_path / "val2017" / name
    with pytest.raises(UserError, match=r"has 1230 categories but num_classes is 1203"):
        lvis_exp(tmp_path, LVISData, train_ann="lvis_v0.5_val.json").get_index("train")
    assert get_exp(Path(__file__).parents[2] / "exps/example/lvis_v05.py").num_classes == 1230


def test_lvis_minival__images_of_val2017_or_of_a_list(tmp_path) -> None:
    a = content([4, 5, 6], {1: "ant"}, [(5, 1), (6, 1), (4, 1), (6, 1)])
    for image, folder in zip(a["images"], ("val2017", "train2017", "val2017")):
        image["coco_url"] = f"http://x.org/{folder}/{image['id']}.jpg"
    (tmp_path / "val.json").write_text(json.dumps(a))
    settings = {"val_ann": "val.json", "train_ann": "val.json", "num_classes": 1}
    exp = lvis_exp(tmp_path, LVISData, val_subset="val2017/", **settings)
    index = exp.get_index("val")
    assert index.image_ids.tolist() == [4, 6]
    assert boxes_by_name(index) == {"val2017/4.jpg": [("ant", 3)], "val2017/6.jpg": [("ant", 2), ("ant", 4)]}
    assert index.image_counts.tolist() == [2]
    assert len(exp.get_index("train")) == 3  # of the validation alone
    listing = tmp_path / "minival.txt"
    listing.write_text("6\n4\n")
    exp.val_subset = str(listing)
    assert exp.get_index("val").image_ids.tolist() == [4, 6]
    listing.write_text("6\n8\n")
    with pytest.raises(UserError, match=r"minival\.txt: .*val\.json has no image with id 8; correct the list"):
        exp.get_index("val")
    listing.write_text("6.jpg\n")
    with pytest.raises(UserError, match=r"minival\.txt: '6\.jpg' is no image id; write one id a line"):
        exp.get_index("val")
    exp.val_subset = "val2014/"
    with pytest.raises(UserError, match=r"no image belongs to the subset 'val2014/'"):
        exp.get_index("val")
