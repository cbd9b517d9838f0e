"""The recipes' settings: names, figures, ranges, and the size drawn for an image."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest

from tests.data.test_augment import random_sample
from tests.data.test_recipe import run
from yolox_lt.data.augment.recipe import (
    OFFICIAL_RECIPE,
    RELEASED_RECIPE,
    Augment,
    AugmentRecipe,
    draw_size,
    value_range,
)
from yolox_lt.errors import UserError


def test_draw_size__uniform_from_480_to_800() -> None:
    rng = np.random.default_rng(0)
    sizes = [draw_size((640, 640), 5, rng) for _ in range(11_000)]
    assert all(height == width for height, width in sizes)
    values, counts = np.unique([height for height, _ in sizes], return_counts=True)
    np.testing.assert_array_equal(values, np.arange(480, 801, 32))
    chi_square = ((counts - 1000) ** 2 / 1000).sum()
    assert chi_square < 29.6  # 10 degrees of freedom, p = 0.001


def test_draw_size__width_in_proportion() -> None:
    sizes = {draw_size((320, 480), 2, np.random.default_rng(seed)) for seed in range(60)}
    assert sizes == {(256, 384), (288, 416), (320, 480), (352, 512), (384, 576)}


def test_augment__released_draws_a_size_for_every_image() -> None:
    source = random_sample(20, 20, 1)
    sizes = {run(RELEASED_RECIPE, (256, 256), [source], seed, use_mosaic=False).image.shape for seed in range(120)}
    assert sizes == {(side, side, 3) for side in range(96, 417, 32)}


def test_augment__size_range_too_wide() -> None:
    with pytest.raises(UserError, match="multiscale_range 5 shrinks input_size 160 x 160"):
        Augment(RELEASED_RECIPE, (160, 160))
    Augment(RELEASED_RECIPE, (192, 192))


# -- parameters ------------------------------------------------------------------------------------------------------


def test_recipe__official_attribute_names() -> None:
    names = "mosaic_prob mixup_prob hsv_prob flip_prob degrees translate mosaic_scale enable_mixup mixup_scale shear"
    values: list[Any] = [1.0, 1.0, 1.0, 0.5, 10.0, 0.1, (0.1, 2), True, (0.5, 1.5), 2.0]
    expected = dict(zip(names.split(), values))
    assert {name: getattr(OFFICIAL_RECIPE, name) for name in expected} == expected
    assert [field.name for field in fields(AugmentRecipe)][:10] == list(expected)
    assert AugmentRecipe(**expected) == OFFICIAL_RECIPE


def test_recipe__released_figures() -> None:
    """What the released models change, and nothing else."""
    changed = {
        field.name: getattr(RELEASED_RECIPE, field.name)
        for field in fields(AugmentRecipe)
        if getattr(RELEASED_RECIPE, field.name) != getattr(OFFICIAL_RECIPE, field.name)
    }
    assert changed == {
        "mixup_scale": (0.8, 1.6),
        "fill": 0,
        "mixup_flip_prob": 0.0,
        "hsv_kind": "gain",
        "hsv_strength": (0.015, 0.7, 0.4),
        "centred": True,
        "filter_boxes": True,
        "truncate": False,
        "keep_last_boxes": False,
        "image_multiscale": 5,
    }


@pytest.mark.parametrize(
    ("value", "centre", "expected"),
    [(10, 0.0, (-10, 10)), (0, 0.0, (0, 0)), (0.1, 0.5, (0.4, 0.6)), ((0.1, 2), 1.0, (0.1, 2)), ([3, 4], 0.0, (3, 4))],
)
def test_value_range__number_or_pair(value: Any, centre: float, expected: tuple[float, float]) -> None:
    assert value_range("x", value, centre) == pytest.approx(expected)


def test_augment__number_instead_of_pair() -> None:
    """degrees = 0 as a whole number and mosaic_scale = 0.5 mean -0..0 and 0.5..1.5."""
    images = [random_sample(64, 64, 2, seed=i) for i in range(3)]
    one = run(replace(OFFICIAL_RECIPE, degrees=0, mosaic_scale=0.5, shear=[0, 0]), (64, 64), images, seed=4)
    two = run(replace(OFFICIAL_RECIPE, degrees=(0, 0), mosaic_scale=(0.5, 1.5), shear=0), (64, 64), images, seed=4)
    np.testing.assert_array_equal(one.image, two.image)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mosaic_prob": 1.5}, "mosaic_prob = 1.5 is not a probability"),
        ({"mixup_flip_prob": -0.1}, "mixup_flip_prob"),
        ({"degrees": (5, -5)}, "degrees = .* is empty"),
        ({"degrees": -5}, "degrees = -5 is empty"),
        ({"translate": (1, 2, 3)}, "translate = .* is not a range"),
        ({"shear": "2"}, "shear = '2' is not a range"),
        ({"mosaic_scale": (0, 2)}, "mosaic_scale .* must be above 0"),
        ({"mixup_scale": 1.0}, "mixup_scale .* must be above 0"),
        ({"hsv_kind": "hue"}, 'hsv_kind = "hue" is unknown'),
        ({"fill": 300}, "fill = 300"),
    ],
)
def test_recipe__bad_value_is_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        AugmentRecipe(**change)
