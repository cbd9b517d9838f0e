"""Transforms of one image against golden arrays, identities and hand-worked cases."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import cv2
import numpy as np
import pytest

from yolox_lt.data.augment.transforms import (
    Sample,
    affine_matrix,
    clip_boxes,
    fit,
    flip,
    flip_boxes,
    hsv_gain,
    hsv_shift,
    larger_than,
    letterbox,
    letterbox_sample,
    surviving,
    warp_boxes,
)

Golden = Callable[[str], Any]
ODD_SIZES = [(1, 1), (1, 500), (500, 1), (333, 251)]


def float_array(rows: Sequence[Sequence[float]] | Sequence[float]) -> np.ndarray:
    return np.array(rows, dtype=np.float32)


def random_image(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def random_sample(height: int, width: int, count: int, seed: int = 0) -> Sample:
    """Noise with boxes that cover at least a fifth of each side."""
    rng = np.random.default_rng(seed + 1)
    low, high = rng.uniform(0, 0.4, (count, 2)), rng.uniform(0.6, 1, (count, 2))  # [G, xy] as fractions
    boxes = np.concatenate([low, high], axis=1) * [width, height, width, height]
    return Sample(random_image(height, width, seed), boxes.astype(np.float32), np.arange(count, dtype=np.int64))


def planted(count: int, seed: int) -> list[Sample]:
    """Black images with one to three red rectangles that do not touch, each with its box; label = image index."""
    rng = np.random.default_rng(seed)
    samples = []
    for index in range(count):
        height, width = rng.integers(120, 260, 2).tolist()
        image = np.zeros((height, width, 3), dtype=np.uint8)
        boxes = []
        for column in range(int(rng.integers(1, 4))):
            left, top = 5 + 38 * column + int(rng.integers(0, 8)), int(rng.integers(5, height - 45))
            w, h = rng.integers(18, 30), rng.integers(18, 40)
            image[top : top + h, left : left + w, 2] = 255
            boxes.append([left, top, left + w, top + h])
        samples.append(Sample(image, float_array(boxes), np.full(len(boxes), index)))
    return samples


def golden_sample(arrays: dict[str, np.ndarray], index: int) -> Sample:
    """Image `index` of transforms.npz; its labels count from 1."""
    table = arrays[f"box{index}"]
    return Sample(arrays[f"img{index}"], table[:, :4], table[:, 4].astype(np.int64) - 1)


def grey_levels_apart(a: np.ndarray, b: np.ndarray) -> int:
    assert a.shape == b.shape
    return int(np.abs(a.astype(np.int64) - b.astype(np.int64)).max())


# -- letterbox -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("index", range(5))
def test_letterbox__released_test_resize(golden: Golden, index: int) -> None:
    arrays = golden("transforms.npz")
    sample = golden_sample(arrays, index)
    image, scale = letterbox(sample.image, (64, 64), fill=0, truncate=False)
    assert grey_levels_apart(image, arrays[f"letterbox64_img{index}_image"]) <= 1
    np.testing.assert_allclose([scale, scale], arrays[f"letterbox64_img{index}_scale"], rtol=1e-12)
    boxed = letterbox_sample(sample, (64, 64), fill=0, truncate=False)
    np.testing.assert_allclose(boxed.boxes, arrays[f"letterbox64_img{index}_box"][:, :4], atol=1e-4)
    np.testing.assert_array_equal(boxed.image, image)


@pytest.mark.parametrize("index", range(5))
def test_letterbox__released_training_resize(golden: Golden, index: int) -> None:
    arrays = golden("transforms.npz")
    sample = letterbox_sample(golden_sample(arrays, index), (96, 96), fill=0, truncate=False)
    expected = arrays[f"trainresize96_img{index}_tensor"].transpose(1, 2, 0)  # [3, H, W] -> [H, W, 3]
    assert grey_levels_apart(sample.image, expected) <= 1
    np.testing.assert_allclose(sample.boxes, arrays[f"trainresize96_img{index}_box"][:, :4], atol=1e-4)


@pytest.mark.parametrize("case", range(5))
def test_letterbox__official(golden: Golden, case: int) -> None:
    arrays = golden("yolox_preproc.npz")  # case 3 has a single channel and no channel axis
    height, width = (int(v) for v in arrays[f"case{case}_input_size"])
    image, scale = letterbox(arrays[f"case{case}_image"], (height, width), fill=114)
    expected = arrays[f"case{case}_output"]
    if expected.ndim == 3:
        expected = expected.transpose(1, 2, 0)  # [3, H, W] -> [H, W, 3]
    assert grey_levels_apart(image, expected) <= 1
    assert scale == pytest.approx(float(arrays[f"case{case}_ratio"]), rel=1e-12)


def test_letterbox__rounding_decides_the_last_row() -> None:
    image = np.full((47, 63, 3), 255, dtype=np.uint8)  # 47 x 64 / 63 = 47.75 rows
    official, _ = letterbox(image, (64, 64), fill=0, truncate=True)
    released, _ = letterbox(image, (64, 64), fill=0, truncate=False)
    assert (official[:, 0, 0] > 0).sum() == 47
    assert (released[:, 0, 0] > 0).sum() == 48


@pytest.mark.parametrize("truncate", [True, False])
@pytest.mark.parametrize(("height", "width"), ODD_SIZES)
def test_letterbox__odd_sizes(height: int, width: int, truncate: bool) -> None:
    image = np.full((height, width, 3), 200, dtype=np.uint8)
    result, scale = letterbox(image, (96, 64), fill=7, truncate=truncate)
    assert result.shape == (96, 64, 3)
    assert scale == min(96 / height, 64 / width)
    rows, columns = (result[:, 0, 0] == 200).sum(), (result[0, :, 0] == 200).sum()
    assert abs(rows - max(1, height * scale)) < 1
    assert abs(columns - max(1, width * scale)) < 1
    assert (result == 200).sum() + (result == 7).sum() == result.size
    assert (result == 200).sum() == rows * columns * 3


def test_letterbox__result_is_a_copy() -> None:
    image = random_image(32, 32)
    result, scale = letterbox(image, (32, 32), fill=114)
    assert scale == 1
    np.testing.assert_array_equal(result, image)
    assert not np.shares_memory(result, image)


def test_letterbox_sample__no_boxes() -> None:
    sample = letterbox_sample(random_sample(20, 30, 0), (64, 64), fill=114)
    assert sample.boxes.shape == (0, 4)
    assert sample.boxes.dtype == np.float32
    assert sample.labels.shape == (0,)


def test_fit__image_that_fits_is_unchanged() -> None:
    image = random_image(40, 64)
    for truncate in (True, False):
        result, scale = fit(image, (64, 64), truncate)
        assert scale == 1
        np.testing.assert_array_equal(result, image)


# -- flip ------------------------------------------------------------------------------------------------------------


def test_flip__golden(golden: Golden) -> None:
    arrays = golden("transforms.npz")
    sample = golden_sample(arrays, 0)
    flipped = flip(sample)
    np.testing.assert_array_equal(flipped.image, arrays["flip_image"])
    np.testing.assert_array_equal(flipped.boxes, arrays["flip_aligned_box"][:, :4])
    np.testing.assert_array_equal(flipped.labels, sample.labels)
    pixel = np.array([0, 0, 1, 1], np.float32)  # the other arrays' x2 is the last pixel
    flipped = flip_boxes(sample.boxes + pixel, 63) - pixel
    np.testing.assert_allclose(flipped, arrays["flip_legacy_box"][:, :4], rtol=0, atol=1e-5)  # the pixel is rounded


@pytest.mark.parametrize(("height", "width"), ODD_SIZES)
def test_flip__twice_is_identity(height: int, width: int) -> None:
    image = random_image(height, width)
    boxes = np.array([[0, 0, width, height], [0.25, 0.5, 0.75, 1]], dtype=np.float32)
    sample = Sample(image, boxes, np.array([0, 1]))
    once = flip(sample)
    twice = flip(once)
    np.testing.assert_array_equal(twice.image, image)
    np.testing.assert_array_equal(twice.boxes, boxes)
    assert once.image.flags["C_CONTIGUOUS"]


def test_flip__no_boxes() -> None:
    assert flip(random_sample(8, 9, 0)).boxes.shape == (0, 4)


# -- colour ----------------------------------------------------------------------------------------------------------


def test_hsv_gain__golden(golden: Golden) -> None:
    arrays = golden("transforms.npz")
    gains = arrays["hsv_uniform_draws"] * np.array([0.015, 0.7, 0.4]) + 1
    assert grey_levels_apart(hsv_gain(arrays["img1"], *gains), arrays["hsv_img1_out"]) <= 1


@pytest.mark.parametrize("shift", [(5, 30, -30), (-5, -30, 30), (0, 0, 12), (-3, 17, 0)])
def test_hsv_shift__pixel_arithmetic(shift: tuple[int, int, int]) -> None:
    image = random_image(40, 50)
    hsv = cv2.cvtColor(image, cv2.COLOR_BGR2HSV).astype(np.int16)
    hsv[..., 0] = (hsv[..., 0] + shift[0]) % 180
    hsv[..., 1] = np.clip(hsv[..., 1] + shift[1], 0, 255)
    hsv[..., 2] = np.clip(hsv[..., 2] + shift[2], 0, 255)
    expected = cv2.cvtColor(hsv.astype(np.uint8), cv2.COLOR_HSV2BGR)
    assert grey_levels_apart(hsv_shift(image, *shift), expected) <= 1


@pytest.mark.parametrize(
    "gains", [(1.015, 1.7, 0.6), (0.985, 0.3, 1.4), (1.0, 1.0, 1.0), (1.5, 1.2, 0.9), (-1.0, 1, 1)]
)
def test_hsv_gain__pixel_arithmetic(gains: tuple[float, float, float]) -> None:
    """A hue times 1.5 or -1 needs the modulo; in between, OpenCV takes a hue above 179 as a turn more."""
    image = random_image(60, 70)
    hsv = cv2.cvtColor(image, cv2.COLOR_BGR2HSV) * np.array(gains)
    hsv = np.concatenate([hsv[..., :1] % 180, np.clip(hsv[..., 1:], 0, 255)], axis=-1)
    expected = cv2.cvtColor(hsv.astype(np.uint8), cv2.COLOR_HSV2BGR)
    assert grey_levels_apart(hsv_gain(image, *gains), expected) <= 1


def test_hsv_shift__nothing_to_do_returns_the_image() -> None:
    image = random_image(9, 9)
    assert hsv_shift(image, 0, 0, 0) is image


def test_hsv__pure_colours_by_hand() -> None:
    red = np.array([[[0, 0, 255]]], dtype=np.uint8)  # BGR; hue 0, saturation 255, value 255
    np.testing.assert_array_equal(hsv_shift(red, 60, 0, 0), [[[0, 255, 0]]])  # 60 steps of 2 degrees: green
    np.testing.assert_array_equal(hsv_shift(red, -60, 0, 0), [[[255, 0, 0]]])  # modulo 180: blue
    np.testing.assert_array_equal(hsv_shift(red, 0, -255, 0), [[[255, 255, 255]]])
    np.testing.assert_array_equal(hsv_gain(red, 1, 1, 0.6), [[[0, 0, 153]]])
    np.testing.assert_array_equal(hsv_gain(red, 1, 1, 1.4), red)  # clipped


# -- affine map ------------------------------------------------------------------------------------------------------


def test_affine_matrix__released(golden: Golden) -> None:
    arrays = golden("transforms.npz")
    angle, scale, shear_x, shear_y, x, y = arrays["persp_draws_angle_scale_shearx_sheary_tx_ty"]
    matrix = affine_matrix(angle, scale, (shear_x, shear_y), (x * 64, y * 64), centre=(64, 64))
    np.testing.assert_allclose(matrix, arrays["persp_matrix"][:2], atol=1e-12)


def test_affine_matrix__about_the_origin() -> None:
    """Without a centre the linear part is the rotation of OpenCV plus each row's shear of the other row."""
    matrix = affine_matrix(7.0, 1.3, (1.5, -0.5), (12.0, -9.0))
    rotation = cv2.getRotationMatrix2D((0, 0), 7.0, 1.3)[:, :2]
    first = rotation[0] + np.tan(np.deg2rad(1.5)) * rotation[1]
    second = rotation[1] + np.tan(np.deg2rad(-0.5)) * rotation[0]
    np.testing.assert_allclose(matrix, [[*first, 12.0], [*second, -9.0]], atol=1e-12)


def test_affine_matrix__centre_goes_to_translation() -> None:
    matrix = affine_matrix(30.0, 0.7, (3.0, 4.0), (50.0, 60.0), centre=(11.0, 13.0))
    np.testing.assert_allclose(matrix @ [11.0, 13.0, 1.0], [50.0, 60.0])


def test_warp_boxes__official(golden: Golden) -> None:
    arrays = golden("yolox_boxes.npz")
    width, height = (int(v) for v in arrays["affine_target_wh"])
    boxes = warp_boxes(arrays["affine_in"][:, :4], arrays["affine_M"], (height, width))
    np.testing.assert_allclose(boxes, arrays["affine_out"][:, :4], atol=1e-4)


def test_warp_boxes__quarter_turn_by_hand() -> None:
    """90 degrees counter-clockwise about (0, 0), then 10 down: (x, y) -> (y, 10 - x)."""
    matrix = affine_matrix(90.0, 1.0, (0.0, 0.0), (0.0, 10.0))
    boxes = np.array([[1, 2, 4, 8], [-5, 2, 4, 30]], dtype=np.float32)
    np.testing.assert_allclose(warp_boxes(boxes, matrix, (10, 20)), [[2, 6, 8, 9], [2, 6, 20, 10]], atol=1e-5)


# -- box rules -------------------------------------------------------------------------------------------------------


def test_surviving__every_rule_by_hand() -> None:
    before = np.array([[0, 0, 100, 100]] * 8, dtype=np.float32)
    after = np.array(
        [
            [0, 0, 50, 50],  # area 2500 of 2500
            [0, 0, 2, 50],  # width is not above 2
            [0, 0, 50, 2],  # height is not above 2
            [0, 0, 20, 25],  # exactly a fifth of the area
            [0, 0, 20, 26],  # just above
            [0, 0, 200, 10],  # exactly 20 : 1
            [0, 0, 10, 199],  # just below
            [5, 5, 5, 5],  # gone
        ],
        dtype=np.float32,
    )
    expected = [True, False, False, False, True, False, True, False]
    np.testing.assert_array_equal(surviving(before, after, scale=0.5, min_side=2), expected)


def test_surviving__no_boxes() -> None:
    assert surviving(np.zeros((0, 4)), np.zeros((0, 4)), 1.0, 2.0).shape == (0,)


def test_larger_than__one_pixel_goes() -> None:
    boxes = np.array([[0, 0, 1, 9], [0, 0, 9, 1], [0, 0, 1.5, 1.5]], dtype=np.float32)
    np.testing.assert_array_equal(larger_than(boxes, 1.0), [False, False, True])
    assert larger_than(boxes[:0], 1.0).shape == (0,)


def test_clip_boxes__by_hand() -> None:
    boxes = np.array([[-3, -4, 50, 60], [1, 2, 3, 4]], dtype=np.float32)
    clipped = clip_boxes(boxes, (20, 30))
    np.testing.assert_array_equal(clipped, [[0, 0, 30, 20], [1, 2, 3, 4]])
    assert clipped.dtype == np.float32
    assert boxes[0, 0] == -3
