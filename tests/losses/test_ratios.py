"""Rules for g, worked by hand, and what the losses do with them."""

from __future__ import annotations

import math

import pytest
import torch

from yolox_lt.errors import UserError
from yolox_lt.exp import YOLOXStarExp
from yolox_lt.losses import EqualizedFocalLoss, EqualizedQualityFocalLoss, EqualizedVarifocalLoss, GradientBalance
from yolox_lt.losses.ratios import count_samples, gradient_ratio, relative_ratio, sample_ratio, weighted_median

CLASSES = [EqualizedFocalLoss, EqualizedQualityFocalLoss, EqualizedVarifocalLoss]


def tensor(*values):
    return torch.tensor(values, dtype=torch.float64)


def test_weighted_median__is_the_value_at_half_of_the_weights():
    values = tensor(5.0, 1.0, 3.0, 2.0)
    assert weighted_median(values, tensor(1, 1, 1, 1)) == 3  # 5 and 3 hold half
    assert weighted_median(values, tensor(1, 9, 1, 1)) == 1  # the largest three hold a quarter
    assert weighted_median(values, tensor(3, 0, 2, 1)) == 5
    assert weighted_median(values, tensor(0, 0, 0, 0)) == 0
    assert weighted_median(tensor(5.0, 3.0, 1.0), tensor(0, 0.1, 0.2)) == 1  # 5 and 3 hold a third
    assert weighted_median(tensor(5.0, 3.0, 1.0), tensor(0, 0, 0.3)) == 1


def test_relative__divides_by_the_ratio_of_the_head():
    positive, negative = tensor(8, 2, 0.5, 0), tensor(4, 2, 1, 3)  # ratios 2, 1, 0.5, 0; the first holds 8 of 10.5
    assert gradient_ratio(positive, negative).tolist() == pytest.approx([1, 1, 0.5, 0], abs=1e-9)
    assert relative_ratio(positive, negative).tolist() == pytest.approx([1, 0.5, 0.25, 0], abs=1e-9)


def test_relative__is_that_of_efl_where_the_head_has_1():
    positive, negative = tensor(9, 0.3, 0.1), tensor(9, 1, 10)
    torch.testing.assert_close(relative_ratio(positive, negative), gradient_ratio(positive, negative))


def test_relative__does_not_see_what_scales_all_categories():
    """A start that pushes everything down: every negative sum a thousand times as large."""
    positive, negative = tensor(9, 0.3, 0.1), tensor(9, 1, 10)
    torch.testing.assert_close(relative_ratio(positive, 1000 * negative), relative_ratio(positive, negative))
    assert gradient_ratio(positive, 1000 * negative).max() < 0.01


def test_samples__halve_at_the_square_of_the_share():
    positive = tensor(1e4, 100, 1, 0)
    negative = 1e6 - positive
    negative[:3] = positive[:3] / tensor(1e-2, 1e-4, 1e-6)  # shares, exactly
    found = sample_ratio(positive, negative)
    assert found[:3].tolist() == pytest.approx([1, 1 / 2, 1 / 3])
    assert found[3].item() == pytest.approx(math.log(1e-2) / math.log(0.5e-6))


@pytest.mark.parametrize("rule", [relative_ratio, sample_ratio])
def test_rules__are_1_before_the_first_positive(rule):
    assert rule(tensor(0, 0), tensor(0, 0)).tolist() == [1, 1]
    assert rule(tensor(0, 0), tensor(3, 5)).tolist() == [1, 1]
    last = rule(tensor(0, 0, 7), tensor(90, 90, 83))  # the last category alone has been seen
    assert last[2] == 1
    assert (last[:2] < 1).all()


def test_count_samples__leaves_ignored_priors_out():
    positive, negative = count_samples(torch.tensor([2, -1, -2, 0, 2, -1]), 3)
    assert positive.tolist() == [1, 0, 2]
    assert negative.tolist() == [4, 5, 3]


def test_horizon__forgets_to_1_over_e():
    balance = GradientBalance(2, horizon=4)
    balance.accumulate(torch.tensor([1.0, 2.0]), torch.tensor([4.0, 2.0]))
    assert balance.pos_grad.tolist() == [1, 2]
    for _ in range(4):
        balance.accumulate(torch.zeros(2), torch.zeros(2))
    torch.testing.assert_close(balance.pos_grad, torch.tensor([1.0, 2.0]) / math.e)
    torch.testing.assert_close(balance.ratio, torch.tensor([0.25, 1.0]))
    balance.accumulate(torch.tensor([math.inf, 0.0]), torch.zeros(2))  # neither added nor forgotten
    torch.testing.assert_close(balance.pos_grad, torch.tensor([1.0, 2.0]) / math.e)


@pytest.mark.parametrize("loss_class", CLASSES)
def test_loss__of_samples_gives_rare_categories_larger_exponents(loss_class):
    loss = loss_class(3, scale=4.0, ratio="samples").double()
    logits, labels = torch.zeros(1000, 3, dtype=torch.float64, requires_grad=True), torch.full((1000,), -1)
    labels[:100], labels[100] = 0, 1  # the head has a share of 1 in 9, the second 1 in 999, the third none
    labels[999] = -2
    loss(logits, labels, torch.ones(1000, dtype=torch.float64) * 0.9, 1.0)
    g = loss.category_state()["ratio"]
    shares = (100 / 899, 1 / 998, 0.5 / 999)
    assert g.tolist() == pytest.approx([math.log(shares[0]) / math.log(share) for share in shares])
    assert loss.category_factors(torch.float64)[0].tolist() == pytest.approx((2 + 4 * (1 - g)).tolist())
    kept = loss_class(3, scale=4.0, ratio="samples").double()
    kept.load_state_dict(loss.state_dict())
    assert torch.equal(kept.ratio, loss.ratio)


@pytest.mark.parametrize("loss_class", CLASSES)
def test_loss__as_released_has_no_more_state_than_before(loss_class):
    names = ["balance.pos_grad", "balance.neg_grad", "balance.ratio", "balance.skipped"]
    assert list(loss_class(3).state_dict()) == names
    with pytest.raises(ValueError, match="ratio must be one of gradients, relative, samples, not 'counts'"):
        loss_class(3, ratio="counts")


def test_exp__passes_the_settings_and_refuses_what_has_no_meaning():
    exp = YOLOXStarExp()
    exp.merge(["num_classes", "8", "cls_loss", "eqfl", "loss_ratio", "relative", "loss_horizon", "100"])
    loss = exp.get_cls_loss()
    assert loss.balance.rule.__name__ == "relative_ratio"
    assert loss.balance.keep == pytest.approx(math.exp(-0.01))
    exp.cls_loss = "qfl"
    with pytest.raises(UserError, match="loss_ratio is for cls_loss efl, eqfl, evfl, not qfl"):
        exp.get_cls_loss()
    exp.loss_ratio = "gradients"
    with pytest.raises(UserError, match="loss_horizon is for cls_loss"):
        exp.get_cls_loss()
    exp.cls_loss, exp.loss_ratio = "eqfl", "ratio"
    with pytest.raises(UserError, match="loss_ratio 'ratio' is unknown; choose one of gradients, relative, samples"):
        exp.get_cls_loss()
    exp.loss_ratio, exp.loss_horizon = "gradients", -1
    with pytest.raises(UserError, match="loss_horizon -1 is negative"):
        exp.get_cls_loss()
