"""Repeat factors and class-balanced sampling against arrays of the two-stage repositories."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from yolox_lt.data.frequency import class_balanced_factors, repeat_factors
from yolox_lt.data.sampling.sampler import epoch_permutation


def categories_of_images(data):
    offset, labels = data["labels_offset"], data["labels_flat"]
    return [labels[a:b].tolist() for a, b in itertools.pairwise(offset)]


@pytest.mark.parametrize("threshold", ["0.001", "0.05", "0.3"])
def test_repeat_factors(golden, threshold):
    data = golden("two_stage_samplers.npz")
    images = categories_of_images(data)
    fractional = repeat_factors(images, float(threshold), "stochastic")
    np.testing.assert_allclose(fractional, data[f"rfs_t{threshold}_factor"], rtol=1e-12)
    np.testing.assert_allclose(fractional, data[f"rfs_t{threshold}_detectron2_factor"], rtol=1e-6)
    for rounding in ("ceil", "round", "floor"):
        factors = repeat_factors(images, float(threshold), rounding)
        repeated = np.repeat(np.arange(len(images)), factors)
        np.testing.assert_array_equal(np.sort(data[f"rfs_t{threshold}_{rounding}_list"]), repeated)


def test_class_balanced__probabilities_and_draws(golden):
    """The probability of every image is the reference's; over 200 passes ours is drawn as often as that says."""
    data = golden("two_stage_samplers.npz")
    factors = class_balanced_factors(categories_of_images(data))
    np.testing.assert_allclose(factors / len(factors), data["cbs_probability"], rtol=1e-9)
    drawn = np.bincount(np.concatenate([epoch_permutation(factors, 0, n) for n in range(200)]), minlength=len(factors))
    assert abs(drawn / 200 - factors).max() < 4 * 0.5 / np.sqrt(200)  # rounding by chance: a deviation of at most 0.5
    objects = np.zeros(14)
    for image, labels in enumerate(categories_of_images(data)):
        np.add.at(objects, labels, data["cbs_probability"][image])
    np.testing.assert_allclose(objects, data["cbs_expected_objects_per_category"], rtol=1e-9)
