"""The pass over the logits in blocks, how its gradient is handed over, and targets that do not count."""

from __future__ import annotations

import functools
import math

import pytest
import torch

from tests.losses.test_properties import make, sample
from yolox_lt.losses import EqualizedFocalLoss, bce_with_logits, kernel
from yolox_lt.losses.focal import DenseLoss, alpha_weights

CPU, GPU = torch.device("cpu"), torch.device("cuda")


@pytest.mark.parametrize("name", ["sigmoid", "focal", "qfl", "efl", "eqfl"])
@pytest.mark.parametrize("entries", [1, 20, 7 * 40])
def test_blocks__of_any_size_give_the_same(monkeypatch, name, entries):
    """Positive, background and ignored rows lie in every block, the last block is shorter."""
    logits, labels, quality = sample(n=41)

    def run() -> tuple[torch.Tensor, ...]:
        loss: DenseLoss = make(name, 7, torch.linspace(0.1, 0.9, 7))
        result = loss.dense(logits, labels, quality, 3.0)
        return result.loss, *result.saved, result.pos_grad, result.neg_grad

    one = run()
    monkeypatch.setattr(kernel, "ENTRIES_PER_BLOCK", entries)
    for ours, whole in zip(run(), one, strict=True):
        torch.testing.assert_close(ours, whole, rtol=1e-12, atol=1e-12)


def test_rows_per_block__by_hand(monkeypatch):
    monkeypatch.setattr(kernel, "ENTRIES_PER_BLOCK", 20)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    assert kernel.rows_per_block(100, 5, CPU) == 12  # 20 entries for each of three threads
    assert kernel.rows_per_block(7, 5, CPU) == 7
    assert kernel.rows_per_block(100, 1, CPU) == 60
    assert kernel.rows_per_block(100, 0, CPU) == 60
    assert kernel.rows_per_block(100, 61, CPU) == 1
    assert kernel.rows_per_block(0, 5, CPU) == 1
    assert kernel.rows_per_block(10**9, 1203, GPU) == 27_892  # 2^25 entries


def test_gradient__of_an_unscaled_loss_is_the_one_of_the_pass():
    """No second [N, C] matrix; a factor is applied exactly once; half precision gets half precision."""
    logits = torch.randn(4, 3, requires_grad=True)
    held = torch.randn(4, 3)
    backward = functools.partial(kernel.times, dtype=torch.float32)
    result = kernel.DenseResult(torch.tensor(5.0), held[0], held[0], (held,), backward)
    (gradient,) = torch.autograd.grad(kernel.FusedLoss.apply(logits, result), logits)
    assert gradient.data_ptr() == held.data_ptr()
    (gradient,) = torch.autograd.grad(2 * kernel.FusedLoss.apply(logits, result), logits)
    assert torch.equal(gradient, 2 * held)
    half = logits.detach().half().requires_grad_()
    result.backward = functools.partial(kernel.times, dtype=torch.float16)
    (gradient,) = torch.autograd.grad(kernel.FusedLoss.apply(half, result), half)
    assert torch.equal(gradient, held.half())


def test_bce__by_hand_and_targets_of_minus_one_give_nothing():
    found = bce_with_logits(torch.zeros(3), torch.tensor([1.0, 0.0, -1.0]))
    assert found.tolist() == pytest.approx([math.log(2), math.log(2), 0.0])
    assert found[2] == 0
    assert bce_with_logits(torch.zeros(1, dtype=torch.float64), torch.zeros(1)).dtype == torch.float64
    assert bce_with_logits(torch.zeros(1, dtype=torch.bfloat16), torch.zeros(1)).dtype == torch.float32


def test_alpha__of_zero_leaves_the_negatives_alone_and_below_it_is_off():
    assert alpha_weights(0.25) == (0.25, 0.75)
    assert alpha_weights(0) == (0, 1)
    assert alpha_weights(-1) == (1, 1)


@pytest.mark.parametrize("alpha", [0, 1])
def test_efl__a_statistic_without_alpha_needs_both_halves(alpha):
    with pytest.raises(ValueError, match=f"alpha {alpha} leaves no statistic without alpha"):
        EqualizedFocalLoss(3, alpha=alpha, alpha_in_statistic=False)
    assert EqualizedFocalLoss(3, alpha=alpha).alpha == alpha
