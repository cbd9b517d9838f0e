"""Mosaic and mixup against golden arrays, identities and hand-worked cases."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests.data.test_augment import float_array, golden_sample, grey_levels_apart, random_image, random_sample
from yolox_lt.data.augment import Sample
from yolox_lt.data.mosaic import mixup, mixup_slack, mosaic, tile_placement

Golden = Callable[[str], Any]


# -- mosaic ----------------------------------------------------------------------------------------------------------


def test_tile_placement__golden(golden: Golden) -> None:
    cases = golden("yolox_boxes.npz")["mosaic_cases"]
    assert len(cases) == 48
    for quadrant, x, y, width, height, input_height, input_width, *expected in cases.tolist():
        target, source = tile_placement(quadrant, (x, y), (height, width), (input_height, input_width))
        assert [*target, *source] == expected


def test_mosaic__golden(golden: Golden) -> None:
    arrays = golden("transforms.npz")
    _, y, x, *others = arrays["mosaic_draws"].tolist()
    samples = [golden_sample(arrays, int(i)) for i in [0, *others]]
    result = mosaic(samples, (int(x), int(y)), (64, 64), fill=0)
    assert grey_levels_apart(result.image, arrays["mosaic_image"]) <= 1
    np.testing.assert_allclose(result.boxes, arrays["mosaic_box"][:, :4], atol=1e-4)
    np.testing.assert_array_equal(result.labels + 1, arrays["mosaic_box"][:, 4])
    assert result.boxes.dtype == np.float32
    assert result.labels.dtype == np.int64


def test_mosaic__four_equal_tiles_at_the_centre() -> None:
    sample = random_sample(32, 48, 2)
    result = mosaic([sample] * 4, (48, 32), (32, 48), fill=114)
    np.testing.assert_array_equal(result.image, np.tile(sample.image, (2, 2, 1)))
    for quadrant, (x, y) in enumerate([(0, 0), (48, 0), (0, 32), (48, 32)]):
        part = slice(2 * quadrant, 2 * quadrant + 2)
        np.testing.assert_allclose(result.boxes[part], sample.boxes + float_array([x, y, x, y]), rtol=1e-6)
        np.testing.assert_array_equal(result.labels[part], sample.labels)


@pytest.mark.parametrize("fill", [0, 114])
def test_mosaic__one_pixel_and_odd_tiles(fill: int) -> None:
    """Boxes that frame the whole image frame the pasted tile exactly, whatever the sides were cut to."""
    sizes = [(1, 1), (1, 500), (500, 1), (333, 251)]
    samples = [
        Sample(np.full((h, w, 3), 200 + i, dtype=np.uint8), float_array([[0, 0, w, h]]), np.array([i]))
        for i, (h, w) in enumerate(sizes)
    ]
    result = mosaic(samples, (50, 70), (64, 64), fill)
    assert result.image.shape == (128, 128, 3)
    covered = np.zeros((128, 128), dtype=bool)
    for i, (x1, y1, x2, y2) in enumerate(np.round(result.boxes).astype(int)):
        tile = result.image[y1:y2, x1:x2]
        assert tile.size > 0
        assert (tile == 200 + i).all()
        covered[y1:y2, x1:x2] = True
    assert (result.image[~covered] == fill).all()
    np.testing.assert_allclose(result.boxes, np.round(result.boxes), atol=1e-4)


def test_mosaic__no_boxes_in_some_tiles() -> None:
    samples = [random_sample(40, 30, count, seed) for seed, count in enumerate([0, 2, 0, 1])]
    result = mosaic(samples, (64, 64), (64, 64), fill=0)
    assert result.boxes.shape == (3, 4)
    np.testing.assert_array_equal(result.labels, [0, 1, 0])
    empty = mosaic([samples[0]] * 4, (64, 64), (64, 64), fill=0)
    assert empty.boxes.shape == (0, 4)
    assert empty.boxes.dtype == np.float32


# -- mixup -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", ["a", "b"])
def test_mixup__golden(golden: Golden, case: str) -> None:
    arrays = golden("transforms.npz")
    table = arrays["persp_box"]
    base = Sample(arrays["persp_image"], table[:, :4], table[:, 4].astype(np.int64) - 1)
    partner = golden_sample(arrays, int(arrays["mixup_partner_index"]))
    scale, _, *offset = arrays[f"mixup_{case}_draws_jitter_flip_yoff_xoff"].tolist()
    y, x = (int(v) for v in offset) if offset else (0, 0)
    result = mixup(base, partner, scale, flipped=False, offset=(y, x), fill=0, filter_boxes=True)
    assert grey_levels_apart(result.image, arrays[f"mixup_{case}_image"]) <= 1
    np.testing.assert_allclose(result.boxes, arrays[f"mixup_{case}_box"][:, :4], atol=1e-4)
    np.testing.assert_array_equal(result.labels + 1, arrays[f"mixup_{case}_box"][:, 4])


def test_mixup__mean_is_cut_to_whole_grey_levels() -> None:
    one, other = random_image(64, 64, 1), random_image(64, 64, 2)
    base = Sample(one, np.zeros((0, 4), np.float32), np.zeros(0, np.int64))
    partner = Sample(other, float_array([[1, 2, 30, 40]]), np.array([1202]))
    result = mixup(base, partner, 1.0, flipped=False, offset=(0, 0), fill=114, filter_boxes=False)
    np.testing.assert_array_equal(result.image, (one.astype(int) + other) // 2)
    np.testing.assert_array_equal(result.boxes, partner.boxes)
    np.testing.assert_array_equal(result.labels, [1202])


def test_mixup__flipped_partner_by_hand() -> None:
    """A 20 x 10 partner in a 40 x 40 input fills 40 x 20; at scale 0.5 that is 20 x 10, mirrored inside 20 x 20."""
    base = Sample(np.zeros((40, 40, 3), np.uint8), np.zeros((0, 4), np.float32), np.zeros(0, np.int64))
    image = np.full((20, 10, 3), 100, dtype=np.uint8)
    partner = Sample(image, float_array([[1, 2, 5, 10]]), np.array([7]))
    result = mixup(base, partner, 0.5, flipped=True, offset=(0, 0), fill=60, filter_boxes=False)
    np.testing.assert_allclose(result.boxes, [[15, 2, 19, 10]], atol=1e-5)
    assert (result.image[:20, 11:20] == 50).all()  # half of the partner
    assert (result.image[:20, :9] == 30).all()  # half of the fill around it
    assert (result.image[20:] == 0).all()  # beyond its canvas
    assert (result.image[:, 20:] == 0).all()


def test_mixup__official_crop_clips_boxes() -> None:
    base = Sample(np.zeros((32, 32, 3), np.uint8), np.zeros((0, 4), np.float32), np.zeros(0, np.int64))
    partner = Sample(random_image(32, 32), float_array([[0, 0, 4, 4], [10, 10, 32, 32]]), np.array([0, 1]))
    result = mixup(base, partner, 1.5, flipped=False, offset=(15, 9), fill=114, filter_boxes=False)
    np.testing.assert_allclose(result.boxes, [[0, 0, 0, 0], [6, 0, 32, 32]], atol=1e-5)


def test_mixup__no_surviving_box_returns_the_base() -> None:
    base = random_sample(64, 64, 3)
    small = Sample(random_image(64, 64, 5), float_array([[0, 0, 5, 60]]), np.array([0]))  # side is not above 5
    assert mixup(base, small, 1.0, False, (0, 0), fill=0, filter_boxes=True) is base
    assert len(mixup(base, small, 1.0, False, (0, 0), fill=0, filter_boxes=False).boxes) == 4
    empty = random_sample(64, 64, 0)
    for rule in (True, False):
        assert mixup(base, empty, 1.0, False, (0, 0), fill=0, filter_boxes=rule) is base


def test_mixup__one_pixel_partner() -> None:
    base = random_sample(32, 32, 1)
    partner = Sample(random_image(1, 500), float_array([[0, 0, 250, 1]]), np.array([3]))
    result = mixup(base, partner, 0.01, flipped=True, offset=(0, 0), fill=114, filter_boxes=False)
    assert result.image.shape == (32, 32, 3)
    assert len(result.boxes) == 2


def test_mixup_slack__by_hand() -> None:
    assert mixup_slack((64, 96), 1.241612) == (15, 23)
    assert mixup_slack((64, 96), 1.0) == (0, 0)
    assert mixup_slack((64, 96), 0.8) == (0, 0)
