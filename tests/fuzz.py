"""Fuzzing of everything that reads what others wrote: annotation files, result files, checkpoints, overrides.

    python -m tests.fuzz [annotations results checkpoint overrides] [--seconds 60] [--seed 0]

Hypothesis changes whole files: values, keys, bytes, the opcodes of a pickle. A reader may take a file or refuse it with
one sentence; anything else is a finding, which Hypothesis makes small and prints. The number of executions is printed
for each reader. `tests/test_fuzz.py` runs some hundred of them and holds what was found.
"""

from __future__ import annotations

import argparse
import copy
import io
import json
import math
import tempfile
import time
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import hypothesis
import numpy as np
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from yolox_lt.checkpoint import load_checkpoint, load_weights
from yolox_lt.data.annotations.index import AnnotationIndex
from yolox_lt.errors import UserError
from yolox_lt.evaluate.results import labels_and_images, load_detections
from yolox_lt.exp import YOLOXStarExp

ANNOTATIONS: dict[str, Any] = {
    "images": [
        {"id": 1, "width": 20, "height": 10, "file_name": "a.jpg", "neg_category_ids": [3]},
        {"id": 2, "width": 5, "height": 5, "coco_url": "http://x/y/b.jpg", "not_exhaustive_category_ids": [9]},
    ],
    "categories": [{"id": 3, "name": "a", "frequency": "r"}, {"id": 9, "name": "b", "frequency": "f"}],
    "annotations": [
        {"id": 1, "image_id": 1, "category_id": 3, "bbox": [1, 2.5, 3, 4], "area": 12, "iscrowd": 0},
        {"id": 2, "image_id": 2, "category_id": 9, "bbox": [0, 0, 5, 5], "ignore": 1, "segmentation": [[0, 0, 1, 1]]},
    ],
}
RESULTS: list[Any] = [
    {"image_id": 1, "category_id": 3, "bbox": [1, 2, 3, 4], "score": 0.5},
    {"image_id": 2, "category_id": 9, "bbox": [1.5, 2, 3, 4], "score": 1},
]
ODD = st.one_of(
    st.sampled_from([None, True, False, "", "1", "\ud800", "\0", "a" * 300, [], {}, [[]], [None] * 4, {"id": 1}]),
    st.sampled_from([0, -1, 1, 3, 9, 2**31, 2**53 + 1, 2**63 - 1, 2**63, -(2**63), 2**64, 10**30]),
    st.sampled_from([0.5, -0.0, 1e308, -1e308, 5e-324, math.nan, math.inf, -math.inf, 3.0]),
    st.integers(),
    st.floats(),
    st.text(max_size=5),
).map(copy.deepcopy)  # later edits may reach into what was drawn


def containers(value: Any) -> list[Any]:
    """Every dict and list inside, the value itself first."""
    inside = value.values() if isinstance(value, dict) else value
    return [value, *(c for item in inside if isinstance(item, (dict, list)) for c in containers(item))]


@st.composite
def edited(draw: st.DrawFn, whole: Any) -> Any:
    """The value with some entries exchanged, removed, repeated or added."""
    value = copy.deepcopy(whole)
    for _ in range(draw(st.integers(0, 3))):
        place = draw(st.sampled_from(containers(value)))
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        action = draw(st.sampled_from(["exchange", "remove", "repeat", "add"]))
        if action == "add" or not keys:
            new, odd = draw(st.sampled_from(["id", "bbox", "x", "images"])), draw(ODD)
            place.__setitem__(new, odd) if isinstance(place, dict) else place.append(odd)
            continue
        key = draw(st.sampled_from(keys))
        if action == "exchange":
            place[key] = draw(ODD)
        elif action == "remove":
            del place[key]
        elif isinstance(place, list):
            place.append(copy.deepcopy(place[key]))
    return value


@st.composite
def damaged(draw: st.DrawFn, content: bytes) -> bytes:
    """The bytes, now and then cut off, with bytes exchanged, or with bytes put in."""
    if draw(st.integers(0, 2)):
        return content
    place = draw(st.integers(0, len(content)))
    action = draw(st.sampled_from(["cut", "exchange", "insert"]))
    if action == "cut":
        return content[:place]
    new = draw(st.binary(min_size=1, max_size=4))
    return content[:place] + new + content[place + (len(new) if action == "exchange" else 0) :]


def json_files(whole: Any) -> st.SearchStrategy[bytes]:
    """Files that Python's json writes, NaN and lone surrogates included."""
    return edited(whole).flatmap(lambda value: damaged(json.dumps(value).encode()))


def pickle_record() -> tuple[bytes, dict[str, bytes]]:
    """A small checkpoint: its pickle and its other records."""
    buffer = io.BytesIO()
    state = {"weight": torch.ones(2, 3), "bias": torch.zeros(2)}
    torch.save({"model": state, "exp": {"depth": 0.3}, "names": ["a"], "ema": None, "format_version": 1}, buffer)
    with zipfile.ZipFile(buffer) as archive:
        records = {record.filename: archive.read(record) for record in archive.infolist()}
    (name,) = (name for name in records if name.endswith("/data.pkl"))
    return records.pop(name), records


PICKLE, RECORDS = pickle_record()


@st.composite
def checkpoints(draw: st.DrawFn) -> bytes:
    """An archive with a changed pickle or changed records, then changed bytes."""
    if draw(st.booleans()):
        buffer = io.BytesIO()
        whole = {"model": {"weight": 1}, "exp": {"a": [1]}, "names": ["a"], "ema": {"model": {}}, "format_version": 1}
        torch.save(draw(edited(whole)), buffer)
        return draw(damaged(buffer.getvalue()))
    data = PICKLE
    for _ in range(draw(st.integers(0, 3))):
        data = draw(damaged(data))
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", draw(st.sampled_from([zipfile.ZIP_STORED] * 9 + [zipfile.ZIP_DEFLATED]))) as made:
        made.writestr("archive/data.pkl", data)
        for name, content in RECORDS.items():
            made.writestr("archive/" + name.partition("/")[2], draw(damaged(content)))
    return draw(damaged(buffer.getvalue()))


SETTINGS = tuple(YOLOXStarExp().attributes())
NUMBERS = st.one_of(st.integers(), st.floats()).map(str)
TEXTS = st.one_of(
    st.text(max_size=12),
    NUMBERS,
    st.lists(NUMBERS, max_size=3).map(lambda words: f"({', '.join(words)})"),
    st.sampled_from(
        ["none", "True", "1e999", "nan", "(1,", "[1,2]", "{[]: 1}", "(" * 300, "9" * 5000, "1_0", "\0", "''"]
    ),
)
OVERRIDES = st.lists(st.one_of(st.sampled_from(SETTINGS), TEXTS), max_size=4).flatmap(
    lambda keys: st.tuples(*(st.tuples(st.just(key), TEXTS) for key in keys))
)


def check_annotations(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.json"
        path.write_bytes(content)
        memory = AnnotationIndex.load(path, cache=False)
        index = AnnotationIndex.load(path)
        assert index.problems == memory.problems
        for i in range(len(index)):
            boxes, labels = index.boxes_of(i), index.labels_of(i)
            height, width = index.sizes[i].tolist()
            assert len(boxes) == len(labels)
            assert (boxes[:, :2] >= 0).all()
            assert (boxes[:, :2] < boxes[:, 2:]).all()
            assert (boxes[:, 2:] <= np.float32([width, height])).all()
            assert ((labels >= 0) & (labels < len(index.category_ids))).all()
            index.file_name(i)


def check_results(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "r.json"
        path.write_bytes(content)
        detections = load_detections(path)
        labels, images = labels_and_images(detections, AnnotationIndex.load(ANNOTATIONS), path)
        assert np.isfinite(detections.boxes).all()
        assert np.isfinite(detections.scores).all()
        assert ((labels >= 0) & (labels < 2) & (images >= 0) & (images < 2)).all()


def check_checkpoint(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "c.pth"
        path.write_bytes(content)
        loaded = load_checkpoint(path)
        load_weights(torch.nn.Linear(3, 2), loaded["model"], path)


def check_overrides(pairs: Sequence[tuple[str, str]]) -> None:
    exp = YOLOXStarExp()
    before = exp.attributes()
    exp.merge([word for pair in pairs for word in pair])
    changed = {key for key, _ in pairs}
    for key, value in exp.attributes().items():
        if key not in changed:
            assert value == before[key], key
        elif isinstance(value, float):
            assert math.isfinite(value)


TARGETS: dict[str, tuple[Callable[[Any], None], st.SearchStrategy[Any]]] = {
    "annotations": (check_annotations, json_files(ANNOTATIONS)),
    "results": (check_results, json_files(RESULTS)),
    "checkpoint": (check_checkpoint, checkpoints()),
    "overrides": (check_overrides, OVERRIDES),
}


def attempt(name: str, value: Any) -> bool:
    """Whether the reader takes the value; a refusal has to be one sentence."""
    try:
        TARGETS[name][0](value)
    except UserError as error:
        sentence = str(error)
        assert sentence
        assert "\n" not in sentence, sentence
        assert len(sentence) < 1000, sentence
        return False
    return True


def fuzz(name: str, seconds: float, seed: int) -> tuple[int, int]:
    """Run one reader for so long; returns executions and how many of them it took."""
    done = taken = 0
    end = time.monotonic() + seconds
    while time.monotonic() < end:

        @hypothesis.seed(seed)
        @settings(max_examples=200, deadline=None, database=None, suppress_health_check=list(HealthCheck))
        @given(TARGETS[name][1])
        def run(value: Any) -> None:
            nonlocal done, taken
            done += 1
            taken += attempt(name, value)

        run()
        seed += 1
    return done, taken


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("readers", nargs="*", default=list(TARGETS), help="all if none is given")
    parser.add_argument("--seconds", type=float, default=60, help="for each reader")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(words)
    for name in args.readers:
        done, taken = fuzz(name, args.seconds, args.seed)
        print(f"{name}: {done:,} executions, {taken:,} taken, {done - taken:,} refused, no finding", flush=True)


if __name__ == "__main__":
    main()
