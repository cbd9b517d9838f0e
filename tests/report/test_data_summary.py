"""Figures of a data set: worked by hand, and expected draws against what the real sampler and recipe draw."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from yolox_lt.data.annotations.index import AnnotationIndex
from yolox_lt.data.augment.recipe import RELEASED_RECIPE, Augment, AugmentRecipe
from yolox_lt.data.augment.short_side import ShortSideAugment
from yolox_lt.data.dataset import ImageStore, TrainDataset
from yolox_lt.data.frequency import image_category_pairs, repeat_factors
from yolox_lt.data.sampling.sampler import SampleRequest, SampleSampler, SampleStream
from yolox_lt.exp import Exp, LVISStarExp, ResNetExp
from yolox_lt.report.data.summary import Sampling, expected_draws, partners_of, plot_summary, summarize


def annotations(boxes: list[tuple[int, int, float]], images: int, categories: int, side: int = 200) -> dict[str, Any]:
    """COCO content from (image, category, area) of each box; ids of categories are 10, 20, ..."""
    return {
        "images": [{"id": i, "width": side, "height": side, "file_name": f"{i}.jpg"} for i in range(images)],
        "categories": [{"id": 10 * (c + 1), "name": f"c{c}"} for c in range(categories)],
        "annotations": [
            {"image_id": i, "category_id": 10 * (c + 1), "bbox": [5, 5, 8, 8], "area": area} for i, c, area in boxes
        ],
    }


def test_expected_draws__by_hand():
    """Category 0 in images 0, 1 and 2, category 1 in image 3, which is repeated three times; 2 partners, 10 samples.

    Category 0: 10 (3/6 + 2 * 3/4) = 20. Category 1: 10 (3/6 + 2 * 1/4) = 10. Category 2 has no image.
    """
    image, category, factors = np.arange(4), np.array([0, 0, 0, 1]), np.array([1, 1, 1, 3])
    assert expected_draws(image, category, 3, factors, 10, 2.0).tolist() == [20, 10, 0]
    # Without partners the repeated image is half of all: mosaic and mixup bring its gain down from 2 to 4/3.
    assert expected_draws(image, category, 3, factors, 10, 0.0).tolist() == [5, 5, 0]


def test_expected_draws__partners_drawn_as_the_sampler_draws():
    """The same set: each of the three images of a sample is from category 1 with probability 3/6."""
    image, category, factors = np.arange(4), np.array([0, 0, 0, 1]), np.array([1, 1, 1, 3])
    assert expected_draws(image, category, 3, factors, 10, 2.0, same_partners=True).tolist() == [15, 15, 0]


def test_partners__same_as_the_sampler_are_drawn_by_their_factors():
    """Mosaic and mixup over a set with an image of factor 0: counts of reads against the factors."""
    index = AnnotationIndex.load(annotations([(i, 0, 64.0) for i in range(6)], 6, 1, side=16))
    store = ImageStore(index, "nowhere")
    store.memory = {i: np.full((16, 16, 3), i, np.uint8) for i in range(6)}
    factors = np.array([0.0, 1.0, 0.5, 3.0, 0.0, 0.0])
    augment = Augment(AugmentRecipe(mosaic_scale=(0.8, 1.2)), (32, 32))
    dataset = CountingDataset(store, np.arange(6), augment, 3, False, factors)
    for number in range(600):
        dataset[SampleRequest(5, number, True)]
    partners = dataset.reads - np.array([0, 0, 0, 0, 0, 600])
    expected = 2400 * factors / factors.sum()
    assert partners.sum() == 2400
    assert (np.abs(partners - expected) <= 5 * np.sqrt(expected)).all()
    assert (partners[[0, 4, 5]] == 0).all()
    again = CountingDataset(store, np.arange(6), augment, 3, False, factors)
    np.testing.assert_array_equal(again[SampleRequest(5, 17, True)].image, dataset[SampleRequest(5, 17, True)].image)


def test_partners__follow_from_the_recipe():
    def of(**fields: Any) -> float | None:
        return partners_of(Augment(AugmentRecipe(**fields), (64, 64)))

    assert of() == 4
    assert of(mosaic_prob=0.5, mixup_prob=0.5) == 1.75
    assert of(enable_mixup=False) == 3
    assert of(mosaic_prob=0.0) == 0
    assert partners_of(ShortSideAugment()) == 0
    assert partners_of(lambda *_: None) is None
    assert [partners_of(exp.get_augment()) for exp in (Exp(), LVISStarExp(), ResNetExp())] == [4, 4, 0]


class CountingDataset(TrainDataset):
    """Notes which images are read, in place of decoding files."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.reads = np.zeros(len(self.images), np.int64)

    def sample(self, image: int) -> Any:
        self.reads[image] += 1
        return super().sample(image)


@pytest.mark.parametrize("rounding", ["ceil", "stochastic"])
@pytest.mark.parametrize(("mosaic_prob", "mixup_prob"), [(1.0, 1.0), (0.6, 0.5), (0.0, 0.0)])
def test_expected_draws__equal_those_of_sampler_and_recipe(rounding, mosaic_prob, mixup_prob):
    """Twelve epochs of the real stream through the real recipe; images read, counted by category."""
    rng = np.random.default_rng(1)
    holders = [rng.choice(40, n, replace=False) for n in (36, 12, 3, 1)]
    content = annotations([(i, c, 64.0) for c, held in enumerate(holders) for i in held.tolist()], 40, 4, side=16)
    index = AnnotationIndex.load(content)
    store = ImageStore(index, "nowhere")
    store.memory = {i: np.full((16, 16, 3), i, np.uint8) for i in range(40)}
    positions = np.arange(40)
    factors = repeat_factors(index, 0.5, rounding, positions)
    recipe = AugmentRecipe(mosaic_prob=mosaic_prob, mixup_prob=mixup_prob, mosaic_scale=(0.8, 1.2))
    augment = Augment(recipe, (32, 32))
    dataset = CountingDataset(store, positions, augment, 3)
    iterations, batch = 12 * int(np.ceil(factors.sum() / 4)), 4
    sampling = Sampling(factors, iterations, batch, partners_of(augment))
    summary = summarize(index, positions, sampling)
    draws = SampleSampler(SampleStream(factors, 3), batch, 0, iterations, iterations)
    for number, draw in enumerate(d for batch_draws in draws for d in batch_draws):
        assert draw.number == number
        dataset[draw]
    image, category, _ = image_category_pairs(index, positions)
    counted = np.bincount(category, weights=dataset.reads[image])

    # Partners of one sample: 3 with mosaic, 4 with mixup too. Binomial given their number, plus its own spread.
    numbers, chances = (
        np.array([0, 3, 4]),
        np.array([1 - mosaic_prob, mosaic_prob * (1 - mixup_prob), mosaic_prob * mixup_prob]),
    )
    mean = (numbers * chances).sum()
    assert mean == pytest.approx(sampling.partners)
    share = index.image_counts / 40
    spread = mean * share * (1 - share) + share**2 * ((numbers**2 * chances).sum() - mean**2)
    # First images come in whole passes: what a pass cut off at the end, or rounded by chance, may add.
    rest = 3 * factors.max() if rounding == "ceil" else 5 * np.sqrt(12 * index.image_counts)
    assert (np.abs(counted - summary.draws) <= 5 * np.sqrt(sampling.samples * spread) + rest).all()
    if mosaic_prob == 1:  # the figures tell the dilution: without it they would be far off
        undiluted = sampling.samples * 5 * summary.closing_draws / sampling.samples
        assert counted[3] < 0.7 * undiluted[3]
        assert summary.gain[3] == pytest.approx((undiluted[3] / (sampling.samples * 5 * share[3]) + 4) / 5)


def test_summary__by_hand():
    """Five images, the last of which is not trained on; category 2 is in none that is, category 3 in none at all."""
    boxes = [(0, 0, 1023.9), (0, 0, 1024.0), (0, 1, 9215.0), (1, 0, 9216.0), (2, 0, 50.0), (4, 2, 50.0)]
    index = AnnotationIndex.load(annotations(boxes, 5, 4))
    positions = np.array([0, 1, 2, 3])
    summary = summarize(index, positions, Sampling(np.array([2, 1, 1, 1]), 3, 4, 1.0))
    assert summary.listed == 5
    assert summary.boxes_per_image.tolist() == [3, 1, 1, 0]
    assert summary.image_counts.tolist() == [3, 1, 0, 0]
    assert summary.instance_counts.tolist() == [4, 1, 0, 0]
    assert summary.sizes.tolist() == [[2, 1, 1], [0, 1, 0], [0, 0, 0], [0, 0, 0]]
    np.testing.assert_array_equal(summary.repeats, [4 / 3, 2, np.nan, np.nan])
    # 12 samples: first images 12 * 4/5 and 12 * 2/5, partners 12 * 3/4 and 12 * 1/4.
    np.testing.assert_allclose(summary.draws, [18.6, 7.8, 0, 0])
    np.testing.assert_allclose(summary.closing_draws, [9.6, 4.8, 0, 0])
    np.testing.assert_allclose(summary.gain, [18.6 / 18, 7.8 / 6, np.nan, np.nan])
    assert summary.group_gain("r") == pytest.approx(26.4 / 24)
    assert np.isnan(summary.group_gain("f"))


def test_to_dict__is_json_and_adds_up(tmp_path):
    boxes = [(0, 0, 1023.9), (0, 0, 1024.0), (0, 1, 9215.0), (1, 0, 9216.0), (2, 0, 50.0)]
    index = AnnotationIndex.load(annotations(boxes, 4, 3))
    summary = summarize(index, np.arange(4), Sampling(np.array([1.5, 1, 1, 1]), 3, 4, None))
    values = json.loads(json.dumps(summary.to_dict(), allow_nan=False))
    assert values["boxes"] == 5
    assert values["boxes_per_image"] == {"mean": 1.25, "median": 1.0, "max": 3, "images_without": 1}
    assert values["sizes"] == {"small": 2, "medium": 2, "large": 1}
    assert values["epoch"]["partners_per_sample"] is None
    assert [c["boxes"] for c in values["categories"]] == [4, 1, 0]
    assert values["categories"][2]["gain_over_uniform"] is None
    assert values["groups"][0]["boxes"] == 5
    assert [g["categories"] for g in values["groups"]] == [3, 0, 0]
    plot_summary(summary, tmp_path / "labels.png")
    assert (tmp_path / "labels.png").read_bytes()[:4] == b"\x89PNG"


def test_recipe__of_released_models_has_four_partners():
    assert partners_of(Augment(RELEASED_RECIPE, (640, 640))) == 4
