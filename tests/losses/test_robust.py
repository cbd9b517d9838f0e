"""Every loss at the edges: gradients in float64, logits of +-1e4, most of 1203 categories absent for a whole epoch."""

from __future__ import annotations

import pytest
import torch

from yolox_lt.losses import (
    EQLv2FocalLoss,
    EqualizedFocalLoss,
    EqualizedQualityFocalLoss,
    bce_with_logits,
    giou_loss,
    square_iou_loss,
)

BALANCED = [EqualizedFocalLoss, EqualizedQualityFocalLoss, EQLv2FocalLoss]


def test_gradcheck__eqlv2_and_the_losses_of_boxes_and_quality():
    generator = torch.Generator().manual_seed(0)
    logits = (1.5 * torch.randn(12, 4, generator=generator, dtype=torch.float64)).requires_grad_()
    labels = torch.randint(-2, 4, (12,), generator=generator)
    loss = EQLv2FocalLoss(4).double().eval()
    loss.balance.ratio.copy_(torch.tensor([0.1, 0.8, 1.5, 100.0]))
    assert torch.autograd.gradcheck(lambda x: loss(x, labels, None, 2.0), logits)
    target = torch.rand(12, 4, generator=generator, dtype=torch.float64)
    target[0] = -1  # ignored
    assert torch.autograd.gradcheck(lambda x: bce_with_logits(x, target), logits)
    corner = 20 * torch.rand(9, 2, generator=generator, dtype=torch.float64)
    size = 5 + 10 * torch.rand(9, 2, generator=generator, dtype=torch.float64)
    truth = torch.cat([corner, corner + size], dim=1)
    shift = torch.rand(9, 4, generator=generator, dtype=torch.float64) * 4 - 2
    shift[8] = 100  # apart from its target
    boxes = (truth + shift).requires_grad_()
    for box_loss in (giou_loss, square_iou_loss):
        assert torch.autograd.gradcheck(lambda x, f=box_loss: f(x, truth), boxes)
    assert torch.autograd.gradcheck(lambda x: giou_loss(x, truth), boxes)


@pytest.mark.parametrize("value", [-1e4, 1e4])
def test_extreme_logits__of_eqlv2_and_of_the_third_branch(value):
    loss = EQLv2FocalLoss(3)
    logits = torch.full((4, 3), value, requires_grad=True)
    result = loss(logits, torch.tensor([0, 2, -1, -2]))
    result.backward()
    quality = torch.full((3,), value, requires_grad=True)
    third = bce_with_logits(quality, torch.tensor([0.0, 0.3, 1.0])).sum()
    third.backward()
    for tensor in (result, logits.grad, third, quality.grad, loss.balance.ratio):
        assert torch.isfinite(tensor).all()


@pytest.mark.parametrize("make", BALANCED)
def test_epoch__of_1203_categories_with_most_of_them_absent_keeps_g_finite(make):
    """200 steps, five categories; the logits of the absent ones sink until their gradients vanish in float32."""
    loss = make(1203)
    generator = torch.Generator().manual_seed(0)
    for step in range(200):
        logits = torch.randn(40, 1203, generator=generator) - 5 - step  # sigmoid(-205) is 0 in float32
        labels = torch.full((40,), -1)
        labels[:5] = torch.tensor([0, 3, 3, 1202, 7])
        result = loss(logits.requires_grad_(), labels, torch.rand(40, generator=generator))
        assert torch.isfinite(result)
        for tensor in (loss.balance.pos_grad, loss.balance.neg_grad, loss.balance.ratio):
            assert torch.isfinite(tensor).all()
    assert int(loss.balance.skipped) == 0
    assert loss.balance.pos_grad.nonzero().flatten().tolist() == [0, 3, 7, 1202]
    if make is not EQLv2FocalLoss:
        assert (loss.balance.ratio >= 0).all()
        assert (loss.balance.ratio <= 1).all()
