"""Broken data sets: trained as they should be, skipped and counted, or refused in one sentence."""

from __future__ import annotations

import multiprocessing
import os
import re
import signal
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from tests.data.broken import BAD_IMAGES, FILE_DEFECTS, BrokenSet, broken_sets
from yolox_lt.commands.common import user_error
from yolox_lt.data.annotations.index import AnnotationIndex
from yolox_lt.data.collate import Collate
from yolox_lt.data.dataset import EvalDataset, ImageStore, Letterbox, TrainDataset
from yolox_lt.data.image_file import BadImageError, decode
from yolox_lt.data.loader import train_loader
from yolox_lt.data.sampling.sampler import SampleRequest, SampleSampler, SampleStream
from yolox_lt.errors import UserError

QUICK = settings(
    max_examples=60, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)


class AsItIs:
    """The recipe without any augmentation."""

    def __call__(self, index, rng, use_mosaic, read, partner):
        return read(index)


def dataset_of(path: Path, skip: bool) -> TrainDataset:
    index = AnnotationIndex.load(path)
    return TrainDataset(ImageStore(index, path.parent), np.arange(len(index)), AsItIs(), 0, skip)


def check_image(broken: BrokenSet, image_id: int, image: np.ndarray, boxes: np.ndarray) -> None:
    """Pixels [H, W, 3] and boxes [G, 4] are those of the image with this id."""
    picture = next(p for p in broken.pictures if p.id == image_id)
    assert picture.expected is not None
    assert image.shape == picture.expected.shape
    assert np.abs(image.astype(int) - picture.expected).max() <= picture.tolerance
    wanted = [box for entry, box in broken.boxes if entry["image_id"] == image_id and box is not None]
    assert boxes.tolist() == [list(box) for box in wanted]


def check_every_image(broken: BrokenSet, path: Path) -> None:
    """Without skipping: right or refused, image by image, and the good ones as a batch."""
    dataset = dataset_of(path, skip=False)
    order = sorted(broken.pictures, key=lambda picture: picture.id)
    items = []
    for position, picture in enumerate(order):
        event(picture.kind)
        if picture.expected is not None:
            items.append(dataset[SampleRequest(position, 0, False)])
            check_image(broken, picture.id, items[-1].image, items[-1].boxes)
            continue
        with pytest.raises(BadImageError) as refused:
            dataset[SampleRequest(position, 0, False)]
        sentence = str(refused.value)
        assert sentence.startswith(f"{path.parent / picture.name}: ")
        assert sentence.endswith(f"(image id {picture.id})")
        assert re.search(BAD_IMAGES[picture.kind], sentence)
        assert "\n" not in sentence
    if items:
        batch = Collate(fill=114)(items)
        for b, (image_id, (height, width)) in enumerate(zip(batch.image_ids.tolist(), batch.image_sizes.tolist())):
            shown = batch.images[b].permute(1, 2, 0).numpy()  # [3, H, W] -> [H, W, 3]
            check_image(broken, image_id, shown[:height, :width], batch.boxes[b].numpy())
            assert (shown[height:] == 114).all()
            assert (shown[:, width:] == 114).all()


def check_skipping(broken: BrokenSet, path: Path) -> None:
    """With skip_bad_images every draw gives a good image and names the bad ones that it met."""
    dataset = dataset_of(path, skip=True)
    bad = {str(path.parent / p.name) for p in broken.pictures if p.expected is None}
    for position, picture in enumerate(sorted(broken.pictures, key=lambda picture: picture.id)):
        if len(bad) == len(broken.pictures):
            with pytest.raises(UserError, match="21 images in a row cannot be read"):
                dataset[SampleRequest(position, 0, False)]
            continue
        item = dataset[SampleRequest(position, 0, False)]
        check_image(broken, item.image_id, item.image, item.boxes)
        assert set(item.skipped) <= bad
        assert bool(item.skipped) == (picture.expected is None)


def check_evaluation(broken: BrokenSet, path: Path) -> None:
    """Every image has its place in an evaluation; a bad one is empty and named."""
    dataset = EvalDataset(ImageStore(AnnotationIndex.load(path), path.parent), Letterbox((32, 32), 114, True), True)
    for position, picture in enumerate(sorted(broken.pictures, key=lambda picture: picture.id)):
        item = dataset[position]
        assert item.image_id == picture.id
        assert item.skipped == (() if picture.expected is not None else (str(path.parent / picture.name),))
        assert picture.expected is not None or (item.image == 114).all()


def run_case(broken: BrokenSet) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = broken.write(Path(folder) / "sub")
        check_every_image(broken, path)
        check_skipping(broken, path)
        check_evaluation(broken, path)


def read_image(path: Path, image_id: int) -> None:
    dataset = dataset_of(path, skip=False)
    dataset[SampleRequest(int(np.searchsorted(dataset.store.index.image_ids, image_id)), 0, False)]


def run_refused_file(broken: BrokenSet) -> None:
    assert broken.defect is not None
    with tempfile.TemporaryDirectory() as folder:
        path = broken.write(Path(folder) / "sub")
        with pytest.raises(UserError) as refused:
            read_image(path, broken.pictures[0].id)
        sentence = str(refused.value)
        assert sentence.startswith(f"{path}: ")
        wanted = FILE_DEFECTS[broken.defect].format(image=broken.pictures[0].id, category=broken.category)
        assert re.search(wanted, sentence), sentence
        assert "\n" not in sentence


@QUICK
@given(broken_sets(defects=False))
def test_images_and_boxes__are_right_or_refused_or_skipped(broken):
    run_case(broken)


@QUICK
@given(broken_sets(defects=True))
def test_annotation_files__are_refused_with_file_and_entry(broken):
    run_refused_file(broken)


@pytest.mark.slow
@settings(QUICK, max_examples=2000)
@given(st.booleans().flatmap(lambda defects: broken_sets(defects=defects)))
def test_broken_sets__two_thousand(broken):
    run_case(broken) if broken.defect is None else run_refused_file(broken)


def test_duplicate_annotation_ids__are_trained_and_counted(tmp_path):
    path = tmp_path / "a.json"
    entry = '{"id": 5, "image_id": 1, "category_id": 2, "bbox": [0, 0, 2, 2]}'
    images = '[{"id": 1, "width": 4, "height": 4, "file_name": "a.png"}]'
    path.write_text(f'{{"images": {images}, "annotations": [{entry}, {entry}], "categories": [{{"id": 2}}]}}')
    index = AnnotationIndex.load(path)
    assert (index.problems["duplicate annotation id"], index.problems["duplicate annotation"]) == (1, 1)
    assert len(index.boxes_of(0)) == 2


def test_large_truncated_jpeg__is_refused_wherever_it_ends():
    """Above the decoder's buffer a cut leaves whole rows of blocks behind, which must not pass for an image."""
    noise = np.random.default_rng(0).integers(0, 256, (300, 400, 3), np.uint8)
    for options in ([cv2.IMWRITE_JPEG_PROGRESSIVE, 0], [cv2.IMWRITE_JPEG_PROGRESSIVE, 1]):
        content = cv2.imencode(".jpg", noise, options)[1].tobytes()
        assert decode(content) is not None
        for share in (0.01, 0.3, 0.7, 0.99):
            assert decode(content[: int(share * len(content))]) is None
        assert decode(content[:-2]) is None


# ------------------------------------------------------------------------------------------------- worker processes


class Dies(AsItIs):
    """A recipe that is killed as by the kernel when memory is full, or leaves by itself."""

    def __init__(self, how: str) -> None:
        self.how = how

    def __call__(self, index, rng, use_mosaic, read, partner):
        if self.how == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        os._exit(7)


class Hangs(AsItIs):
    """A decoder that comes back later than anybody waits for."""

    def __call__(self, index, rng, use_mosaic, read, partner):
        time.sleep(2.8)


def good_set(folder: Path, count: int) -> Path:
    for i in range(count):
        cv2.imwrite(str(folder / f"{i}.png"), np.full((4, 4, 3), i, np.uint8))
    images = ", ".join(f'{{"id": {i}, "width": 4, "height": 4, "file_name": "{i}.png"}}' for i in range(count))
    path = folder / "a.json"
    path.write_text(f'{{"images": [{images}], "categories": [{{"id": 2}}]}}')
    return path


def loader_of(dataset: TrainDataset, iterations: int, timeout: float):
    sampler = SampleSampler(SampleStream(np.ones(len(dataset), np.int64)), 1, 0, iterations, 0)
    return train_loader(dataset, sampler, Collate(), 1, False, timeout)


@pytest.mark.parametrize(
    ("recipe", "words"),
    [
        (Dies("killed"), "a data worker died .*memory was full; lower data_num_workers"),
        (Dies("exit"), "a data worker died .*set data_num_workers 0 to see the reason"),
        (Hangs(), "no batch came from the data workers .*after 2.* seconds.*raise worker_timeout"),
    ],
    ids=["killed", "exit", "hangs"],
)
def test_worker__that_dies_or_hangs_ends_the_run_with_a_sentence(tmp_path, recipe, words):
    dataset = dataset_of(good_set(tmp_path, 2), skip=False)
    dataset.augment = recipe
    start = time.monotonic()
    # A killed worker may be noticed by torch's signal handler, wherever the main process is then.
    with pytest.raises((UserError, RuntimeError)) as ended:
        next(iter(loader_of(dataset, 4, 2)))
    assert time.monotonic() - start < 60
    sentence = user_error(ended.value)
    del ended  # it holds the loader in a cycle, whose processes torch waits for when that is collected
    assert sentence is not None
    assert re.search(words, sentence), sentence
    assert "\n" not in sentence


@pytest.mark.parametrize("skip", [False, True])
def test_files_that_vanish_while_training(tmp_path, skip):
    before = set(multiprocessing.active_children())
    dataset = dataset_of(good_set(tmp_path, 12), skip)
    batches = iter(loader_of(dataset, 60, 60))
    first = next(batches)
    assert (first.images[0, :, :4, :4] == first.image_ids[0]).all()
    for i in range(6):
        (tmp_path / f"{i}.png").unlink()
    if skip:
        rest = list(batches)
        assert all((b.images[0, :, :4, :4] == b.image_ids[0]).all() for b in rest)
        assert {name for b in rest for name in b.skipped} == {str(tmp_path / f"{i}.png") for i in range(6)}
        return
    with pytest.raises(BadImageError) as ended:
        list(batches)
    assert set(multiprocessing.active_children()) <= before  # the workers have ended, before anything is collected
    sentence = user_error(ended.value)
    assert sentence is not None
    assert re.fullmatch(r".*/([0-5])\.png: image file not found; [^\n]* \(image id \1\)", sentence)


def test_missing_set__ends_after_twenty_replacements(tmp_path):
    dataset = dataset_of(good_set(tmp_path, 3), skip=True)
    for i in range(3):
        (tmp_path / f"{i}.png").unlink()
    with pytest.raises(
        UserError,
        match=r"21 images in a row cannot be read, the last one because: .*image file not found; check data_dir",
    ):
        dataset[SampleRequest(0, 0, False)]


def test_labels__survive_ids_of_zero_and_two_to_the_forty(tmp_path):
    path = tmp_path / "a.json"
    path.write_text(
        '{"images": [{"id": 0, "width": 4, "height": 4}, {"id": 1099511627776, "width": 4, "height": 4}],'
        '"categories": [{"id": 1099511627776, "name": "b"}, {"id": 0, "name": "a"}], "annotations": ['
        '{"id": 0, "image_id": 1099511627776, "category_id": 1099511627776, "bbox": [0, 0, 1, 1]},'
        '{"id": 1099511627776, "image_id": 0, "category_id": 0, "bbox": [0, 0, 2, 2]}]}'
    )
    index = AnnotationIndex.load(path)
    assert index.category_names == ("a", "b")
    assert [index.labels_of(i).tolist() for i in range(2)] == [[0], [1]]
    assert [index.boxes_of(i).tolist() for i in range(2)] == [[[0, 0, 2, 2]], [[0, 0, 1, 1]]]
    assert torch.tensor(index.image_ids).tolist() == [0, 2**40]
