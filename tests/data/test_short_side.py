"""The ResNet models' images: golden sizes and boxes, flips in the legacy convention, padding, grouped batches."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from yolox_lt.data.augment.short_side import ShortSideAugment, ShortSideTransform, resize_short_side
from yolox_lt.data.augment.transforms import Sample
from yolox_lt.data.collate import Collate, Item
from yolox_lt.data.sampling.sampler import SampleSampler, SampleStream
from yolox_lt.errors import UserError
from yolox_lt.exp import ResNetExp


@pytest.mark.parametrize("i", range(5))
def test_golden__short_side_40_long_side_at_most_60(golden, i):
    data = golden("transforms.npz")
    got, scale = resize_short_side(data[f"img{i}"], 40, 60)
    want = data[f"legacy_resize_img{i}_image"]
    assert got.shape == want.shape
    assert np.abs(got.astype(int) - want).max() <= 2
    np.testing.assert_allclose(scale, data[f"legacy_resize_img{i}_scale_hw"], rtol=1e-12)


@pytest.mark.parametrize("i", range(5))
def test_golden__boxes_follow_the_rounded_size(golden, i):
    data = golden("transforms.npz")
    # The golden boxes are legacy already; ours arrive plain, one pixel longer.
    plain = data[f"box{i}"][:, :4] + np.array([0, 0, 1, 1], np.float32)
    sample = Sample(data[f"img{i}"], plain, np.zeros(5, np.int64))
    augment = ShortSideAugment((40,), 60, flip_prob=0.0)
    got = augment(0, np.random.default_rng(0), True, lambda _: sample, lambda _: 0)
    want = data[f"legacy_resize_img{i}_box"][:, :4] + np.array([0, 0, 1, 1], np.float32)
    np.testing.assert_allclose(got.boxes, want, rtol=0, atol=1e-5)


def test_golden__normalised_and_padded_batch(golden):
    data = golden("transforms.npz")
    transform = ShortSideTransform(40, 60)
    batch = Collate(multiple=64)([transform(data[f"img{i}"]) for i in range(5)])
    assert list(batch.images.shape) == data["legacy_batch_shape"].tolist()
    got = ResNetExp().get_preprocessor()(batch.images, batch.image_sizes)[1].numpy()
    want = data["legacy_batch_img1"][::-1]  # the golden images are taken as they lie, ours as BGR
    mean, std = np.array(ResNetExp.pixel_mean)[:, None, None], np.array(ResNetExp.pixel_std)[:, None, None]
    height, width = batch.image_sizes[1].tolist()
    grey = want[:, :height, :width] * std[::-1] + mean[::-1]  # back to [0, 1], channel by channel
    np.testing.assert_allclose((got[:, :height, :width] * std + mean) * 255, grey * 255, atol=2.01)
    np.testing.assert_array_equal(got[:, height:], 0)
    np.testing.assert_array_equal(got[:, :, width:], 0)
    np.testing.assert_array_equal(want[:, height:], 0)


def test_normalize__a_grey_level_by_hand():
    images = torch.full((1, 3, 2, 2), 0, dtype=torch.uint8)
    images[:, 2] = 255  # red, the last channel of BGR
    got = ResNetExp().get_preprocessor()(images, torch.tensor([[2, 1]]))
    assert got[0, :, 0, 0].tolist() == pytest.approx([(1 - 0.485) / 0.229, -0.456 / 0.224, -0.406 / 0.225], rel=1e-6)
    assert (got[0, :, :, 1] == 0).all()


def test_resize__by_hand():
    """10 wide, box of pixels 2..4, to twice the size: released 4 becomes 8, plain the side 5 becomes 10."""
    sample = Sample(np.zeros((10, 10, 3), np.uint8), np.array([[2.0, 1, 5, 4]], np.float32), np.zeros(1, np.int64))
    for legacy, want in ((True, [4, 2, 9, 7]), (False, [4, 2, 10, 8])):
        augment = ShortSideAugment((20,), 20, flip_prob=0.0, legacy=legacy)
        assert augment(0, np.random.default_rng(0), False, lambda _: sample, lambda _: 0).boxes.tolist() == [want]


def test_flip__by_hand():
    # 10 wide, box of pixels 2..4: mirrored it covers pixels 5..7, from 5 to 8.
    sample = Sample(np.zeros((10, 10, 3), np.uint8), np.array([[2.0, 1, 5, 4]], np.float32), np.zeros(1, np.int64))
    for legacy in (True, False):
        augment = ShortSideAugment((10,), 10, flip_prob=1.0, legacy=legacy)
        assert augment(0, np.random.default_rng(0), False, lambda _: sample, lambda _: 0).boxes.tolist() == [
            [5, 1, 8, 4]
        ]


def test_sizes__every_short_side_is_drawn_and_the_long_side_limited():
    sample = Sample(np.zeros((300, 400, 3), np.uint8), np.zeros((0, 4), np.float32), np.zeros(0, np.int64))
    augment, rng = ShortSideAugment(), np.random.default_rng(0)
    shapes = {augment(0, rng, True, lambda _: sample, lambda _: 0).image.shape[:2] for _ in range(200)}
    assert shapes == {(s, round(s * 4 / 3)) for s in (640, 672, 704, 736, 768, 800)}
    wide = ShortSideTransform()(np.zeros((100, 1000, 3), np.uint8))
    assert wide.image.shape[:2] == wide.content_size == (133, 1333)


@pytest.mark.parametrize("shape", [(1, 1), (1, 4000), (2, 3), (37, 5)])
def test_extreme_shapes__keep_a_pixel(shape):
    item = ShortSideTransform(40, 60)(np.zeros((*shape, 3), np.uint8))
    assert min(item.image.shape[:2]) >= 1
    assert max(item.image.shape[:2]) <= 60
    assert item.scale == (item.image.shape[0] / shape[0], item.image.shape[1] / shape[1])


@pytest.mark.parametrize("options", [{"short_sides": ()}, {"short_sides": (2000,)}, {"flip_prob": 1.5}])
def test_bad_settings__are_refused(options):
    with pytest.raises(UserError, match=r"short_sides|flip_prob"):
        ShortSideAugment(**options)


def test_collate__pads_to_the_multiple():
    item = Item(np.ones((70, 10, 3), np.uint8), np.zeros((0, 4)), np.zeros(0), 1, (70, 10), (70, 10))
    batch = Collate(multiple=64)([item])
    assert batch.images.shape == (1, 3, 128, 64)
    assert int(batch.images.sum()) == 3 * 70 * 10


# ------------------------------------------------------------------------------------------------- grouped batches


def test_groups__no_batch_mixes_and_the_order_of_each_group_is_the_streams():
    groups = np.arange(20) % 3 // 2  # 14 tall, 6 wide
    stream = SampleStream(np.ones(20, np.int64), seed=3)
    batches = list(SampleSampler(stream, 4, 0, 30, 30, groups))
    assert len(batches) == 30
    assert all(len({groups[d.image] for d in batch}) == 1 for batch in batches)
    for g in (0, 1):
        drawn = [d for batch in batches for d in batch if groups[d.image] == g]
        source = stream.from_position(0)
        want = [image for image in (next(source) for _ in range(400)) if groups[image] == g][: len(drawn)]
        assert [d.image for d in drawn] == want
    numbers = [d.number for batch in batches for d in batch]
    assert len(set(numbers)) == len(numbers)


def test_groups__resume_anywhere():
    groups = np.arange(11) % 2
    stream = SampleStream(np.full(11, 1.5), seed=1, rank=1, world_size=2)
    whole = list(SampleSampler(stream, 3, 0, 25, 20, groups))
    assert list(SampleSampler(stream, 3, 9, 25, 20, groups)) == whole[9:]
    assert [batch[0].use_mosaic for batch in whole] == [True] * 20 + [False] * 5
