"""The recipes: order of draws against golden chains, determinism, and objects that stay under their boxes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import pytest

from tests.data.released_order import ReleasedOrder
from tests.data.test_augment import float_array, golden_sample, grey_levels_apart, planted, random_image, random_sample
from tests.data.test_mosaic import mean_distance
from tests.data.test_warp import slope
from yolox_lt.data.augment.recipe import (
    OFFICIAL_RECIPE,
    RELEASED_RECIPE,
    Augment,
    AugmentRecipe,
    finish,
)
from yolox_lt.data.augment.transforms import Sample, flip

Golden = Callable[[str], Any]
RECIPES = [pytest.param(OFFICIAL_RECIPE, id="official"), pytest.param(RELEASED_RECIPE, id="released")]
QUIET: dict[str, Any] = {"hsv_prob": 0.0, "flip_prob": 0.0, "image_multiscale": None}


class Script:
    """Stands in for a Generator and returns prepared draws in order; a draw outside its range is an error."""

    def __init__(self, draws: Sequence[float]) -> None:
        self.draws = list(draws)

    def uniform(self, low: float, high: float) -> float:
        value = self.draws.pop(0)
        assert low <= value <= high
        return value

    def random(self) -> float:
        return self.uniform(0.0, 1.0)


def uniform_partner(count: int) -> Callable[[np.random.Generator], int]:
    return lambda rng: int(rng.integers(count))


def run(
    recipe: AugmentRecipe, size: tuple[int, int], images: list[Sample], seed: int, use_mosaic: bool = True
) -> Sample:
    partner = uniform_partner(len(images))
    return Augment(recipe, size)(0, np.random.default_rng(seed), use_mosaic, images.__getitem__, partner)


# -- order of draws --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ours", [True, False])
@pytest.mark.parametrize("case", ["a", "b"])
def test_augment__released_chain(golden: Golden, case: str, ours: bool) -> None:
    """Mosaic, affine map and mixup with the reference's draws; colour and flip off, output size fixed."""
    arrays = golden("transforms.npz")
    gate, y, x, *others = arrays["mosaic_draws"].tolist()
    scale, flip_gate, *offset = arrays[f"mixup_{case}_draws_jitter_flip_yoff_xoff"].tolist()
    slack = int(64 * scale) - 64
    shares = [(v + 0.5) / slack for v in offset] or [0.5, 0.5]
    affine = arrays["persp_draws_angle_scale_shearx_sheary_tx_ty"].tolist()
    gates = [0.5, 0.5]  # colour and flip, both closed
    script: Any = Script([gate, y, x, *affine, 0.5, scale, flip_gate, *shares, *gates])
    indices = [*(int(i) for i in others), int(arrays["mixup_partner_index"])]

    recipe = replace(RELEASED_RECIPE, mosaic_scale=(0.5, 1.5), **QUIET)
    images = [golden_sample(arrays, i) for i in range(5)]
    way: Any = Augment(recipe, (64, 64)) if ours else ReleasedOrder(recipe, (64, 64))
    sample = way(0, script, True, images.__getitem__, lambda _: indices.pop(0))
    assert script.draws == []
    assert indices == []
    if ours:
        assert mean_distance(sample.image, arrays[f"mixup_{case}_image"]) < 0.7
    else:
        assert grey_levels_apart(sample.image, arrays[f"mixup_{case}_image"]) <= 1
    np.testing.assert_allclose(sample.boxes, arrays[f"mixup_{case}_box"][:, :4], atol=1e-4)
    np.testing.assert_array_equal(sample.labels + 1, arrays[f"mixup_{case}_box"][:, 4])


def test_augment__mixup_offset_at_an_input_that_is_not_square() -> None:
    """The partner fits 64 x 128 exactly; at scale 1.5 it is 32 rows and 64 columns too large, cut at (8, 32)."""
    empty = random_sample(64, 128, 0)
    partner = Sample(random_image(64, 128, 1), float_array([[48, 16, 96, 48]]), np.array([1202]))
    affine, mixing = [0.0, 1.0, 0.0, 0.0, 0.5, 0.5], [0.5, 1.5, 0.5, 0.25, 0.5]
    script: Any = Script([0.5, 64.0, 128.0, *affine, *mixing, 0.5, 0.5])
    indices = [0, 0, 0, 1]
    augment = Augment(replace(RELEASED_RECIPE, **QUIET), (64, 128))
    sample = augment(0, script, True, [empty, partner].__getitem__, lambda _: indices.pop(0))
    np.testing.assert_allclose(sample.boxes, [[40, 16, 112, 64]], atol=1e-4)
    np.testing.assert_array_equal(sample.labels, [1202])


@pytest.mark.parametrize("recipe", RECIPES)
def test_augment__weak_with_everything_off_is_letterbox(recipe: AugmentRecipe) -> None:
    source = random_sample(48, 64, 3)
    sample = run(replace(recipe, **QUIET), (64, 64), [source], seed=3, use_mosaic=False)
    np.testing.assert_array_equal(sample.image[:48], source.image)
    assert (sample.image[48:] == recipe.fill).all()
    np.testing.assert_array_equal(sample.boxes, source.boxes)


def test_augment__closed_mosaic_gate_skips_mixup() -> None:
    source = random_sample(48, 64, 3)
    recipe = replace(OFFICIAL_RECIPE, mosaic_prob=0.0, **QUIET)
    np.testing.assert_array_equal(run(recipe, (64, 64), [source], seed=3).image[:48], source.image)


# -- against the released order of operations ------------------------------------------------------------------------


def both(
    recipe: AugmentRecipe, size: tuple[int, int], images: list[Sample], seed: int, index: int = 0
) -> tuple[Sample, Sample]:
    """A use_mosaic sample of ours, and by the released order; the numbers drawn must leave the generators alike."""
    samples, states = [], []
    for way in (Augment(recipe, size), ReleasedOrder(recipe, size)):
        rng = np.random.default_rng(seed)
        samples.append(way(index, rng, True, images.__getitem__, uniform_partner(len(images))))
        states.append(rng.bit_generator.state)
    assert states[0] == states[1]
    return samples[0], samples[1]


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("size", [(320, 320), (192, 256)])
def test_augment__boxes_of_the_released_order(recipe: AugmentRecipe, size: tuple[int, int]) -> None:
    """Bit by bit, for images of every shape; boxes of any size, so that every rule drops some."""
    rng = np.random.default_rng(0)
    images = []
    for height, width in [(1, 1), (1, 500), (500, 1), (333, 251), (120, 160), (90, 64), (320, 320), (40, 700)]:
        count = int(rng.integers(0, 12))
        corner, side = rng.uniform(0, 0.9, (count, 2)), rng.uniform(0, 0.4, (count, 2)) ** 2
        boxes = np.clip(np.concatenate([corner, corner + side], axis=1), 0, 1) * [width, height, width, height]
        images.append(Sample(random_image(height, width), boxes.astype(np.float32), np.arange(count)))
    for seed in range(150):
        ours, released = both(recipe, size, images, seed, index=seed % len(images))
        np.testing.assert_array_equal(ours.boxes, released.boxes)
        np.testing.assert_array_equal(ours.labels, released.labels)
        assert ours.image.shape == released.image.shape
        assert ours.boxes.dtype == np.float32


@pytest.mark.parametrize(("recipe", "mean"), [(OFFICIAL_RECIPE, 0.6), (RELEASED_RECIPE, 1.2)])
def test_augment__smooth_images_of_the_released_order(recipe: AugmentRecipe, mean: float) -> None:
    """Slopes of 20 to 235 grey levels hardly change when they are interpolated again: what differs are one-pixel lines
    at the borders of the images, on 320 pixels 1 in 100 for every line, and roundings that the colour change enlarges.
    """
    sizes = [(240, 320), (320, 213), (188, 250), (320, 320), (250, 500)]
    images = [Sample(slope(h, w), float_array([[w / 4, h / 4, w / 2, h / 2]]), np.array([0])) for h, w in sizes]
    distances, far = [], []
    for seed in range(40):
        ours, released = both(recipe, (320, 320), images, seed)
        distance = cv2.absdiff(ours.image, released.image)
        distances.append(distance.mean())
        far.append((distance.max(axis=-1) > 8).mean())
    assert max(distances) < mean
    assert np.mean(distances) < mean / 2
    assert np.mean(far) < 0.02


def centre_of_mass(image: np.ndarray) -> np.ndarray:
    """(x, y) of the brightness."""
    moments = cv2.moments(image[..., 0])
    return np.array([moments["m10"], moments["m01"]]) / max(moments["m00"], 1)


def test_augment__geometry_of_the_released_order() -> None:
    """White discs on black, away from the borders of their images: the centre of all of them lies at the same place."""
    discs = []
    for number, (height, width) in enumerate([(240, 320), (320, 213), (188, 250), (300, 500)]):
        image = np.zeros((height, width, 3), dtype=np.uint8)
        cv2.circle(image, (width // 2 + 7 * number, height // 3), 20, (255, 255, 255), -1, cv2.LINE_AA)
        discs.append(Sample(image, float_array([[0, 0, width, height]]), np.array([number])))
    recipe = replace(RELEASED_RECIPE, mosaic_scale=(0.7, 1.3), hsv_prob=0.0, mixup_flip_prob=0.5)
    apart = []
    for seed in range(60):
        ours, released = both(recipe, (320, 320), discs, seed)
        apart.append(np.abs(centre_of_mass(ours.image) - centre_of_mass(released.image)).max())
    assert np.median(apart) < 0.05
    assert max(apart) < 0.4


# -- output ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("use_mosaic", [True, False])
@pytest.mark.parametrize("recipe", RECIPES)
def test_augment__same_state_same_sample(recipe: AugmentRecipe, use_mosaic: bool) -> None:
    images = [random_sample(30 + 11 * i, 70 - 7 * i, 5 - i, seed=i) for i in range(6)]
    copies = [(s.image.copy(), s.boxes.copy(), s.labels.copy()) for s in images]
    first, second, other = (run(recipe, (256, 256), images, seed, use_mosaic) for seed in (5, 5, 6))
    np.testing.assert_array_equal(first.image, second.image)
    np.testing.assert_array_equal(first.boxes, second.boxes)
    np.testing.assert_array_equal(first.labels, second.labels)
    assert first.image.shape != other.image.shape or (first.image != other.image).any()
    for sample, (image, boxes, labels) in zip(images, copies):
        np.testing.assert_array_equal(sample.image, image)
        np.testing.assert_array_equal(sample.boxes, boxes)
        np.testing.assert_array_equal(sample.labels, labels)


@pytest.mark.parametrize("recipe", RECIPES)
def test_augment__odd_and_empty_images(recipe: AugmentRecipe) -> None:
    """Images of 1 x 1, 1 x 500 and 333 x 251 pixels, with and without objects, at an input that is not square."""
    sizes = [(1, 1), (1, 500), (500, 1), (333, 251)]
    images = [random_sample(h, w, count, seed=h) for h, w in sizes for count in (0, 2)]
    partner = uniform_partner(len(images))
    augment = Augment(recipe, (192, 256))
    for index in range(len(images)):
        for use_mosaic in (True, False):
            sample = augment(index, np.random.default_rng(index), use_mosaic, images.__getitem__, partner)
            height, width = sample.image.shape[:2]
            assert sample.image.dtype == np.uint8
            assert sample.image.flags["C_CONTIGUOUS"]
            assert height % 32 == width % 32 == 0
            if recipe.image_multiscale is None:
                assert (height, width) == (192, 256)
            assert sample.boxes.dtype == np.float32
            assert sample.labels.dtype == np.int64
            assert sample.boxes.shape == (len(sample.labels), 4)
            assert (sample.boxes >= 0).all()
            assert (sample.boxes <= float_array([width, height, width, height]) + 1).all()


@pytest.mark.parametrize("recipe", RECIPES)
def test_augment__only_empty_images(recipe: AugmentRecipe) -> None:
    sample = run(recipe, (192, 192), [random_sample(40, 50, 0, seed=i) for i in range(4)], seed=2)
    assert sample.boxes.shape == (0, 4)
    assert sample.labels.shape == (0,)
    assert len(np.unique(sample.image)) > 10


@pytest.mark.parametrize(("recipe", "least"), [(OFFICIAL_RECIPE, 35.0), (RELEASED_RECIPE, 12.0)])
def test_augment__planted_rectangle_stays_under_its_box(recipe: AugmentRecipe, least: float) -> None:
    """Red minus blue is zero on every background. Inside an unclipped box it keeps at least half (mixup) of what the
    colour change leaves (shift: 225 x 225 / 255; gain: 255 x 0.6 x 0.3), on the half of the hull that is rectangle.
    """
    images = planted(8, seed=11)
    checked = 0
    for seed in range(60):
        sample = run(recipe, (320, 320), images, seed)
        height, width = sample.image.shape[:2]
        redness = sample.image[..., 2].astype(np.int64) - sample.image[..., 0]
        for x1, y1, x2, y2 in np.round(sample.boxes).astype(int):
            inside = x1 > 1 and y1 > 1 and x2 < width - 1 and y2 < height - 1
            if inside and min(x2 - x1, y2 - y1) >= 8:
                checked += 1
                assert redness[y1:y2, x1:x2].mean() > least
    assert checked > 150


@pytest.mark.parametrize("recipe", RECIPES)
def test_augment__nothing_red_without_a_box(recipe: AugmentRecipe) -> None:
    """The other direction, with the rules that drop visible boxes off: every patch of red lies in some box."""
    recipe = replace(recipe, hsv_prob=0.0, filter_boxes=False)
    images = planted(8, seed=12)
    for seed in range(40):
        sample = run(recipe, (320, 320), images, seed)
        redness = sample.image[..., 2].astype(np.int64) - sample.image[..., 0]
        for x1, y1, x2, y2 in sample.boxes:
            redness[max(int(y1) - 2, 0) : int(y2) + 3, max(int(x1) - 2, 0) : int(x2) + 3] = 0
        patches = cv2.erode((redness > 8).astype(np.uint8), np.ones((5, 5), np.uint8))  # slivers have lost their box
        assert patches.sum() == 0


def test_augment__official_colour_stays_in_its_range() -> None:
    """A mid-grey image may only change its value, by at most 29 levels, or not at all with probability 1/2."""
    grey = Sample(np.full((32, 32, 3), 128, np.uint8), float_array([[0, 0, 32, 32]]), np.array([0]))
    recipe = replace(OFFICIAL_RECIPE, hsv_strength=(0.0, 0.0, 30.0), flip_prob=0.0)
    values = np.array([run(recipe, (32, 32), [grey], seed, use_mosaic=False).image[0, 0, 2] for seed in range(400)])
    assert np.abs(values.astype(int) - 128).max() <= 29
    assert values.min() < 110
    assert values.max() > 146
    assert 0.4 < (values == 128).mean() < 0.6


# -- the end of the recipe -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", range(5))
def test_finish__official_training_transform(golden: Golden, case: int) -> None:
    """Case 3 has no object; in case 4 no box would survive, so image and boxes stay unflipped and complete."""
    arrays = golden("yolox_train_transform.npz")
    table = arrays[f"case{case}_targets_xyxy_cls"]
    source = Sample(arrays[f"case{case}_image"], table[:, :4].astype(np.float32), table[:, 4].astype(np.int64))
    height, width = (int(v) for v in arrays[f"case{case}_input_size"])
    recipe = replace(OFFICIAL_RECIPE, hsv_prob=0.0, flip_prob=float(arrays[f"case{case}_flip_prob"]))
    sample = run(recipe, (height, width), [source], seed=0, use_mosaic=False)

    expected = arrays[f"case{case}_out_image"].transpose(1, 2, 0)  # [3, H, W] -> [H, W, 3]
    assert grey_levels_apart(sample.image, expected) <= 1
    rows = arrays[f"case{case}_out_labels"]
    size = sample.boxes[:, 2:] - sample.boxes[:, :2]
    ours = np.concatenate([sample.labels[:, None], sample.boxes[:, :2] + size / 2, size], axis=1)[: len(rows)]
    np.testing.assert_allclose(ours, rows[: len(ours)], atol=1e-4)
    assert (rows[len(ours) :] == 0).all()


def test_finish__released_keeps_an_image_without_boxes() -> None:
    source = Sample(random_image(64, 64), float_array([[3, 4, 4, 40]]), np.array([2]))
    background = finish(source, flip(source), (64, 64), 0, truncate=False, keep_last_boxes=False)
    np.testing.assert_array_equal(background.image, flip(source).image)
    assert background.boxes.shape == (0, 4)
    fallen_back = finish(source, flip(source), (64, 64), 114, truncate=True, keep_last_boxes=True)
    np.testing.assert_array_equal(fallen_back.image, source.image)
    np.testing.assert_array_equal(fallen_back.boxes, source.boxes)


def test_augment__no_box_without_area_comes_back() -> None:
    """The affine map moves everything out of sight: the official fall-back finds no box to keep."""
    images = [random_sample(64, 64, 2, seed=i) for i in range(3)]
    recipe = replace(OFFICIAL_RECIPE, translate=(5.0, 5.0), enable_mixup=False)
    sample = run(recipe, (64, 64), images, seed=0)
    assert (sample.image == 114).all()
    assert len(sample.boxes) == 0


def test_augment__mosaic_falls_back_to_the_image_before_colour_and_flip() -> None:
    """Boxes of 3 pixels become 0.3 at scale 0.1: none stays, so official YOLOX takes all of them, as they were."""
    images = [Sample(random_image(64, 64, i), float_array([[30, 30, 33, 33]]), np.array([i])) for i in range(3)]
    recipe = replace(OFFICIAL_RECIPE, mosaic_scale=(0.1, 0.1), enable_mixup=False, flip_prob=1.0, hsv_kind="gain")
    recipe = replace(recipe, hsv_strength=RELEASED_RECIPE.hsv_strength)
    fallen_back = run(recipe, (64, 64), images, seed=1)
    plain = run(replace(recipe, hsv_prob=0.0, flip_prob=0.0), (64, 64), images, seed=1)
    assert len(fallen_back.boxes) > 0
    np.testing.assert_array_equal(fallen_back.boxes, plain.boxes)
    np.testing.assert_array_equal(fallen_back.image, plain.image)
    assert (plain.image != 114).any()
