"""Copy-paste of rare objects: what is drawn, what a paste does to pixels and boxes, and that a sample repeats."""

from __future__ import annotations

import numpy as np
import pytest

from tests.tiny import tiny_data, tiny_exp
from yolox_lt.data.annotations.index import AnnotationIndex
from yolox_lt.data.augment import copy_paste as module
from yolox_lt.data.augment.copy_paste import CopyPaste, cut, make_bank, put, visible_part
from yolox_lt.data.augment.transforms import Sample
from yolox_lt.data.sampling.sampler import SampleRequest
from yolox_lt.errors import UserError


def sample_of(height, width, boxes, labels, value=0):
    image = np.full((height, width, 3), value, dtype=np.uint8)
    return Sample(image, np.array(boxes, dtype=np.float32).reshape(-1, 4), np.array(labels, dtype=np.int64))


def test_bank__half_of_the_pastes_are_of_repeated_categories():
    labels = [np.array([0, 1]), np.zeros(0, dtype=np.int64), np.array([0]), np.array([0, 2, 2])]
    bank = make_bank(labels, np.array([1.0, 3.0, 2.0, 1.0]))
    assert list(zip(bank.image.tolist(), bank.box.tolist(), bank.label.tolist())) == [
        *((0, 0, 0), (0, 1, 1), (2, 0, 0), (3, 0, 0), (3, 1, 2), (3, 2, 2))
    ]
    # r_c - 1 is 2 and 1: two thirds of a half for the object of 1, a twelfth for each of 2; a sixth for each of 0.
    assert np.diff(bank.ends, prepend=0) == pytest.approx([1 / 6, 1 / 3, 1 / 6, 1 / 6, 1 / 12, 1 / 12])
    rng = np.random.default_rng(0)
    drawn = np.bincount([bank.draw(rng) for _ in range(6000)], minlength=6) / 6000
    assert drawn == pytest.approx([1 / 6, 1 / 3, 1 / 6, 1 / 6, 1 / 12, 1 / 12], abs=0.02)


def test_bank__a_single_object_is_not_pasted_over_and_over():
    bank = make_bank([np.array([0, 1, 1])], np.array([9.0, 4.0]))
    # Category 0 counts 3 for its one object, not 8; category 1 counts 3; nothing is frequent.
    assert np.diff(bank.ends, prepend=0) == pytest.approx([1 / 2, 1 / 4, 1 / 4])


def test_bank__without_a_rare_category_is_refused():
    with pytest.raises(UserError, match="copy_paste has no rare object to paste: raise repeat_thresh"):
        make_bank([np.array([0, 1])], np.ones(2))


def test_cut__takes_whole_pixels_around_the_box_and_keeps_its_place():
    sample = sample_of(20, 30, [[2.5, 4, 9, 8.25]], [0])
    sample.image[4:9, 2:9] = np.arange(35).reshape(5, 7, 1)
    crop, box = cut(sample, 0, 1.0)
    assert np.array_equal(crop, sample.image[4:9, 2:9])
    assert box.tolist() == [0.5, 0, 7, 4.25]
    crop, box = cut(sample, 0, 2.0)
    assert crop.shape == (10, 14, 3)
    assert box.tolist() == [1, 0, 14, 8.5]


def test_put__pixels_fade_at_the_edge_and_the_original_stays():
    sample = sample_of(12, 16, [], [], value=30)
    crop = np.full((6, 8, 3), 210, dtype=np.uint8)
    found = put(sample, crop, np.array([0, 0, 8, 6], dtype=np.float32), 5, (4, 3))
    assert (sample.image == 30).all()
    row = found.image[6, :, 0].tolist()
    assert row[:4] == [30] * 4  # then a third, two thirds, and all of the crop
    assert row[4:12] == [90, 150, 210, 210, 210, 210, 150, 90]
    assert row[12:] == [30] * 4
    assert found.image[3:9, 8, 0].tolist() == [90, 150, 210, 210, 150, 90]
    assert found.boxes.tolist() == [[4, 3, 12, 9]]
    assert found.labels.tolist() == [5]


def test_put__drops_what_is_hidden_and_keeps_the_rest_in_order():
    sample = sample_of(40, 40, [[0, 0, 10, 10], [9, 9, 21, 21], [16, 12, 30, 18], [20, 20, 40, 40]], [0, 1, 2, 3])
    crop = np.zeros((10, 10, 3), dtype=np.uint8)
    found = put(sample, crop, np.array([0, 0, 10, 10], dtype=np.float32), 7, (10, 10))
    # Box 1: 100 of 144 pixels, 69 %. Box 2: its left 4 of 14 pixels over the whole height, which go.
    assert found.labels.tolist() == [0, 1, 2, 3, 7]
    assert found.boxes.tolist() == [
        [0, 0, 10, 10],
        [9, 9, 21, 21],
        [20, 12, 30, 18],
        [20, 20, 40, 40],
        [10, 10, 20, 20],
    ]
    smaller = sample_of(40, 40, [[9, 9, 20, 20]], [1])  # 100 of 121, 83 %
    assert put(smaller, crop, np.array([0, 0, 10, 10], dtype=np.float32), 7, (10, 10)).labels.tolist() == [7]


@pytest.mark.parametrize(
    ("box", "want", "share"),
    [
        ([0, 0, 5, 5], [0, 0, 5, 5], 0.0),
        ([12, 12, 18, 18], [12, 12, 18, 18], 1.0),  # wholly covered: the share says it
        ([12, 5, 18, 15], [12, 5, 18, 10], 0.5),  # its lower half
        ([12, 15, 18, 25], [12, 20, 18, 25], 0.5),  # its upper half
        ([5, 12, 15, 18], [5, 12, 10, 18], 0.5),
        ([5, 5, 25, 25], [5, 5, 25, 25], 0.25),  # a hole in the middle
        ([15, 15, 25, 25], [15, 15, 25, 25], 0.25),  # a corner
        ([12, 5, 18, 25], [12, 5, 18, 25], 0.5),  # a strip through it
    ],
)
def test_visible_part__by_hand(box, want, share):
    boxes, covered = visible_part(np.array([box], dtype=np.float32), np.array([10, 10, 20, 20], dtype=np.float32))
    assert boxes.tolist() == [want]
    assert covered == pytest.approx([share])


def sources():
    """Image 0 is empty, image 1 holds a rare object of 8 x 8, image 2 a frequent one as large as image 0."""
    images = [
        sample_of(32, 32, [], []),
        sample_of(64, 64, [[10, 20, 18, 28]], [1], value=100),
        sample_of(64, 64, [[0, 0, 60, 60]], [0], value=200),
    ]
    return images, make_bank([image.labels for image in images], np.array([1.0, 3.0]))


def test_reader__pastes_into_an_empty_image_what_its_generator_says(monkeypatch):
    monkeypatch.setattr(module, "SCALE", (1.0, 1.0))
    images, bank = sources()
    paste = CopyPaste(bank, 2.0)
    counts = []
    for seed in range(400):
        found = paste.reader(images.__getitem__, np.random.default_rng(seed))(0)
        again = paste.reader(images.__getitem__, np.random.default_rng(seed))(0)
        assert np.array_equal(found.image, again.image)
        assert np.array_equal(found.boxes, again.boxes)
        assert set(found.labels.tolist()) <= {1}  # the frequent object does not fit
        counts.append(len(found.labels))
        for x1, y1, x2, y2 in found.boxes[-1:].astype(int):
            assert (x2 - x1, y2 - y1) == (8, 8)
            assert (found.image[y1 + 2 : y2 - 2, x1 + 2 : x2 - 2] == 100).all()
    # Poisson(2) objects, half of them rare, less the few that a later one hides.
    assert np.mean(counts) == pytest.approx(1.0, abs=0.15)
    assert (images[0].image == 0).all()


def test_reader__not_where_the_category_is_not_annotated_exhaustively():
    images, bank = sources()
    paste = CopyPaste(bank, 5.0, {0: frozenset({1})})
    for seed in range(20):
        assert 1 not in paste.reader(images.__getitem__, np.random.default_rng(seed))(0).labels


@pytest.fixture
def exp(tmp_path_factory, tmp_path):
    plain = {"mosaic_prob": 0.0, "flip_prob": 0.0, "hsv_prob": 0.0, "repeat_thresh": 0.5}
    return tiny_exp(tiny_data(tmp_path_factory), tmp_path, **plain)


def test_dataset__pastes_until_the_closing_epochs_and_repeats(exp):
    plain = exp.get_dataset()
    exp.copy_paste = 3.0
    pasting, again = exp.get_dataset(), exp.get_dataset()
    more = 0
    for number in range(20):
        closing, strong = (SampleRequest(number, number, use) for use in (False, True))
        assert np.array_equal(plain[closing].image, pasting[closing].image)
        assert np.array_equal(pasting[strong].image, again[strong].image)
        more += len(pasting[strong].labels) - len(plain[strong].labels)
    assert more > 20  # of 60, some hide others


def test_partial__of_lvis_is_read_from_the_annotations():
    boxes = [(1, 1), (1, 2), (2, 1), (3, 1), (3, 1)]
    index = AnnotationIndex.load(
        {
            "images": [
                *({"id": i, "width": 40, "height": 40, "file_name": f"{i}.jpg"} for i in (1, 2)),
                {"id": 3, "width": 40, "height": 40, "file_name": "3.jpg", "not_exhaustive_category_ids": [1]},
            ],
            "categories": [{"id": i, "name": str(i)} for i in (1, 2)],
            "annotations": [
                {"id": n, "image_id": image, "category_id": category, "bbox": [5, 5, 9, 9], "area": 81, "iscrowd": 0}
                for n, (image, category) in enumerate(boxes, 1)
            ],
        }
    )
    paste = module.copy_paste(index, np.array([2, 0]), 1.0, 1.0, 0.5)  # images 3 and 1
    assert paste.partial == {0: frozenset({0})}
    # Category 1 is in both images, category 2 in one of two: sqrt(2) - 1 of weight 1 for its one object.
    assert paste.bank.label.tolist() == [0, 0, 0, 1]
    assert np.diff(paste.bank.ends, prepend=0) == pytest.approx([1 / 6, 1 / 6, 1 / 6, 1 / 2])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"copy_paste": -1.0}, "copy_paste -1: give the mean number of pasted objects"),
        ({"copy_paste": 1.0, "repeat_thresh": 1e-9}, "no rare object to paste: raise repeat_thresh"),
    ],
)
def test_setting__that_makes_no_sense_is_refused(exp, changes, message):
    for name, value in changes.items():
        setattr(exp, name, value)
    with pytest.raises(UserError, match=message):
        exp.get_dataset()
