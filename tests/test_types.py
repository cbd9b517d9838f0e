"""A batch on its way to the device."""

from __future__ import annotations

import pytest
import torch

from yolox_lt.types import Batch, pack_objects, unpack_objects

COUNTS = [2, 0, 3]


def objects():
    g = torch.Generator().manual_seed(0)
    boxes = [torch.rand(n, 4, generator=g) * 640 for n in COUNTS]
    labels = [torch.randint(0, 2**24, (n,), generator=g) for n in COUNTS]
    labels[0][0] = 2**24 - 1
    return boxes, labels


def batch(boxes, labels):
    sizes = torch.full((3, 2), 64)
    images = torch.zeros(3, 3, 64, 64, dtype=torch.uint8)
    return Batch(images, boxes, labels, torch.arange(3), sizes, sizes, torch.ones(3, 2, dtype=torch.float64))


@pytest.mark.parametrize("empty", [False, True])
def test_objects__of_all_images_in_one_tensor_and_back(empty):
    boxes, labels = objects()
    if empty:
        boxes, labels = [b[:0] for b in boxes], [x[:0] for x in labels]
    packed = pack_objects(boxes, labels)
    assert packed.shape == (sum(map(len, boxes)), 5)
    assert packed.dtype == torch.float32
    again = unpack_objects(packed, [len(b) for b in boxes])
    for before, after in zip((boxes, labels), again):
        for a, b in zip(before, after, strict=True):
            assert torch.equal(a, b)
            assert a.dtype == b.dtype
            assert b.is_contiguous()


def test_batch__on_another_device_has_what_the_model_needs_there():
    made = batch(*objects()).to("meta")
    assert {made.images.device.type, *(t.device.type for t in (*made.boxes, *made.labels))} == {"meta"}
    assert [(tuple(b.shape), b.dtype) for b in made.boxes] == [((n, 4), torch.float32) for n in COUNTS]
    assert [(tuple(x.shape), x.dtype) for x in made.labels] == [((n,), torch.int64) for n in COUNTS]
    assert made.image_ids.device.type == made.image_sizes.device.type == "cpu"


def test_batch__on_the_cpu_is_not_copied():
    made = batch(*objects())
    assert made.to("cpu").images.data_ptr() == made.images.data_ptr()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_batch__pinned_and_on_the_gpu_is_the_same():
    boxes, labels = objects()
    made = batch(boxes, labels).pin_memory()
    assert made.images.is_pinned()
    for name in ("boxes", "labels"):
        for a, b in zip(getattr(made, name), getattr(made.to("cuda"), name), strict=True):
            assert torch.equal(a, b.cpu())
