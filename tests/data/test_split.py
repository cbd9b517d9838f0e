"""Cutting a set in two: rare categories in both parts, json that reads back as it was."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.data.own_data import bccd, small, write_voc
from yolox_lt.commands import main
from yolox_lt.data.annotations.index import AnnotationIndex
from yolox_lt.data.annotations.split import lost_categories, split_images
from yolox_lt.data.annotations.write_coco import write_coco
from yolox_lt.data.frequency import image_category_pairs

GOLDEN = Path(__file__).parents[1] / "golden"


def index_of(holders: list[list[int]], images: int) -> AnnotationIndex:
    """Category c is in the images `holders[c]`."""
    content = {
        "images": [{"id": i, "width": 9, "height": 9, "file_name": f"{i}.jpg"} for i in range(images)],
        "categories": [{"id": c, "name": f"c{c}"} for c in range(len(holders))],
        "annotations": [
            {"image_id": i, "category_id": c, "bbox": [1, 1, 3, 3]} for c, held in enumerate(holders) for i in held
        ],
    }
    return AnnotationIndex.load(content)


@pytest.mark.parametrize("seed", range(20))
def test_split__keeps_every_category_of_two_images_in_both_parts(seed) -> None:
    """Long tails: half the categories have two to ten images of 200."""
    rng = np.random.default_rng(seed)
    counts = np.concatenate([rng.integers(2, 11, 10), rng.integers(11, 150, 10), [1]])
    index = index_of([rng.choice(190, n, replace=False).tolist() for n in counts], 200)
    train, val = split_images(index, 0.2, seed)
    assert np.array_equal(np.sort(np.concatenate([train, val])), np.arange(200))
    assert lost_categories(index, train).tolist() == []
    assert lost_categories(index, val).tolist() == [20]  # the single image is in training
    assert 25 <= len(val) <= 70
    frequent = np.flatnonzero(index.image_counts > 80)
    _, category, _ = image_category_pairs(index, val)
    share = np.bincount(category, minlength=21)[frequent] / index.image_counts[frequent]
    assert (np.abs(share - 0.2) < 0.12).all()


def test_split__moves_an_image_where_dealing_leaves_a_category_in_one_part() -> None:
    """Category 2 is in images 0 and 1 alone, which the rarer 0 and 1 (one image each) hold in training; but 2 can have
    neither moved. Category 3 is in 2 and 3 and free.
    """
    index = index_of([[0], [1], [0, 1], [2, 3]], 6)
    train, val = split_images(index, 0.5)
    assert {0, 1} <= set(train.tolist())
    assert lost_categories(index, val).tolist() == [0, 1, 2]
    assert lost_categories(index, train).tolist() == []
    # With a second image of category 0 elsewhere, image 0 may go to validation.
    for seed in range(10):
        index = index_of([[0, 4], [1], [0, 1], [2, 3]], 6)
        train, val = split_images(index, 0.5, seed)
        assert lost_categories(index, val).tolist() == [1]
        assert lost_categories(index, train).tolist() == []


def test_split__is_a_function_of_the_seed_and_deals_empty_images_too() -> None:
    index = index_of([[0, 1, 2, 3]], 104)
    first = split_images(index, 0.25, 1)
    assert all(np.array_equal(a, b) for a, b in zip(first, split_images(index, 0.25, 1)))
    assert not np.array_equal(first[1], split_images(index, 0.25, 2)[1])
    assert len(first[1]) == 26


def test_split__of_the_real_lvis_subset() -> None:
    """190 categories in 100 images, 70 of which are the only ones of some category, so they belong to training. Of the
    35 categories that could be in validation one has to give way: no choice of the other 23 images (all 2^23 tried)
    keeps every category in both parts.
    """
    index = AnnotationIndex.load(GOLDEN / "lvis_val_100.json", cache=False)
    train, val = split_images(index, 0.3)
    image, category, _ = image_category_pairs(index)
    single = index.image_counts[category] == 1
    movable = ~np.isin(image, image[single])
    possible = np.unique(category[movable & (index.image_counts[category] > 1)])
    assert len(possible) == 35
    assert lost_categories(index, train).tolist() == []
    assert len(np.intersect1d(possible, lost_categories(index, val))) == 1


def test_write__reads_back_as_the_same_columns(tmp_path) -> None:
    index = AnnotationIndex.load(GOLDEN / "lvis_val_100.json", cache=False)
    write_coco(tmp_path / "a.json", index)
    again = AnnotationIndex.load(tmp_path / "a.json", cache=False)
    assert set(index._columns) == set(again._columns)
    for name, column in index._columns.items():
        np.testing.assert_array_equal(again._columns[name], column, name)


def run(capsys: pytest.CaptureFixture[str], *words: Any, status: int = 0) -> str:
    try:
        main(["convert-dataset", *map(str, words)])
        code = 0
    except SystemExit as end:
        code = int(end.code or 0)
    out, err = capsys.readouterr()
    assert code == status, err
    return out if status == 0 else err


def test_commands__split_and_coco_from_a_voc_folder(tmp_path, capsys) -> None:
    content = small(bccd(), 20)
    write_voc(tmp_path / "voc", content, images=False)
    said = run(capsys, "split", tmp_path / "voc", "--out", tmp_path / "parts", "--val", "0.3")
    train, val = (AnnotationIndex.load(tmp_path / f"parts/{name}.json", cache=False) for name in ("train", "val"))
    assert f"{len(train)} images, {len(train.boxes)} boxes, 3 of 3 categories" in said
    assert "the first image is JPEGImages/BloodImage_" in said
    assert sorted([*train.image_ids, *val.image_ids]) == list(range(1, 21))
    assert train.category_names == val.category_names == ("Platelets", "RBC", "WBC")
    assert train.ignored_not_scored
    out = tmp_path / "all.json"
    run(capsys, "coco", tmp_path / "voc", "--out", out, "--classes", "RBC,WBC,Platelets", "--format", "voc")
    written = json.loads(out.read_text())
    assert [a["bbox"] for a in written["annotations"]] == [a["bbox"] for a in content["annotations"]]
    joined = tmp_path / "joined.json"
    run(capsys, "coco", tmp_path / "parts/train.json", tmp_path / "parts/val.json", "--out", joined)
    assert len(json.loads(joined.read_text())["annotations"]) == len(content["annotations"])


def test_commands__errors_are_one_sentence(tmp_path, capsys) -> None:
    (tmp_path / "a.json").write_text(json.dumps(small(bccd(), 2)))
    for words, message in (
        (["split", "none.json", "--out", "x"], "error: none.json: no such annotation file; check the path"),
        (["split", tmp_path / "a.json", "--out", "x", "--val", "1"], "error: --val 1: give a share of the images"),
        (["coco", tmp_path / "a.json", "--out", "no/x.json"], "error: no/x.json: its folder does not exist"),
    ):
        assert message in run(capsys, *words, status=1)
