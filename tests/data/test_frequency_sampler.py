"""Repeat factors and the sampling stream: golden sequences, the real LVIS counts, purity."""

from __future__ import annotations

import itertools
import math
from collections import Counter

import numpy as np
import pytest

from yolox_lt.data.annotations.index import AnnotationIndex
from yolox_lt.data.frequency import (
    category_factors,
    class_balanced_factors,
    instance_aware_factors,
    repeat_factors,
)
from yolox_lt.data.sampling.sampler import SampleSampler, SampleStream, iterations_per_epoch, pass_indices


def golden_categories(data):
    offset = data["labels_offset"]
    return [(data["labels_flat"][a:b] - 1).tolist() for a, b in itertools.pairwise(offset)]


@pytest.mark.parametrize("threshold", [0.001, 0.05, 0.3])
@pytest.mark.parametrize("rounding", ["ceil", "round", "floor"])
def test_golden__factors(golden, threshold, rounding):
    data = golden("rfs.npz")
    ours = repeat_factors(golden_categories(data), threshold, rounding)
    np.testing.assert_array_equal(ours, data[f"t{threshold}_{rounding}_image_repeat"])
    category = category_factors(np.repeat(np.arange(12), data["images_per_class"]), 60, threshold)
    np.testing.assert_allclose(category, data[f"t{threshold}_category_factor"], rtol=1e-12)


def test_golden__index_sequences_of_every_rank_and_epoch(golden):
    data = golden("rfs.npz")
    factors = repeat_factors(golden_categories(data), 0.3, "ceil")
    checked = 0
    for key, want in data.items():
        if "_world" in key and "_rank" in key:
            world, rank, epoch = (int(key.split(f"_{w}")[1].split("_")[0]) for w in ("world", "rank", "epoch"))
            np.testing.assert_array_equal(pass_indices(factors, 0, epoch, rank, world), want)
            checked += 1
    assert checked == 21


def test_golden__stochastic_rounding_has_the_reference_mean(golden):
    data = golden("rfs.npz")
    factors = repeat_factors(golden_categories(data), 0.3, "stochastic")
    draws = np.stack([np.bincount(pass_indices(factors, 0, e), minlength=60) for e in range(2000)])
    np.testing.assert_allclose(draws.mean(0), data["t0.3_random_round_mean_repeat_2000draws"], atol=0.06)
    np.testing.assert_allclose(draws.mean(0), factors, atol=0.05)


def test_hand_worked__three_images_one_empty():
    # Category 0 in two of three images, category 1 in one; t = 1: r_0 = sqrt(3/2), r_1 = sqrt(3).
    factors = repeat_factors([[0, 0], [0, 1], []], 1.0, "stochastic")
    np.testing.assert_allclose(factors, [math.sqrt(1.5), math.sqrt(3), 1.0])
    assert repeat_factors([[0, 0], [0, 1], []], 1.0).tolist() == [2, 2, 1]


def test_lvis__counts_of_the_real_categories(golden):
    counts = np.array([c["image_count"] for c in golden("lvis_v1_categories.json")["categories"]])
    category = np.repeat(np.arange(1203), counts)
    for images, repeated, largest in ((100_170, 798, 10.008), (99_388, 796, 9.969)):
        factors = category_factors(category, images, 0.001)
        assert (factors > 1).sum() == repeated
        assert factors.max() == pytest.approx(largest, abs=1e-3)


def test_lvis__instance_aware_factors_of_the_real_categories(golden):
    table = golden("lvis_v1_categories.json")["categories"]
    images, instances = (np.array([c[key] for c in table]) for key in ("image_count", "instance_count"))
    assert instances.sum() == 1_270_141
    factors = instance_aware_factors(images, instances, 100_170, 0.001)
    assert (factors > 1).sum() == 894
    assert factors.max() == pytest.approx(18.9, abs=0.05)
    groups = [c["frequency"] for c in table]
    assert Counter(groups) == {"r": 337, "c": 461, "f": 405}


def test_instance_aware__by_hand():
    """Category 0: 2 of 4 images, 6 of 8 objects; category 1: 1 image, 2 objects. t = 1: r = (f_img f_inst) ** -1/4."""
    lists = [[0, 0, 0, 0, 0], [0, 1, 1], [], []]
    r0, r1 = (2 / 4 * 6 / 8) ** -0.25, (1 / 4 * 2 / 8) ** -0.25
    np.testing.assert_allclose(repeat_factors(lists, 1.0, "stochastic", by_instances=True), [r0, r1, 1, 1])
    assert repeat_factors(lists, 1.0, by_instances=True).tolist() == [2, 2, 1, 1]
    subset = np.array([0, 1])  # f_img of category 0 is 1 now
    r0, r1 = (1 * 6 / 8) ** -0.25, (1 / 2 * 2 / 8) ** -0.25
    np.testing.assert_allclose(repeat_factors(lists, 1.0, "stochastic", subset, by_instances=True), [r0, r1])


POWERS = ((0.5, None), (1.0, None), (1.0, 3.0), (0.0, None))


@pytest.mark.parametrize("threshold", ["0.001", "0.05", "0.3"])
def test_golden__factors_of_categories_by_images_and_by_instances(golden, threshold):
    data = golden("beyond_sampling.npz")
    pairs = np.unique(np.stack([data["image"], data["category"]]), axis=1)
    found = category_factors(pairs[1], 60, float(threshold))
    np.testing.assert_allclose(found, data[f"rfs_t{threshold}"][:11], rtol=1e-12)  # the last category occurs nowhere
    counts = data["image_counts"], data["instance_counts"]
    found = instance_aware_factors(*counts, 60, float(threshold))
    np.testing.assert_allclose(found, data[f"irfs_t{threshold}"], rtol=1e-12)


def test_power_and_cap__by_hand():
    """Category 0 in all four images, category 1 in one: f 1 and 0.25; threshold 1: r = 1 and 4^power."""
    images = [[0, 1], [0], [0], [0]]
    factors = {
        (power, cap): repeat_factors(images, 1.0, "stochastic", power=power, cap=cap)[0] for power, cap in POWERS
    }
    assert factors == {(0.5, None): 2.0, (1.0, None): 4.0, (1.0, 3.0): 3.0, (0.0, None): 1.0}
    by_instances = repeat_factors(images, 1.0, "stochastic", by_instances=True, power=1.0)
    # shares sqrt(f_i f_b): category 1 sqrt(1/4 * 1/5), to the power -1 is sqrt(20)
    np.testing.assert_allclose(by_instances[0], 20**0.5)


def test_class_balanced__by_hand():
    """Category 0 in images 0, 1, 2, category 2 in image 2, category 1 in none: the two share the draws equally."""
    lists = [[0], [0, 0], [0, 2], []]
    np.testing.assert_allclose(class_balanced_factors(lists), [4 / 6, 4 / 6, 4 / 6 + 4 / 2, 0])
    assert class_balanced_factors([[], [1]]).tolist() == [0, 2]


@pytest.mark.parametrize("kind", ["repeat", "instances", "balanced"])
def test_empirical_counts__equal_the_factors(kind):
    """300 passes of a long-tailed set over two ranks: every image is drawn as often as its factor says."""
    rng = np.random.default_rng(2)
    lists = [rng.choice(4, rng.integers(0, 4), p=[0.7, 0.2, 0.07, 0.03]).tolist() for _ in range(80)]
    factors = {
        "repeat": repeat_factors(lists, 0.3, "stochastic"),
        "instances": repeat_factors(lists, 0.3, "stochastic", by_instances=True),
        "balanced": class_balanced_factors(lists),
    }[kind]
    passes = 300
    counts = np.zeros(80)
    for number in range(passes):
        # Of the last rank the head of the list, by which a pass is padded, may be drawn twice.
        order = np.concatenate([pass_indices(factors, 7, number, rank, 2) for rank in (0, 1)])
        counts += np.bincount(order, minlength=80)
    fraction = factors % 1
    spread = np.sqrt(passes * (fraction * (1 - fraction) + 1 / 80))
    assert (np.abs(counts - passes * factors) <= 5 * spread + 2).all()


def test_class_balanced__equals_drawing_a_category_then_an_image():
    rng = np.random.default_rng(4)
    lists = [rng.choice(4, rng.integers(0, 4), p=[0.7, 0.2, 0.07, 0.03]).tolist() for _ in range(60)]
    holders = [[i for i, held in enumerate(lists) if c in held] for c in range(4)]
    assert all(holders)
    counts = np.zeros(60)
    for _ in range(40_000):
        held = holders[rng.integers(4)]
        counts[held[rng.integers(len(held))]] += 1
    expected = class_balanced_factors(lists) * 40_000 / 60
    assert (np.abs(counts - expected) <= 5 * np.sqrt(expected)).all()


def test_index__equals_the_lists_and_honours_a_subset():
    images = [{"id": i, "width": 10, "height": 10, "file_name": f"{i}.jpg"} for i in (1, 2, 3, 4)]
    boxes = [(1, 7), (1, 7), (2, 7), (2, 9), (4, 9)]
    annotations = [
        {"id": n, "image_id": i, "category_id": c, "bbox": [1, 1, 4, 4], "area": 16, "iscrowd": 0}
        for n, (i, c) in enumerate(boxes, 1)
    ]
    annotations.append({"id": 9, "image_id": 3, "category_id": 7, "bbox": [1, 1, 0, 4], "area": 0, "iscrowd": 0})
    categories = [{"id": 7, "name": "a"}, {"id": 9, "name": "b"}]
    index = AnnotationIndex.load({"images": images, "annotations": annotations, "categories": categories})
    lists = [[0, 0], [0, 1], [], [1]]
    np.testing.assert_allclose(repeat_factors(index, 2.0, "stochastic"), repeat_factors(lists, 2.0, "stochastic"))
    subset = np.array([0, 1, 3])
    np.testing.assert_allclose(
        repeat_factors(index, 2.0, "stochastic", subset), repeat_factors([lists[i] for i in subset], 2.0, "stochastic")
    )


@pytest.mark.parametrize("factors", [np.array([1, 3, 1, 2, 1]), np.array([1.0, 2.5, 1.2, 1.0, 1.7])])
def test_stream__starts_anywhere_as_if_it_had_run_there(factors):
    stream = SampleStream(factors, seed=5, rank=1, world_size=2)
    whole = stream.from_position(0)
    first = [next(whole) for _ in range(60)]
    for position in (0, 1, 7, 23, 40):
        later = stream.from_position(position)
        assert [next(later) for _ in range(60 - position)] == first[position:]


def test_stream__ranks_together_draw_every_image_its_factor_times():
    factors = np.array([1, 3, 1, 2, 1])  # 8 in all: no padding for 2 ranks
    for world in (1, 2, 4, 8):
        drawn = np.concatenate([pass_indices(factors, 3, 2, rank, world) for rank in range(world)])
        assert Counter(drawn.tolist()) == {0: 1, 1: 3, 2: 1, 3: 2, 4: 1}
    assert pass_indices(factors, 3, 2).tolist() != pass_indices(factors, 3, 3).tolist()
    assert pass_indices(factors, 3, 2).tolist() != pass_indices(factors, 4, 2).tolist()


def test_stream__more_ranks_than_images_pads_by_starting_over():
    drawn = np.concatenate([pass_indices(np.array([1, 1]), 0, 0, rank, 5) for rank in range(5)])
    assert len(drawn) == 5
    assert set(drawn.tolist()) == {0, 1}


def test_draws__resume_and_numbers_are_unique_over_ranks():
    def draws(rank, start, stop):
        sampler = SampleSampler(SampleStream(np.ones(7, np.int64), 0, rank, 2), 3, start, stop, no_aug_start=4)
        return [d for batch in sampler for d in batch]

    whole = draws(0, 0, 6)
    assert draws(0, 2, 6) == whole[6:]
    numbers = [d.number for rank in (0, 1) for d in draws(rank, 0, 6)]
    assert sorted(numbers) == list(range(36))
    assert [d.use_mosaic for d in whole] == [True] * 12 + [False] * 6


def test_epoch__released_yolox_count():
    assert iterations_per_epoch(99_388, 16, 8) == 777
