"""The glyph data set: what is written about it, and how it gets onto the disk."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from tests.processes import context
from yolox_lt.data.glyphs import counts as glyph_counts
from yolox_lt.data.glyphs import make as glyphs
from yolox_lt.data.glyphs.alphabet import choose_glyphs
from yolox_lt.data.glyphs.drawing import render_image
from yolox_lt.data.glyphs.make import GlyphPaths, ensure_glyphs, sample_negatives, write_glyphs
from yolox_lt.data.glyphs.spec import GlyphSpec
from yolox_lt.errors import UserError

SMALL: dict[str, Any] = {"num_categories": 10, "train_images": 220, "val_images": 60, "image_size": (97, 131)}
TINY: dict[str, Any] = {**SMALL, "num_categories": 3, "train_images": 150, "val_images": 10, "image_size": 64}


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> GlyphPaths:
    return write_glyphs(tmp_path_factory.mktemp("glyphs") / "small", **SMALL)


def load(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


def read_image(path: Path) -> np.ndarray:
    image = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_COLOR)
    assert image is not None
    return image


def folder_bytes(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# -- what is written


def test_write_glyphs__counts_and_groups(small: GlyphPaths) -> None:
    content = load(small.train_json)
    present: dict[int, set[int]] = defaultdict(set)
    for annotation in content["annotations"]:
        present[annotation["category_id"]].add(annotation["image_id"])
    instances = Counter(annotation["category_id"] for annotation in content["annotations"])
    assert [category["id"] for category in content["categories"]] == list(range(1, 11))
    for category in content["categories"]:
        assert category["image_count"] == len(present[category["id"]])
        assert category["instance_count"] == instances[category["id"]]
        assert category["frequency"] == glyph_counts.frequency_group(category["image_count"])
    assert Counter(category["frequency"] for category in content["categories"]) == {"r": 3, "c": 4, "f": 3}
    assert load(small.val_json)["categories"] == content["categories"]


def test_write_glyphs__val_is_balanced(small: GlyphPaths) -> None:
    content = load(small.val_json)
    pairs = {(annotation["image_id"], annotation["category_id"]) for annotation in content["annotations"]}
    # 60 images of 5.5 objects hold 165 pairs: 16 images for each of the 10 categories.
    assert Counter(category for _, category in pairs) == dict.fromkeys(range(1, 11), 16)


def test_write_glyphs__records(small: GlyphPaths) -> None:
    seen: set[int] = set()
    for path, number in ((small.train_json, 220), (small.val_json, 60)):
        content = load(path)
        assert len(content["images"]) == number
        sizes = {}
        for image in content["images"]:
            file = small.folder / Path(*image["coco_url"].split("/")[-2:])
            assert file.stem == f"{image['id']:012d}"
            assert read_image(file).shape == (97, 131, 3)
            sizes[image["id"]] = (image["width"], image["height"])
        assert not seen & sizes.keys()
        seen |= sizes.keys()
        assert [annotation["id"] for annotation in content["annotations"]] == list(
            range(1, len(content["annotations"]) + 1)
        )
        for annotation in content["annotations"]:
            x, y, width, height = annotation["bbox"]
            assert min(x, y) >= 0 < min(width, height)
            assert x + width <= sizes[annotation["image_id"]][0] == 131
            assert y + height <= sizes[annotation["image_id"]][1] == 97
            assert 0 < annotation["area"] <= width * height
            polygon = np.array(annotation["segmentation"][0], np.float32).reshape(-1, 2)  # [points, xy]
            assert cv2.contourArea(polygon) == width * height


def test_write_glyphs__federated_lists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[list[int]] = []

    def recorded(rng: np.random.Generator, bitmaps: list[np.ndarray], categories: list[int], *rest: Any) -> Any:
        drawn.append([category + 1 for category in categories])
        return render_image(rng, bitmaps, categories, *rest)

    monkeypatch.setattr(glyphs, "render_image", recorded)
    paths = write_glyphs(tmp_path / "glyphs", **SMALL)
    left_out = 0
    for path, images in ((paths.train_json, drawn[:220]), (paths.val_json, drawn[220:])):
        content = load(path)
        annotated: dict[int, list[int]] = defaultdict(list)
        for annotation in content["annotations"]:
            annotated[annotation["image_id"]].append(annotation["category_id"])
        for image, shown in zip(content["images"], images):
            negative, partial = image["neg_category_ids"], image["not_exhaustive_category_ids"]
            assert len(negative) == len(set(negative)) == 3
            assert not set(negative) & set(shown)
            assert set(partial) <= set(annotated[image["id"]])
            assert Counter(shown) == Counter(annotated[image["id"]] + partial)  # one copy is drawn and not annotated
            left_out += len(partial)
    assert 0.02 * 280 < left_out < 0.1 * 280


def test_write_glyphs__json_boxes_are_those_drawn(small: GlyphPaths) -> None:
    # An image depends on the seed, the split and its number alone: draw the last training image afresh.
    content = load(small.train_json)
    image = content["images"][-1]
    annotations = [entry for entry in content["annotations"] if entry["image_id"] == image["id"]]
    shown = [entry["category_id"] - 1 for entry in annotations]
    chosen, _ = choose_glyphs(10)
    spec = GlyphSpec(**SMALL)
    rng = np.random.default_rng([0, glyphs.TRAIN, 220])
    weights = np.sqrt([category["image_count"] for category in content["categories"]])
    assert [category + 1 for category in sample_negatives(rng, shown, weights)] == image["neg_category_ids"]
    hidden = [int(rng.choice(shown))] if rng.random() < glyphs.NOT_EXHAUSTIVE_SHARE else []
    bitmaps = glyphs.large_bitmaps(chosen, spec)
    picture, drawn = render_image(rng, bitmaps, shown + hidden, spec.image_size, spec.object_range)
    assert [list(glyph.box) for glyph in drawn[: len(shown)]] == [entry["bbox"] for entry in annotations]
    stored = read_image(small.train_images / f"{image['id']:012d}.jpg")
    assert np.abs(stored.astype(int) - picture).mean() < 8  # JPEG


def test_write_glyphs__same_bytes(small: GlyphPaths, tmp_path: Path) -> None:
    again = write_glyphs(tmp_path / "again", **SMALL)
    assert folder_bytes(small.folder) == folder_bytes(again.folder)
    other = write_glyphs(tmp_path / "other", **SMALL, seed=1)
    assert folder_bytes(other.folder).keys() == folder_bytes(again.folder).keys()
    assert other.train_json.read_bytes() != again.train_json.read_bytes()


def test_write_glyphs__table_as_dict_leaves_images_empty(tmp_path: Path) -> None:
    table = {"categories": [{"image_count": count} for count in (3, 12, 2)]}
    paths = write_glyphs(tmp_path / "g", **{**TINY, "train_images": 20}, profile="lvis", categories_json=table)
    content = load(paths.train_json)
    assert sorted(category["image_count"] for category in content["categories"]) == [2, 3, 12]
    assert {category["image_count"]: category["frequency"] for category in content["categories"]}[12] == "c"
    occupied = {annotation["image_id"] for annotation in content["annotations"]}
    assert len(content["images"]) == 20 > len(occupied) >= 12


# -- onto the disk


def test_ensure_glyphs__second_call_leaves_files_alone(tmp_path: Path) -> None:
    first = ensure_glyphs(tmp_path / "glyphs", **TINY)
    times = {path: path.stat().st_mtime_ns for path in first.folder.rglob("*")}
    assert ensure_glyphs(str(tmp_path / "glyphs"), **{**TINY, "image_size": [64, 64]}) == first
    assert {path: path.stat().st_mtime_ns for path in first.folder.rglob("*")} == times
    assert [path.name for path in tmp_path.iterdir()] == ["glyphs"]


def test_ensure_glyphs__another_specification(tmp_path: Path) -> None:
    ensure_glyphs(tmp_path / "glyphs", **TINY)
    with pytest.raises(UserError, match=r"seed is 0 instead of 7.*give another folder"):
        ensure_glyphs(tmp_path / "glyphs", **TINY, seed=7)
    with pytest.raises(UserError, match="not empty"):
        write_glyphs(tmp_path / "glyphs", **TINY)


def test_ensure_glyphs__foreign_folder_is_untouched(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(UserError, match="no glyph data set"):
        ensure_glyphs(tmp_path, **TINY)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
    with pytest.raises(UserError, match=r"mine\.txt"):
        ensure_glyphs(tmp_path / "mine.txt", **TINY)


def test_ensure_glyphs__empty_folder_is_filled(tmp_path: Path) -> None:
    (tmp_path / "glyphs").mkdir()
    assert ensure_glyphs(tmp_path / "glyphs", **TINY).val_json.exists()


def ensure_in_process(barrier: Any, folder: str, results: Any) -> None:
    barrier.wait(60)  # both start at once
    results.put(str(ensure_glyphs(folder, **TINY).folder))


def test_ensure_glyphs__two_processes(tmp_path: Path) -> None:
    forked = context()
    barrier, results = forked.Barrier(2), forked.Queue()
    folder = tmp_path / "deep" / "glyphs"
    processes = [forked.Process(target=ensure_in_process, args=(barrier, str(folder), results)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    assert [results.get(timeout=5) for _ in range(2)] == [str(folder)] * 2
    assert [path.name for path in folder.parent.iterdir()] == ["glyphs"]
    assert folder_bytes(folder) == folder_bytes(write_glyphs(tmp_path / "alone", **TINY).folder)


def test_write_glyphs__nothing_is_left_after_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any) -> Any:
        raise RuntimeError("in the middle")

    monkeypatch.setattr(glyphs, "render_image", fails)
    with pytest.raises(RuntimeError, match="in the middle"):
        write_glyphs(tmp_path / "glyphs", **TINY)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_clases": 30}, "unknown option 'num_clases'"),
        ({"num_categories": 2}, "num_categories is 2; it must be at least 3"),
        ({"train_images": 0}, "train_images is 0"),
        ({"train_images": 100}, "train_images is 100, too few .* at least 145"),
        ({"val_images": 1}, "val_images is 1, too few .* at least 5"),
        ({"image_size": 20}, "at least 32 pixels"),
        ({"image_size": "big"}, "wrong type"),
        ({"objects_per_image": (5, 3)}, "objects_per_image is"),
        ({"object_size": (20, 64)}, "object_size is"),
        ({"profile": "real"}, "profile is 'real'"),
        ({"profile": "lvis"}, "categories_json is None"),
        ({"categories_json": "table.json"}, "categories_json is 'table.json'"),
        ({"profile": "lvis", "categories_json": "missing.json"}, r"missing\.json: cannot be read"),
        ({"profile": "lvis", "categories_json": {"categories": [{"id": 1}]}}, "cannot be read"),
        ({"profile": "lvis", "categories_json": {"categories": [{"image_count": 0}]}}, "image_count below 1"),
        ({"profile": "lvis", "categories_json": {"categories": [{"image_count": 5}]}}, "has 1 categories"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_write_glyphs__bad_options(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        write_glyphs(tmp_path / "glyphs", **{**TINY, **options})
    assert list(tmp_path.iterdir()) == []
