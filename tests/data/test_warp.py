"""Affine maps against matrix products, and drawing against OpenCV's own warp and resize."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import cv2
import numpy as np
import pytest

from tests.data.test_augment import grey_levels_apart, random_image
from yolox_lt.data.augment.transforms import affine_matrix
from yolox_lt.data.augment.warp import (
    ALONE,
    Affine,
    Edge,
    Edges,
    framed,
    nearest_pixels,
    paste,
    resize_span,
    stretch,
    touched_pixels,
)

REPEATED: Edges = (Edge.REPEATED,) * 4
BARE: Edges = (Edge.BARE,) * 4
ODD_SIZES = [(1, 1), (1, 90), (90, 1), (33, 25)]


def square(affine: Affine) -> np.ndarray:
    """The 3 x 3 matrix of a map."""
    return np.vstack([np.array(affine).reshape(2, 3), [0, 0, 1]])  # [xx xy x0 yx yy y0] -> [2, 3]


def random_maps(count: int) -> Iterator[Affine]:
    rng = np.random.default_rng(0)
    for _ in range(count):
        angle, scale, shear, shift = (
            rng.uniform(-60, 60),
            rng.uniform(0.2, 3),
            rng.uniform(-9, 9, 2),
            rng.normal(0, 9, 2),
        )
        yield Affine(*affine_matrix(angle, scale, tuple(shear), tuple(shift)).ravel())


def slope(height: int, width: int) -> np.ndarray:
    """A smooth image whose three channels rise along x, along y and along both; grey levels 20 to 235."""
    x, y = np.meshgrid((np.arange(width) + 0.5) / width, (np.arange(height) + 0.5) / height)
    return np.round(20 + 215 * np.stack([x, y, (x + y) / 2], axis=-1)).astype(np.uint8)


def pasted(image: np.ndarray, affine: Affine, size: tuple[int, int], edges: Edges, fill: int) -> np.ndarray:
    picture = np.full((*size, 4), fill, dtype=np.uint8)
    paste(picture, image, affine, edges, fill)
    return picture[..., :3]


# -- maps ------------------------------------------------------------------------------------------------------------


def test_affine__then_is_a_matrix_product() -> None:
    for one, other in product(random_maps(5), random_maps(5)):
        np.testing.assert_allclose(square(one.then(other)), square(other) @ square(one), rtol=1e-12, atol=1e-9)


def test_affine__inverse() -> None:
    for affine in random_maps(10):
        np.testing.assert_allclose(square(affine.inverse()), np.linalg.inv(square(affine)), rtol=1e-9, atol=1e-9)


def test_affine__between_is_a_shift_on_both_sides() -> None:
    for affine in random_maps(5):
        expected = Affine.scaling(1, 1, 3, 4).then(affine).then(Affine.scaling(1, 1, -5, 6))
        np.testing.assert_allclose(affine.between((3, 4), (5, -6)), expected)


def test_affine__pixel_numbers_by_hand() -> None:
    """Doubled, pixel 3 covers 6 to 8: its centre 3.5 comes to lie at 7, which is number 6.5."""
    matrix = Affine.scaling(2, 2).to_pixel_numbers()
    np.testing.assert_allclose(matrix @ [3, 3, 1], [6.5, 6.5])
    np.testing.assert_allclose(Affine.from_pixel_numbers(matrix), Affine.scaling(2, 2))


def test_affine__hull_holds_the_corners() -> None:
    for affine in random_maps(10):
        corners = square(affine) @ np.array([[1, 7, 7, 1], [2, 2, 9, 9], [1, 1, 1, 1]])
        expected = [*corners[:2].min(axis=1), *corners[:2].max(axis=1)]
        np.testing.assert_allclose(affine.hull((1, 2, 7, 9)), expected)


def test_pixels_of_a_rectangle__by_hand() -> None:
    assert nearest_pixels((-3.0, 0.49, 5.5, 7.51), (10, 20)) == (0, 0, 6, 8)
    assert touched_pixels((-3.0, 0.49, 5.5, 7.51), (7, 20)) == (0, 0, 6, 7)


# -- paste -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("height", "width"), ODD_SIZES)
@pytest.mark.parametrize("edges", [ALONE, REPEATED, BARE])
def test_paste__whole_shift_copies_the_image(height: int, width: int, edges: Edges) -> None:
    image = random_image(height, width)
    picture = pasted(image, Affine.scaling(1, 1, 4, 3), (100, 100), edges, fill=60)
    np.testing.assert_array_equal(picture[3 : 3 + height, 4 : 4 + width], image)
    untouched = np.ones((100, 100), dtype=bool)
    untouched[2 : 4 + height, 3 : 5 + width] = False  # repeated, the border continues for a pixel
    assert (picture[untouched] == 60).all()


@pytest.mark.parametrize("fill", [0, 114])
def test_paste__equals_a_warp_of_the_whole(fill: int) -> None:
    """OpenCV's warp with a constant border also fades from the image to the fill."""
    image = random_image(40, 56)
    for affine in random_maps(20):
        expected = cv2.warpAffine(image, affine.to_pixel_numbers(), (64, 48), borderValue=(fill, fill, fill))
        assert grey_levels_apart(pasted(image, affine, (48, 64), ALONE, fill), expected) <= 2


def test_paste__outside_leaves_the_image() -> None:
    image = random_image(20, 20)
    for x, y in [(-22, 0), (52, 0), (0, -22), (0, 42), (1e6, 1e6)]:
        assert (pasted(image, Affine.scaling(1, 1, x, y), (40, 50), REPEATED, fill=7) == 7).all()
    assert (pasted(image[:0], Affine.scaling(1, 1), (40, 50), REPEATED, fill=7) == 7).all()


def test_paste__no_fill_shows_in_a_seam() -> None:
    """Two halves of a white square, turned; where they meet it stays white."""
    affine = Affine(*affine_matrix(17.0, 1.3, (2.0, 1.0), (10.0, 30.0)).ravel())
    half = np.full((40, 20, 3), 255, dtype=np.uint8)
    whole = pasted(np.full((40, 40, 3), 255, dtype=np.uint8), affine, (100, 100), ALONE, fill=0)
    picture = np.zeros((100, 100, 4), dtype=np.uint8)
    paste(picture, half, affine, (Edge.FILL, Edge.FILL, Edge.REPEATED, Edge.FILL), fill=0)
    paste(picture, half, affine.between((20, 0), (0, 0)), (Edge.BARE, Edge.FILL, Edge.FILL, Edge.FILL), fill=0)
    inside = cv2.erode(whole, np.ones((5, 5), np.uint8)) == 255
    assert inside.sum() > 3 * 40 * 40
    assert (picture[..., :3][inside] >= 254).all()


def test_framed__by_hand() -> None:
    image = np.array([[[1, 2, 3], [4, 5, 6]]], dtype=np.uint8)  # one row, two pixels
    frame, corner = framed(image, (Edge.REPEATED, Edge.FILL, Edge.FILL, Edge.REPEATED), fill=9)
    np.testing.assert_array_equal(frame[..., 0], [[9, 9, 9, 9], [1, 1, 4, 9], [1, 1, 4, 9]])
    assert corner == (1, 1)
    frame, corner = framed(image, (Edge.BARE, Edge.BARE, Edge.FILL, Edge.BARE), fill=9)
    np.testing.assert_array_equal(frame[..., 2], [[3, 6, 9]])
    assert corner == (0, 0)


# -- stretch ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [0.3, 0.77, 1.0, 1.31, 2.0])
def test_stretch__from_the_corner_is_a_resize(scale: float) -> None:
    image = random_image(60, 84)
    expected = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_LINEAR)[:50, :70]
    picture = np.zeros((50, 70, 3), dtype=np.uint8)
    stretch(picture, image, Affine.scaling(scale, scale))
    height, width = min(50, int(60 * scale + 0.5)), min(70, int(84 * scale + 0.5))
    np.testing.assert_array_equal(picture[:height, :width], expected[:height, :width])
    assert not picture[height:].any()
    assert not picture[:, width:].any()


def test_stretch__flipped_is_the_mirror_image() -> None:
    image = random_image(30, 40)
    straight, flipped = np.zeros((2, 50, 64, 3), dtype=np.uint8)
    stretch(straight, image, Affine.scaling(1.3, 1.2, 3.25, -2.5))
    stretch(flipped, image, Affine.scaling(-1.3, 1.2, 64 - 3.25, -2.5))
    np.testing.assert_array_equal(flipped, straight[:, ::-1])


@pytest.mark.parametrize("flip", [1, -1])
def test_stretch__content_lies_where_the_map_says(flip: int) -> None:
    """On a slope a shift shows as a difference of grey levels: 215 levels in 400 pixels, half a level for each."""
    image = slope(400, 400)
    rng = np.random.default_rng(0)
    for _ in range(40):
        scale_x, scale_y = rng.uniform(0.5, 1.6, 2)
        x0, y0 = rng.uniform(-200, 20) + (flip < 0) * 400 * scale_x, rng.uniform(-200, 20)
        affine = Affine.scaling(flip * scale_x, scale_y, x0, y0)
        picture = np.zeros((160, 200, 3), dtype=np.uint8)
        stretch(picture, image, affine)
        expected = cv2.warpAffine(image, affine.to_pixel_numbers(), (200, 160))
        inside = cv2.warpAffine(np.ones_like(image), affine.to_pixel_numbers(), (200, 160)) == 1
        inside = cv2.erode(inside.astype(np.uint8), np.ones((5, 5), np.uint8)) == 1
        assert inside.mean() > 0.2
        assert np.abs(picture[inside].astype(int) - expected[inside]).max() <= 2


def test_stretch__odd_sizes_and_nothing_to_see() -> None:
    for height, width in ODD_SIZES:
        image = np.full((height, width, 3), 200, dtype=np.uint8)
        for scale in (0.004, 0.3, 1.0, 17.3):
            picture = np.zeros((64, 64, 3), dtype=np.uint8)
            stretch(picture, image, Affine.scaling(scale, scale, -0.3, 0.7))
            x1, y1, x2, y2 = nearest_pixels((-0.3, 0.7, width * scale - 0.3, height * scale + 0.7), (64, 64))
            covered = max(x2 - x1, 0) * max(y2 - y1, 0)
            shown = int((picture[..., 0] == 200).sum())
            assert shown == int((picture > 0).any(axis=-1).sum())  # no mixture with the black around it
            assert shown == pytest.approx(covered, abs=64 + 64)  # at most one row and one column less
    picture = np.zeros((64, 64, 3), dtype=np.uint8)
    stretch(picture, random_image(9, 9), Affine.scaling(1, 1, 64, 0))
    assert not picture.any()


def test_resize_span__starts_where_the_grids_meet() -> None:
    """At scale 1.25 every fourth pixel of the image begins at a whole pixel: 100 at 125 - 25 = 100, 96 at 95."""
    start, place, end = resize_span(1.25, -25.0, first=103, last=120, length=300)
    assert (start * 1.25 - 25) == place
    assert start <= 101
    assert end == 117
