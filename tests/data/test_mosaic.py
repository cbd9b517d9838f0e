"""Mosaic and mixup against golden arrays, the released order, identities and hand-worked cases.

The golden arrays come from the released order of operations. `released_order` reproduces it to a grey level; the scenes
have the same boxes, and pixels that differ by what a second interpolation changes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests.data import released_order
from tests.data.test_augment import float_array, golden_sample, grey_levels_apart, random_image, random_sample
from yolox_lt.data.augment.mosaic import Scene, Tile, mixup, mixup_slack, mosaic, render_scene, tile_placement
from yolox_lt.data.augment.transforms import Sample, affine_matrix, surviving
from yolox_lt.data.augment.warp import ALONE, Affine

Golden = Callable[[str], Any]


def scene_of(sample: Sample) -> Scene:
    """A scene that is one image."""
    height, width = sample.image.shape[:2]
    return Scene((height, width), (Tile(sample.image, Affine.scaling(1, 1), ALONE),), None, sample.boxes, sample.labels)


def mean_distance(a: np.ndarray, b: np.ndarray) -> float:
    """Mean absolute difference in grey levels."""
    assert a.shape == b.shape
    return float(np.abs(a.astype(np.int64) - b).mean())


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
    plain = released_order.mosaic(samples, (int(x), int(y)), (64, 64), fill=0)
    assert grey_levels_apart(plain.image, arrays["mosaic_image"]) <= 1
    scene = mosaic(samples, (int(x), int(y)), (64, 64))
    assert grey_levels_apart(render_scene(scene, fill=0), arrays["mosaic_image"]) <= 3
    for boxes, labels in ((plain.boxes, plain.labels), (scene.boxes, scene.labels)):
        np.testing.assert_allclose(boxes, arrays["mosaic_box"][:, :4], atol=1e-4)
        np.testing.assert_array_equal(labels + 1, arrays["mosaic_box"][:, 4])
        assert boxes.dtype == np.float32
        assert labels.dtype == np.int64


def test_mosaic__four_equal_tiles_at_the_centre() -> None:
    sample = random_sample(32, 48, 2)
    scene = mosaic([sample] * 4, (48, 32), (32, 48))
    np.testing.assert_array_equal(render_scene(scene, fill=114), np.tile(sample.image, (2, 2, 1)))
    for quadrant, (x, y) in enumerate([(0, 0), (48, 0), (0, 32), (48, 32)]):
        part = slice(2 * quadrant, 2 * quadrant + 2)
        np.testing.assert_allclose(scene.boxes[part], sample.boxes + float_array([x, y, x, y]), rtol=1e-6)
        np.testing.assert_array_equal(scene.labels[part], sample.labels)


@pytest.mark.parametrize("fill", [0, 114])
def test_mosaic__one_pixel_and_odd_tiles(fill: int) -> None:
    """Boxes that frame the whole image frame the pasted tile exactly, whatever the sides were cut to."""
    sizes = [(1, 1), (1, 500), (500, 1), (333, 251)]
    samples = [
        Sample(np.full((h, w, 3), 200 + i, dtype=np.uint8), float_array([[0, 0, w, h]]), np.array([i]))
        for i, (h, w) in enumerate(sizes)
    ]
    scene = mosaic(samples, (50, 70), (64, 64))
    image = render_scene(scene, fill)
    assert image.shape == (128, 128, 3)
    around = np.ones((128, 128), dtype=bool)
    for i, (x1, y1, x2, y2) in enumerate(np.round(scene.boxes).astype(int)):
        tile = image[y1:y2, x1:x2]
        assert tile.size > 0
        assert (tile == 200 + i).all()
        around[y1 : y2 + 1, x1 : x2 + 1] = False  # a tile that another one follows continues for a pixel
    assert (image[around] == fill).all()
    np.testing.assert_allclose(scene.boxes, np.round(scene.boxes), atol=1e-4)


@pytest.mark.parametrize("side", [27, 37, 50, 63, 64, 77, 100, 150, 201])
def test_mosaic__a_tile_that_the_canvas_cuts_shows_its_image_up_to_the_border(side: int) -> None:
    """Squares of one grey level at the centre (40, 50) of a canvas of 128: it cuts the left and the upper ones."""
    sample = Sample(np.full((side, side, 3), 200, np.uint8), np.zeros((0, 4), np.float32), np.zeros(0, np.int64))
    image = render_scene(mosaic([sample] * 4, (40, 50), (64, 64)), fill=0)
    assert (image[0, :103] == 200).all()
    assert (image[:113, 0] == 200).all()
    image = render_scene(mosaic([sample] * 4, (80, 90), (64, 64)), fill=0)  # the right and the lower ones
    assert (image[127, 17:] == 200).all()
    assert (image[27:, 127] == 200).all()


def test_mosaic__no_boxes_in_some_tiles() -> None:
    samples = [random_sample(40, 30, count, seed) for seed, count in enumerate([0, 2, 0, 1])]
    scene = mosaic(samples, (64, 64), (64, 64))
    assert scene.boxes.shape == (3, 4)
    np.testing.assert_array_equal(scene.labels, [0, 1, 0])
    empty = mosaic([samples[0]] * 4, (64, 64), (64, 64))
    assert empty.boxes.shape == (0, 4)
    assert empty.boxes.dtype == np.float32


# -- scenes ----------------------------------------------------------------------------------------------------------


def test_warped__golden(golden: Golden) -> None:
    arrays = golden("transforms.npz")
    _, y, x, *others = arrays["mosaic_draws"].tolist()
    samples = [golden_sample(arrays, int(i)) for i in [0, *others]]
    matrix, scale = arrays["persp_matrix"][:2], float(arrays["persp_scale"])
    plain = released_order.mosaic(samples, (int(x), int(y)), (64, 64), fill=0)
    expected = released_order.warp(plain, matrix, (64, 64), fill=0)
    assert grey_levels_apart(expected.image, arrays["persp_image"]) <= 1
    scene = mosaic(samples, (int(x), int(y)), (64, 64))
    warped = scene.warped(matrix, (64, 64))
    assert mean_distance(render_scene(warped, fill=0), arrays["persp_image"]) < 0.5
    np.testing.assert_array_equal(warped.boxes, expected.boxes)
    kept = warped.select(surviving(scene.boxes, warped.boxes, scale, min_side=2))
    np.testing.assert_allclose(kept.boxes, arrays["persp_box"][:, :4], atol=1e-4)
    np.testing.assert_array_equal(kept.labels + 1, arrays["persp_box"][:, 4])


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 500), (500, 1), (333, 251)])
def test_warped__identity(height: int, width: int) -> None:
    sample = random_sample(height, width, 4)
    scene = scene_of(sample).warped(affine_matrix(0.0, 1.0, (0.0, 0.0), (0.0, 0.0)), (height, width))
    np.testing.assert_array_equal(render_scene(scene, fill=114), sample.image)
    np.testing.assert_allclose(scene.boxes, sample.boxes, rtol=1e-6)


def test_warped__outside_is_fill_and_leaves_no_area() -> None:
    scene = scene_of(random_sample(20, 20, 3)).warped(affine_matrix(0.0, 1.0, (0.0, 0.0), (100.0, 0.0)), (30, 40))
    assert (render_scene(scene, fill=114) == 114).all()
    np.testing.assert_array_equal(scene.boxes[:, 0], [40, 40, 40])
    np.testing.assert_array_equal(scene.boxes[:, 2], [40, 40, 40])


def test_warped__no_boxes() -> None:
    scene = scene_of(random_sample(20, 30, 0)).warped(affine_matrix(5.0, 1.0, (1.0, 0.0), (3.0, 4.0)), (16, 24))
    assert scene.boxes.shape == (0, 4)
    assert scene.boxes.dtype == np.float32
    assert render_scene(scene, fill=0).shape == (16, 24, 3)


def test_flipped__mirrors_image_and_boxes() -> None:
    sample = random_sample(33, 25, 3)
    scene = scene_of(sample).flipped()
    np.testing.assert_array_equal(render_scene(scene, fill=0), sample.image[:, ::-1])
    np.testing.assert_allclose(scene.boxes[:, [2, 1, 0, 3]], [25, 0, 25, 0] - sample.boxes * [1, -1, 1, -1], atol=1e-5)


@pytest.mark.parametrize("truncate", [True, False])
def test_fitted__same_size_and_boxes_as_a_letterbox(truncate: bool) -> None:
    sample = random_sample(47, 63, 3)
    scene = scene_of(sample).fitted((64, 80), truncate)
    expected, scale = released_order.fit(sample.image, (64, 80), truncate)
    assert scene.size == expected.shape[:2]
    np.testing.assert_array_equal(scene.boxes, (sample.boxes * scale).astype(np.float32))
    assert mean_distance(render_scene(scene, fill=0)[2:-2, 2:-2], expected[2:-2, 2:-2]) < 0.5
    assert scene.fitted(scene.size, truncate) is scene


# -- mixup -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", ["a", "b"])
def test_mixup__golden(golden: Golden, case: str) -> None:
    arrays = golden("transforms.npz")
    table = arrays["persp_box"]
    base = Sample(arrays["persp_image"], table[:, :4], table[:, 4].astype(np.int64) - 1)
    partner = golden_sample(arrays, int(arrays["mixup_partner_index"]))
    scale, _, *offset = arrays[f"mixup_{case}_draws_jitter_flip_yoff_xoff"].tolist()
    y, x = (int(v) for v in offset) if offset else (0, 0)
    plain = released_order.mixup(base, partner, scale, False, (y, x), fill=0, filter_boxes=True)
    assert grey_levels_apart(plain.image, arrays[f"mixup_{case}_image"]) <= 1
    scene = mixup(scene_of(base), partner, scale, flipped=False, offset=(y, x), filter_boxes=True)
    assert mean_distance(render_scene(scene, fill=0), arrays[f"mixup_{case}_image"]) < 0.6
    for boxes, labels in ((plain.boxes, plain.labels), (scene.boxes, scene.labels)):
        np.testing.assert_allclose(boxes, arrays[f"mixup_{case}_box"][:, :4], atol=1e-4)
        np.testing.assert_array_equal(labels + 1, arrays[f"mixup_{case}_box"][:, 4])


def test_mixup__mean_is_cut_to_whole_grey_levels() -> None:
    one, other = random_image(64, 64, 1), random_image(64, 64, 2)
    base = Sample(one, np.zeros((0, 4), np.float32), np.zeros(0, np.int64))
    partner = Sample(other, float_array([[1, 2, 30, 40]]), np.array([1202]))
    scene = mixup(scene_of(base), partner, 1.0, flipped=False, offset=(0, 0), filter_boxes=False)
    np.testing.assert_array_equal(render_scene(scene, fill=114), (one.astype(int) + other) // 2)
    np.testing.assert_array_equal(scene.boxes, partner.boxes)
    np.testing.assert_array_equal(scene.labels, [1202])


def test_mixup__flipped_partner_by_hand() -> None:
    """A 20 x 10 partner in a 40 x 40 input fills 40 x 20; at scale 0.5 that is 20 x 10, mirrored inside 20 x 20."""
    base = Sample(np.zeros((40, 40, 3), np.uint8), np.zeros((0, 4), np.float32), np.zeros(0, np.int64))
    image = np.full((20, 10, 3), 100, dtype=np.uint8)
    partner = Sample(image, float_array([[1, 2, 5, 10]]), np.array([7]))
    scene = mixup(scene_of(base), partner, 0.5, flipped=True, offset=(0, 0), filter_boxes=False)
    np.testing.assert_allclose(scene.boxes, [[15, 2, 19, 10]], atol=1e-5)
    for picture, content, rest in (
        (scene, slice(10, 20), slice(0, 10)),
        (scene.flipped(), slice(20, 30), slice(30, 40)),
    ):
        drawn = render_scene(picture, fill=60)
        assert (drawn[:20, content] == 50).all()  # half of the partner
        assert (drawn[:20, rest] == 30).all()  # half of the fill around it
        assert (drawn[20:] == 0).all()  # beyond its canvas
        assert drawn.sum() == 3 * 20 * (10 * 50 + 10 * 30)


def test_mixup__official_crop_clips_boxes() -> None:
    base = Sample(np.zeros((32, 32, 3), np.uint8), np.zeros((0, 4), np.float32), np.zeros(0, np.int64))
    partner = Sample(random_image(32, 32), float_array([[0, 0, 4, 4], [10, 10, 32, 32]]), np.array([0, 1]))
    scene = mixup(scene_of(base), partner, 1.5, flipped=False, offset=(15, 9), filter_boxes=False)
    np.testing.assert_allclose(scene.boxes, [[0, 0, 0, 0], [6, 0, 32, 32]], atol=1e-5)
    expected = released_order.mixup(base, partner, 1.5, False, (15, 9), fill=114, filter_boxes=False)
    assert grey_levels_apart(render_scene(scene, fill=114), expected.image) <= 1


def test_mixup__no_surviving_box_returns_the_base() -> None:
    base = scene_of(random_sample(64, 64, 3))
    small = Sample(random_image(64, 64, 5), float_array([[0, 0, 5, 60]]), np.array([0]))  # side is not above 5
    assert mixup(base, small, 1.0, False, (0, 0), filter_boxes=True) is base
    assert len(mixup(base, small, 1.0, False, (0, 0), filter_boxes=False).boxes) == 4
    empty = random_sample(64, 64, 0)
    for rule in (True, False):
        assert mixup(base, empty, 1.0, False, (0, 0), filter_boxes=rule) is base


def test_mixup__one_pixel_partner() -> None:
    base = random_sample(32, 32, 1)
    partner = Sample(random_image(1, 500), float_array([[0, 0, 250, 1]]), np.array([3]))
    scene = mixup(scene_of(base), partner, 0.01, flipped=True, offset=(0, 0), filter_boxes=False)
    assert len(scene.boxes) == 2
    drawn = render_scene(scene, fill=114)
    np.testing.assert_array_equal(drawn[1:], base.image[1:] // 2)  # the partner's canvas is one pixel


def test_mixup_slack__by_hand() -> None:
    assert mixup_slack((64, 96), 1.241612) == (15, 23)
    assert mixup_slack((64, 96), 1.0) == (0, 0)
    assert mixup_slack((64, 96), 0.8) == (0, 0)
