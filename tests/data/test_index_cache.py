"""The cache file of AnnotationIndex: when it is used, when it is rebuilt, what travels to workers."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from loguru import logger

import yolox_lt.data.annotations.index_cache as index_cache
from yolox_lt.data.annotations.index import AnnotationIndex
from yolox_lt.errors import UserError


def content(num_images: int = 50) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    annotations = [
        {"id": k, "image_id": int(rng.integers(num_images)), "category_id": 2, "bbox": (9 * rng.random(4)).tolist()}
        for k in range(300)
    ]
    return {
        "images": [{"id": i, "width": 10, "height": 10, "file_name": f"{i}.jpg"} for i in range(num_images)],
        "categories": [{"id": 2, "name": "größe", "frequency": "f"}, {"id": 9, "name": "", "frequency": "r"}],
        "annotations": annotations,
    }


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "train.json"
    path.write_text(json.dumps(content()))
    return path


@pytest.fixture
def warnings() -> Iterator[list[str]]:
    messages: list[str] = []
    handle = logger.add(lambda message: messages.append(str(message)), level="WARNING")
    yield messages
    logger.remove(handle)


def cache_of(path: Path) -> Path:
    return path.with_name(path.name + ".index")


def assert_same(a: AnnotationIndex, b: AnnotationIndex) -> None:
    assert a.path == b.path
    assert a.category_names == b.category_names
    assert a.problems == b.problems
    assert [a.file_name(i) for i in range(len(a))] == [b.file_name(i) for i in range(len(b))]
    for name, value in vars(a).items():
        if isinstance(value, np.ndarray):
            assert value.dtype == getattr(b, name).dtype, name
            np.testing.assert_array_equal(value, getattr(b, name), err_msg=name)


def is_mapped(index: AnnotationIndex) -> bool:
    base: object = index.boxes
    while isinstance(base, np.ndarray) and not isinstance(base, np.memmap):
        base = base.base
    return isinstance(base, np.memmap)


def test_load__mapped_equals_memory(path: Path) -> None:
    memory = AnnotationIndex.load(path, cache=False)
    assert not cache_of(path).exists()
    first = AnnotationIndex.load(path)
    second = AnnotationIndex.load(str(path))
    assert not is_mapped(memory)
    assert is_mapped(first)
    assert is_mapped(second)
    assert_same(memory, first)
    assert_same(memory, second)
    assert sorted(entry.name for entry in path.parent.iterdir()) == ["train.json", "train.json.index"]


def test_load__second_time_does_not_read_the_json(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    AnnotationIndex.load(path)
    monkeypatch.setattr(
        "yolox_lt.data.annotations.coco_reader.decode_annotations", lambda *_: pytest.fail("read again")
    )
    assert len(AnnotationIndex.load(path)) == 50


def test_load__columns_are_read_only(path: Path) -> None:
    for index in (AnnotationIndex.load(path), AnnotationIndex.load(path, cache=False)):
        with pytest.raises(ValueError, match="read-only"):
            index.boxes[0] = 0


def test_load__stale_cache_is_rebuilt(path: Path) -> None:
    AnnotationIndex.load(path)
    path.write_text(json.dumps(content(num_images=49) | {"annotations": []}))
    assert len(AnnotationIndex.load(path)) == 49


def test_load__same_size_and_time_other_content_is_rebuilt(path: Path) -> None:
    AnnotationIndex.load(path)
    state = path.stat()
    text = path.read_text()
    path.write_text(text.replace('"width": 10', '"width": 20', 1))
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert path.stat().st_size == state.st_size
    assert AnnotationIndex.load(path).sizes[0].tolist() == [10, 20]


@pytest.mark.parametrize("length", [0, 8, 15, 16, 200, -64, -1])
def test_load__half_written_cache_is_rebuilt(path: Path, length: int) -> None:
    expected = AnnotationIndex.load(path, cache=False)
    AnnotationIndex.load(path)
    whole = cache_of(path).read_bytes()
    cache_of(path).write_bytes(whole[:length])
    assert_same(AnnotationIndex.load(path), expected)
    assert cache_of(path).read_bytes() == whole


@pytest.mark.parametrize("junk", [b"x" * 5000, b"YLTINDEX" + b"\xff" * 5000, b"YLTINDEX" + b"\0" * 5000])
def test_load__foreign_file_is_rebuilt(path: Path, junk: bytes) -> None:
    cache_of(path).write_bytes(junk)
    assert len(AnnotationIndex.load(path)) == 50
    assert cache_of(path).read_bytes() != junk


@pytest.mark.parametrize(
    ("place", "value"), [("dtype", "|O"), ("dtype", "no type"), ("offset", 2**40), ("offset", -64), ("shape", [-1])]
)
def test_load__header_that_does_not_fit_its_file_is_rebuilt(path: Path, place: str, value: object) -> None:
    """Right key and size, but an array that lies elsewhere or would hold Python objects."""
    expected = AnnotationIndex.load(path, cache=False)
    AnnotationIndex.load(path)
    whole = cache_of(path).read_bytes()
    length = int.from_bytes(whole[8:16], "little")
    header = json.loads(whole[16 : 16 + length])
    header["arrays"][0][place] = value
    text = json.dumps(header, separators=(",", ":")).encode()
    header["size"] = 16 + len(text) + len(whole)
    text = json.dumps(header, separators=(",", ":")).encode()
    body = (whole + bytes(header["size"]))[: header["size"] - 16 - len(text)]
    cache_of(path).write_bytes(whole[:8] + len(text).to_bytes(8, "little") + text + body)
    assert cache_of(path).stat().st_size == header["size"]
    assert_same(AnnotationIndex.load(path), expected)
    assert cache_of(path).read_bytes() == whole


def test_load__says_that_it_writes_the_index_anew_and_only_then(path: Path) -> None:
    said: list[str] = []
    handle = logger.add(lambda message: said.append(str(message)), level="INFO")
    AnnotationIndex.load(path)
    AnnotationIndex.load(path)
    assert said == []
    cache_of(path).write_bytes(b"YLTINDEX")
    AnnotationIndex.load(path)
    path.write_text(json.dumps(content(num_images=60)))
    AnnotationIndex.load(path)
    logger.remove(handle)
    assert len(said) == 2
    assert all("train.json.index: of another file or version, or incomplete; it is written again" in s for s in said)


def test_load__other_format_version_is_rebuilt(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    AnnotationIndex.load(path)
    before = cache_of(path).read_bytes()
    monkeypatch.setattr(index_cache, "FORMAT_VERSION", index_cache.FORMAT_VERSION + 1)
    AnnotationIndex.load(path)
    assert cache_of(path).read_bytes() != before


def test_load__unwritable_place_warns_once_and_goes_on(path: Path, warnings: list[str]) -> None:
    cache_of(path).mkdir()  # nothing can be renamed to the name of a folder, whoever tries
    index = AnnotationIndex.load(path)
    assert not is_mapped(index)
    assert_same(index, AnnotationIndex.load(path, cache=False))
    assert len(warnings) == 1
    assert "train.json.index cannot be written" in warnings[0]
    assert sorted(entry.name for entry in path.parent.iterdir()) == ["train.json", "train.json.index"]


def test_pickle__mapped_index_is_a_path(path: Path) -> None:
    index = AnnotationIndex.load(path)
    data = pickle.dumps(index)
    assert len(data) < 1500  # with the names of the formats' functions
    copy = pickle.loads(data)
    assert is_mapped(copy)
    assert_same(index, copy)


def test_pickle__relative_path_survives_a_change_of_folder(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(path.parent)
    data = pickle.dumps(AnnotationIndex.load("train.json"))
    monkeypatch.chdir("/")
    assert len(pickle.loads(data)) == 50


def test_pickle__changed_annotations_are_refused(path: Path) -> None:
    data = pickle.dumps(AnnotationIndex.load(path))
    path.write_text(json.dumps(content(num_images=60)))
    with pytest.raises(UserError, match=r"train\.json: the annotations changed"):
        pickle.loads(data)


def test_pickle__index_in_memory_carries_its_columns(path: Path) -> None:
    for index in (AnnotationIndex.load(path, cache=False), AnnotationIndex.load(content())):
        assert_same(index, pickle.loads(pickle.dumps(index)))
    assert not cache_of(path).exists()
