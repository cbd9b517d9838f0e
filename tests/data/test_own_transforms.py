"""A user's own transforms after the recipe: boxes stay right, and the same sample comes out every time."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from torchvision import tv_tensors
from torchvision.transforms import v2

from yolox_lt.data.augment.own_transforms import apply_own
from yolox_lt.data.augment.transforms import Sample, flip
from yolox_lt.errors import UserError


def sample():
    image = np.random.default_rng(0).integers(0, 256, (21, 33, 3), dtype=np.uint8)
    return Sample(image, np.array([[2, 3, 12, 20], [30, 0, 33, 5]], np.float32), np.array([1, 0]))


def own(transforms, of=None, seed=0):
    return apply_own(transforms, of or sample(), np.random.default_rng(seed))


def assert_same(a, b):
    for name in ("image", "boxes", "labels"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name))


def test_flip_of_v2__equals_ours():
    found = own(v2.RandomHorizontalFlip(p=1))
    assert_same(found, flip(sample()))
    assert found.boxes.tolist() == [[21, 3, 31, 20], [0, 0, 3, 5]]
    assert (found.image.dtype, found.boxes.dtype, found.labels.dtype) == (np.uint8, np.float32, np.int64)


def test_image_without_objects__and_colours_in_rgb():
    empty = Sample(sample().image, np.zeros((0, 4), np.float32), np.zeros(0, np.int64))
    assert_same(own(v2.RandomHorizontalFlip(p=1), empty), flip(empty))

    def only_red(image, target):
        image[1:] = 0
        return image, target

    found = own(only_red).image
    np.testing.assert_array_equal(found[..., 2], sample().image[..., 2])
    assert not found[..., :2].any()


def test_boxes__are_clipped_and_those_outside_leave_with_their_labels():
    def crop(image, target):
        return image[:, :, :31], target | {"boxes": target["boxes"].as_subclass(torch.Tensor)}

    found = own(crop)
    assert found.boxes.tolist() == [[2, 3, 12, 20]]  # of the other one a pixel is left
    assert found.labels.tolist() == [1]

    def centres(image, target):
        return v2.ConvertBoundingBoxFormat(tv_tensors.BoundingBoxFormat.CXCYWH)(image, target)

    assert_same(own(centres), sample())


def test_random_numbers__are_the_sample_s_and_nobody_else_s():
    def noise(image, target):
        for value in (torch.rand(()), np.random.rand(), random.random()):
            image = (image * float(value)).to(torch.uint8)
        return tv_tensors.Image(image), target

    torch.manual_seed(5), np.random.seed(5), random.seed(5)
    first = own(noise, seed=1)
    after = float(torch.rand(())), float(np.random.rand()), random.random()
    torch.manual_seed(5), np.random.seed(5), random.seed(5)
    assert after == (float(torch.rand(())), float(np.random.rand()), random.random())
    assert_same(own(noise, seed=1), first)
    assert not np.array_equal(own(noise, seed=2).image, first.image)


@pytest.mark.parametrize(
    ("transforms", "message"),
    [
        (lambda image, target: (image.float(), target), r"of torch.float32; give uint8"),
        (lambda image, target: (image, target | {"labels": target["labels"][:1]}), "2 boxes and 1 labels"),
        (lambda image, target: 1 / 0, "failed: ZeroDivisionError"),
    ],
)
def test_wrong_transforms__are_named(transforms, message):
    with pytest.raises(UserError, match=message):
        own(transforms)
