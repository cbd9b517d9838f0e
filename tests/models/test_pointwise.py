"""Classification outputs of all levels in one matrix against convolving each level and joining the maps."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from yolox_lt.models import YOLOXHead, pointwise
from yolox_lt.models.heads import concat_levels
from yolox_lt.models.pointwise import pointwise_rows

SIZES = [(5, 7), (3, 4), (1, 1)]
"""Odd sizes, and a level of one cell."""


def case(anchors: int, categories: int, batch: int, memory_format: torch.memory_format) -> tuple[list, list[nn.Conv2d]]:
    torch.manual_seed(0)
    features = [
        torch.randn(batch, 6, *size, dtype=torch.float64).to(memory_format=memory_format).requires_grad_()
        for size in SIZES
    ]
    return features, [nn.Conv2d(6, anchors * categories, 1).double() for _ in SIZES]


def gradients(out: Tensor, features: list[Tensor], convs: list[nn.Conv2d]) -> list[Tensor]:
    torch.manual_seed(1)
    parameters = [p for conv in convs for p in conv.parameters()]
    return list(torch.autograd.grad((out * torch.randn_like(out)).sum(), [*features, *parameters]))


@pytest.mark.parametrize("anchors", [1, 2, 3])
@pytest.mark.parametrize(("categories", "batch"), [(1, 1), (5, 1), (5, 3)])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_pointwise_rows__equals_convolutions_joined(anchors, categories, batch, memory_format):
    features, convs = case(anchors, categories, batch, memory_format)
    ours = pointwise_rows(features, convs, categories)
    joined = concat_levels([conv(f) for conv, f in zip(convs, features)], categories)
    assert ours.is_contiguous()
    torch.testing.assert_close(ours, joined, rtol=1e-12, atol=1e-12)
    for a, b in zip(gradients(ours, features, convs), gradients(joined, features, convs)):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("anchors", [1, 2])
@pytest.mark.parametrize(("categories", "apart"), [(5, 8), (8, 8), (11, 16)])
def test_pointwise_rows__apart_as_on_a_gpu(monkeypatch, anchors, categories, apart):
    """Rows begin at multiples of 8 entries; the gradient may come with such rows, with or without a hole between."""
    features, convs = case(anchors, categories, 3, torch.channels_last)
    plain = pointwise_rows(features, convs, categories)
    expected = gradients(plain, features, convs)
    monkeypatch.setattr(pointwise, "aligned", lambda values, like: -(-values // 8) * 8)
    ours = pointwise_rows(features, convs, categories)
    assert ours.stride() == (ours.shape[1] * apart, apart, 1)
    torch.testing.assert_close(ours, plain, rtol=1e-12, atol=1e-12)
    for a, b in zip(gradients(ours, features, convs), expected):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)
    torch.manual_seed(1)
    noise = torch.randn_like(plain)
    hole = torch.full((*noise.shape[:2], apart), float("nan"), dtype=noise.dtype)
    hole[..., :categories] = noise
    parameters = [p for conv in convs for p in conv.parameters()]
    again = pointwise_rows(features, convs, categories)
    found = torch.autograd.grad(again, [*features, *parameters], hole[..., :categories])
    for a, b in zip(found, expected):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def test_aligned__on_a_gpu_alone():
    assert pointwise.aligned(1203, torch.empty(0)) == 1203
    with FakeTensorMode(allow_non_fake_inputs=True):
        rows = torch.empty(0, device="cuda")
    assert [pointwise.aligned(values, rows) for values in (1, 8, 1203, 1208)] == [8, 8, 1208, 1208]


@pytest.mark.parametrize("at_once", [True, False])
@pytest.mark.parametrize("batch", [1, 3])
def test_add_parameter_gradients__by_definition(at_once, batch):
    torch.manual_seed(0)
    level, x = torch.randn(batch, 7, 9, dtype=torch.float64)[..., :4], torch.randn(batch, 7, 5, dtype=torch.float64)
    to_weight, to_bias = torch.ones(4, 5, dtype=torch.float64), torch.ones(4, dtype=torch.float64)
    pointwise.add_parameter_gradients(level, x, to_weight, to_bias, at_once)
    torch.testing.assert_close(to_weight, 1 + torch.einsum("bnm,bnk->mk", level, x), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(to_bias, 1 + level.sum((0, 1)), rtol=1e-12, atol=1e-12)


def test_pointwise_rows__second_anchor_and_last_category_of_a_cell():
    features, convs = case(anchors=2, categories=5, batch=2, memory_format=torch.channels_last)
    with torch.no_grad():
        convs[1].bias[1 * 5 + 4] += 100  # second level, second anchor, last category
        rows = pointwise_rows(features, convs, 5)
    first = 5 * 7 * 2
    lifted = (rows > 50).nonzero()
    expected = [[b, first + cell * 2 + 1, 4] for b in range(2) for cell in range(3 * 4)]
    assert lifted.tolist() == expected


def test_pointwise_rows__autocast_computes_in_half_precision_and_keeps_float32_gradients():
    features = [torch.randn(2, 8, 3, 3, requires_grad=True)]
    convs = [nn.Conv2d(8, 4, 1)]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rows = pointwise_rows(features, convs, 4)
    assert rows.dtype == torch.bfloat16
    exact = concat_levels([convs[0](features[0])], 4)
    torch.testing.assert_close(rows.float(), exact, rtol=0.02, atol=0.02)
    for a, b in zip(gradients(rows.float(), features, convs), gradients(exact, features, convs)):
        assert a.dtype == torch.float32
        torch.testing.assert_close(a, b, rtol=0.05, atol=0.05)


def test_head__training_and_evaluation_give_the_same_logits():
    torch.manual_seed(0)
    head = YOLOXHead(7, 0.125, num_anchors=2).double()
    for module in head.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    features = [torch.randn(2, c // 8, *size, dtype=torch.float64) for c, size in zip((256, 512, 1024), SIZES)]
    assert head.training
    trained = head(features).cls_logits
    for module in (head, *head.modules()):
        module.training = False
    torch.testing.assert_close(trained, head(features).cls_logits, rtol=1e-12, atol=1e-12)
