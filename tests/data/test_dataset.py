"""Reading, replacing, batching: what reaches the network, whoever reads it."""

from __future__ import annotations

import json
import pickle

import cv2
import numpy as np
import pytest
import torch

from tests.tiny import tiny_data, tiny_exp
from yolox_lt.data.annotations.index import AnnotationIndex
from yolox_lt.data.collate import Collate, Item
from yolox_lt.data.dataset import BadImageError, EvalDataset, ImageStore, Letterbox
from yolox_lt.data.sampling.sampler import SampleSampler
from yolox_lt.errors import UserError
from yolox_lt.images import read_image


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return tiny_data(tmp_path_factory)


def batches_of(exp, workers, iterations=4):
    exp.data_num_workers = workers
    dataset = exp.get_dataset(seed=3)
    factors = exp.get_factors(dataset.store.index, dataset.images)
    sampler = SampleSampler(exp.get_sampler(factors, 3, 0, 1), 3, 0, iterations, iterations - 1)
    return list(exp.get_data_loader(dataset, sampler))


def test_batches__are_the_same_for_any_number_of_workers(data, tmp_path):
    exp = tiny_exp(data, tmp_path, multiscale_range=0)
    alone = batches_of(exp, 0)
    for workers in (1, 4):
        for a, b in zip(alone, batches_of(exp, workers), strict=True):
            assert torch.equal(a.images, b.images)
            assert torch.equal(a.image_ids, b.image_ids)
            assert all(torch.equal(x, y) for x, y in zip(a.boxes, b.boxes))
            assert all(torch.equal(x, y) for x, y in zip(a.labels, b.labels))


def test_dataset__pickles_as_a_path(data, tmp_path):
    dataset = tiny_exp(data, tmp_path).get_dataset()
    assert len(pickle.dumps(dataset)) < 10_000
    assert len(pickle.loads(pickle.dumps(dataset))) == len(dataset)


def item(height, width, value, boxes=()):
    image = np.full((height, width, 3), value, np.uint8)
    boxes = np.array(boxes, np.float32).reshape(-1, 4)
    return Item(image, boxes, np.zeros(len(boxes), np.int64), 5, (height, width), (9, 9))


def test_collate__pads_to_a_multiple_of_32_and_keeps_an_image_without_boxes():
    batch = Collate(fill=114)([item(33, 64, 1), item(20, 70, 2, [[1, 2, 3, 4]])])
    assert batch.images.shape == (2, 3, 64, 96)
    assert batch.images.dtype == torch.uint8
    assert batch.images.is_contiguous(memory_format=torch.channels_last)
    assert (batch.images[0, :, :33, :64] == 1).all()
    assert (batch.images[0, :, 33:] == 114).all()
    assert (batch.images[1, :, :20, 70:] == 114).all()
    assert [len(b) for b in batch.boxes] == [0, 1]
    assert batch.image_sizes.tolist() == [[33, 64], [20, 70]]


def write_set(folder, files, **image):
    """Annotation file for image files of 20 x 10 pixels."""
    images = [{"id": i, "width": 20, "height": 10, **keys, **image} for i, keys in enumerate(files, 1)]
    content = {
        "images": images,
        "categories": [{"id": 3, "name": "a"}],
        "annotations": [
            {"id": i, "image_id": i, "category_id": 3, "bbox": [1, 1, 5, 5]} for i in range(1, len(files) + 1)
        ],
    }
    path = folder / "ann.json"
    path.write_text(json.dumps(content))
    return AnnotationIndex.load(path)


def write_image(path, height=10, width=20):
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.full((height, width, 3), 200, np.uint8))


def test_paths__coco_url_file_name_images_folder_and_given_folder(tmp_path):
    files = [{"coco_url": "http://host/val2017/7.jpg"}, {"file_name": "sub/8.jpg"}, {"file_name": "9.jpg"}]
    index = write_set(tmp_path, files)
    names = ["val2017/7.jpg", "sub/8.jpg", "images/9.jpg"]
    for name in names:
        write_image(tmp_path / name)
    store = ImageStore(index, tmp_path)
    assert [store.path(i).relative_to(tmp_path).as_posix() for i in range(3)] == [
        "val2017/7.jpg",
        "sub/8.jpg",
        "images/9.jpg",
    ]
    assert [store.read(i).shape for i in range(3)] == [(10, 20, 3)] * 3
    given = ImageStore(index, tmp_path, "train2017")
    assert given.path(0).relative_to(tmp_path).as_posix() == "train2017/7.jpg"


def test_read__names_what_is_wrong_with_a_file(tmp_path):
    files = [{"file_name": f"{name}.jpg"} for name in ("missing", "empty", "text", "size")]
    store = ImageStore(write_set(tmp_path, files), tmp_path)
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "text.jpg").write_text("hello")
    write_image(tmp_path / "size.jpg", 12, 20)
    for i, message in enumerate(
        (
            r"missing\.jpg: image file not found",
            r"empty\.jpg: not a readable",
            r"text\.jpg: not a readable",
            r"20x12 .* 20x10",
        )
    ):
        with pytest.raises(BadImageError, match=message):
            store.read(i)


def test_read__applies_exif_rotation(tmp_path):
    """Boxes are drawn on the image as it is shown; a size that fits the stored pixels alone is refused by name."""
    # Orientation 6 (rotate by 90 degrees) in a minimal EXIF segment behind the JPEG's first two bytes.
    image = np.zeros((10, 20, 3), np.uint8)
    image[:, :4] = 255  # the left border becomes the upper one
    ok, jpeg = cv2.imencode(".jpg", image)
    assert ok
    tiff = b"II*\x00\x08\x00\x00\x00\x01\x00\x12\x01\x03\x00\x01\x00\x00\x00\x06\x00\x00\x00\x00\x00\x00\x00"
    segment = b"Exif\x00\x00" + tiff
    app1 = b"\xff\xe1" + (len(segment) + 2).to_bytes(2, "big") + segment
    data = jpeg.tobytes()
    (tmp_path / "turned.jpg").write_bytes(data[:2] + app1 + data[2:])
    shown = {"file_name": "turned.jpg", "width": 10, "height": 20}
    read = ImageStore(write_set(tmp_path, [shown]), tmp_path).read(0)
    assert read.shape == (20, 10, 3)
    assert read[:3].min() > 200
    assert read[8:].max() < 50
    np.testing.assert_array_equal(read, read_image(tmp_path / "turned.jpg"))  # what demo and api see
    stored = ImageStore(write_set(tmp_path, [shown | {"width": 20, "height": 10}]), tmp_path)
    with pytest.raises(
        BadImageError, match=r"turned\.jpg: has an EXIF rotation, so it is shown as 10x20, .* say 20x10"
    ):
        stored.read(0)


def test_letterbox__records_how_to_come_back():
    got = Letterbox((64, 96), 0, truncate=False)(np.full((333, 251, 3), 9, np.uint8))
    assert got.image.shape == (64, 96, 3)
    assert got.scale == (64 / 333, 64 / 333)
    assert got.content_size == (64, 48)  # 251 * 64 / 333 = 48.2
    assert (got.image[:, 48:] == 0).all()
    assert (got.image[:, :48] == 9).all()


def test_eval_dataset__covers_every_image_also_without_boxes(tmp_path):
    index = write_set(tmp_path, [{"file_name": "1.jpg"}, {"file_name": "2.jpg"}])
    write_image(tmp_path / "1.jpg")
    write_image(tmp_path / "2.jpg")
    dataset = EvalDataset(ImageStore(index, tmp_path), Letterbox((32, 32), 114, truncate=True))
    assert [dataset[i].image_id for i in range(len(dataset))] == [1, 2]


def test_experiment__refuses_data_it_cannot_train_on(data, tmp_path):
    exp = tiny_exp(data, tmp_path, num_classes=9)
    exp.prepare_data = lambda: None
    with pytest.raises(UserError, match=r"has 4 categories but num_classes is 9; set num_classes 4"):
        exp.get_index("train")
    with pytest.raises(UserError, match=r"annotations/none\.json: annotation file not found; set data_dir"):
        tiny_exp(data, tmp_path, train_ann="none.json").get_index("train")
    empty = tmp_path / "empty.json"
    categories = [{"id": i, "name": str(i)} for i in range(4)]
    images = [{"id": 1, "width": 5, "height": 5, "file_name": "a.jpg"}]
    empty.write_text(json.dumps({"images": images, "annotations": [], "categories": categories}))
    exp = tiny_exp(data, tmp_path, train_ann=str(empty))
    with pytest.raises(UserError, match="no image has a usable box"):
        exp.train_positions(exp.get_index("train"))
    with pytest.raises(UserError, match=r"a\.jpg: no image of .*empty\.json found there"):
        exp.get_store("train")


def test_images_without_boxes__are_left_out_or_kept_as_background(data, tmp_path):
    content = json.loads((data / "annotations/glyphs_train.json").read_text())
    lonely = content["images"][0]["id"]
    content["annotations"] = [a for a in content["annotations"] if a["image_id"] != lonely]
    with_boxes = len({a["image_id"] for a in content["annotations"]})
    path = tmp_path / "some.json"
    path.write_text(json.dumps(content))
    exp = tiny_exp(data, tmp_path, train_ann=str(path))
    index = exp.get_index("train")
    assert 0 not in exp.train_positions(index)
    assert len(exp.train_positions(index)) == with_boxes
    exp.keep_empty = True
    assert len(exp.train_positions(index)) == len(index)
    sample = exp.get_dataset().sample(0)
    assert len(sample.boxes) == 0
    assert sample.boxes.shape == (0, 4)


def test_skip_bad_images__replaces_the_same_way_every_time_and_names_the_file(data, tmp_path):
    import shutil

    broken = tmp_path / "broken"
    shutil.copytree(data, broken)
    victim = sorted((broken / "train2017").glob("*.jpg"))[0]
    victim.write_bytes(b"")
    exp = tiny_exp(broken, tmp_path)
    dataset = exp.get_dataset()
    draw = next(
        d
        for batch in SampleSampler(exp.get_sampler(np.ones(len(dataset), int), 0, 0, 1), 1, 0, 999, 0)
        for d in batch
        if d.image == 0
    )
    with pytest.raises(BadImageError, match=str(victim)):
        dataset[draw]
    dataset.skip_bad_images = True
    first, second = dataset[draw], dataset[draw]
    assert first.skipped == (str(victim),)
    assert first.image_id == second.image_id != 1
    assert np.array_equal(first.image, second.image)


def test_eval_dataset__skips_an_unreadable_image_only_when_asked(tmp_path):
    index = write_set(tmp_path, [{"file_name": "1.jpg"}])
    (tmp_path / "1.jpg").write_text("hello")
    store = ImageStore(index, tmp_path)
    with pytest.raises(BadImageError):
        EvalDataset(store, Letterbox((32, 32), 114, truncate=True))[0]
    got = EvalDataset(store, Letterbox((32, 32), 114, truncate=True), skip_bad_images=True)[0]
    assert got.skipped == (str(tmp_path / "1.jpg"),)
    assert (got.image == 114).all()


def test_cache__reads_every_image_once_and_serves_it_from_memory(tmp_path):
    index = write_set(tmp_path, [{"file_name": "1.jpg"}, {"file_name": "missing.jpg"}])
    write_image(tmp_path / "1.jpg")
    store = ImageStore(index, tmp_path, cache=True)
    (tmp_path / "1.jpg").unlink()
    assert store.read(0).shape == (10, 20, 3)
    with pytest.raises(BadImageError, match="missing"):
        store.read(1)


@pytest.mark.parametrize("sampler", ["uniform", "repeat_factor", "instance_repeat_factor", "class_balanced"])
def test_samplers__by_name_and_partners_drawn_alike(data, tmp_path, sampler):
    """Every sampler starts anywhere as if it had run there; partners "same" have its factors."""
    exp = tiny_exp(data, tmp_path, sampler=sampler, partners="same", repeat_thresh=0.5, epoch_length="repeated")
    dataset = exp.get_dataset(seed=3)
    factors = exp.get_factors(dataset.store.index, dataset.images)
    assert len(factors) == len(dataset)
    np.testing.assert_allclose(np.diff(dataset.partner_ends, prepend=0), factors)
    if sampler == "class_balanced":
        assert factors.sum() == pytest.approx(len(dataset))
    else:
        assert (factors >= 1).all()
    assert exp.iterations_per_epoch(factors, 4, 1) == min(-(-int(np.ceil(factors.sum())) // 4), exp.max_iter)
    whole = list(SampleSampler(exp.get_sampler(factors, 3, 0, 1), 3, 0, 300, 300))
    assert list(SampleSampler(exp.get_sampler(factors, 3, 0, 1), 3, 250, 300, 300)) == whole[250:]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("sampler", r"sampler 'x' is unknown; choose one of uniform, repeat_factor, instance_repeat_factor, class_bal"),
        ("partners", r"partners 'x' is unknown; choose one of uniform, same"),
        ("repeat_rounding", r"repeat_rounding 'x' is unknown; choose one of ceil, stochastic, floor, round"),
    ],
)
def test_samplers__unknown_names_are_refused(data, tmp_path, name, message):
    exp = tiny_exp(data, tmp_path, **{"partners": "same", name: "x"})
    with pytest.raises(UserError, match=message):
        exp.get_dataset()
