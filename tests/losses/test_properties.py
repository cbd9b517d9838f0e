"""What must hold for any logits: closed form, identities, finiteness, the statistic's rules."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torchvision.ops import sigmoid_focal_loss

from yolox_lt.losses import (
    EQLv2FocalLoss,
    EqualizedFocalLoss,
    EqualizedQualityFocalLoss,
    FocalLoss,
    GradientBalance,
    QualityFocalLoss,
    SigmoidLoss,
)
from yolox_lt.losses.ratios import unclamped_ratio


def sample(n=40, c=7, seed=0, spread=3.0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(n, c, generator=generator, dtype=dtype) * spread
    labels = torch.randint(-2, c, (n,), generator=generator)
    labels[0] = c - 1  # the last category
    quality = torch.rand(n, generator=generator, dtype=dtype) * (labels >= 0)
    return logits, labels, quality


def textbook(name, logits, labels, quality, exponent, weight, alpha):
    """One-hot targets and autograd, one row a time axis at once; ignored rows left out."""
    keep = labels != -2
    x, y = logits[keep], F.one_hot(labels[keep].clamp(min=0), logits.shape[1]) * (labels[keep] >= 0)[:, None]
    q = quality[keep][:, None] * y
    p = torch.sigmoid(x)
    if name == "sigmoid":
        return F.binary_cross_entropy_with_logits(x, q, reduction="sum")
    if name in ("focal", "efl"):
        p_t = torch.where(y == 1, p, 1 - p)
        alpha_t = torch.where(y == 1, alpha, 1 - alpha)
        return (alpha_t * weight * (1 - p_t) ** exponent * -p_t.log()).sum()
    bce = F.binary_cross_entropy_with_logits(x, q, reduction="none")
    return (weight * (q - p).abs() ** exponent * bce).sum()


def make(name, c, ratio=None):
    loss = {
        "sigmoid": SigmoidLoss,
        "focal": FocalLoss,
        "qfl": QualityFocalLoss,
        "efl": lambda: EqualizedFocalLoss(c),
        "eqfl": lambda: EqualizedQualityFocalLoss(c),
    }[name]()
    if ratio is not None and hasattr(loss, "balance"):
        loss.balance.ratio.copy_(ratio)
    return loss.double()


@pytest.mark.parametrize("name", ["sigmoid", "focal", "qfl", "efl", "eqfl"])
@pytest.mark.parametrize("case", ["mixed", "all background", "no background", "one row", "one category"])
def test_closed_form__equals_autograd_of_the_textbook(name, case):
    n, c = {"one row": (1, 7), "one category": (40, 1)}.get(case, (600, 7))
    logits, labels, quality = sample(n, c)
    if case == "all background":
        labels[:] = -1
    elif case == "no background":
        labels = labels.clamp(min=0)
    ratio = torch.rand(c, generator=torch.Generator().manual_seed(1)).double()
    loss = make(name, c, ratio)
    quality = quality * (labels >= 0)
    exponent, weight = torch.tensor(2.0).double(), torch.tensor(1.0).double()
    if hasattr(loss, "balance"):
        exponent = 2 + loss.scale * (1 - loss.balance.ratio.clone())
        weight = exponent / 2
    a, b = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    ours = loss(a, labels, quality, 3.5)
    want = textbook(name, b, labels, quality, exponent, weight, 0.25) / 3.5
    ours.backward()
    want.backward()
    torch.testing.assert_close(ours, want, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(a.grad, b.grad, rtol=1e-8, atol=1e-12)
    if hasattr(loss, "balance"):
        own = F.one_hot(labels.clamp(min=0), c).bool() & (labels >= 0)[:, None]
        torch.testing.assert_close(loss.balance.pos_grad, (b.grad.abs() * own).sum(0), rtol=1e-8, atol=1e-12)
        torch.testing.assert_close(loss.balance.neg_grad, (b.grad.abs() * ~own).sum(0), rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("name", ["sigmoid", "focal", "qfl", "efl", "eqfl"])
def test_float32__equals_the_float64_textbook_at_1203_categories(name):
    c = 1203
    logits, labels, quality = sample(900, c, spread=1.5)
    logits, labels[:800] = (logits - 5).float().double(), -1  # as early in a training, with some blocks of rows
    quality = quality * (labels >= 0)
    ratio = torch.linspace(0, 1, c)
    loss = make(name, c, ratio).float()
    exponent, weight = torch.tensor(2.0), torch.tensor(1.0)
    if hasattr(loss, "balance"):
        exponent = 2 + loss.scale * (1 - ratio.double())
        weight = exponent / 2
    a, b = logits.float().requires_grad_(), logits.clone().requires_grad_()
    ours = loss(a, labels, quality.float(), 7.0)
    want = textbook(name, b, labels, quality, exponent, weight, 0.25) / 7.0
    ours.backward()
    want.backward()
    torch.testing.assert_close(ours.double(), want, rtol=1e-6, atol=0)
    torch.testing.assert_close(a.grad.double(), b.grad, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("name", ["sigmoid", "focal", "qfl", "efl", "eqfl"])
def test_gradcheck__every_loss(name):
    logits, labels, quality = sample(12, 4, spread=1.5)
    loss = make(name, 4, torch.tensor([0.1, 0.5, 0.9, 0.0])).eval()  # evaluation: the statistic does not move
    assert torch.autograd.gradcheck(lambda x: loss(x, labels, quality, 2.0), logits.requires_grad_())


def test_focal__equals_torchvision():
    logits, labels, _ = sample(50, 9, dtype=torch.float32)
    labels = labels.clamp(min=-1)
    target = F.one_hot(labels.clamp(min=0), 9).float() * (labels >= 0)[:, None]
    want = sigmoid_focal_loss(logits, target, alpha=0.25, gamma=2.0, reduction="sum") / 5
    torch.testing.assert_close(FocalLoss()(logits, labels, normalizer=5.0), want)


@pytest.mark.parametrize(("equalized", "plain"), [("efl", FocalLoss()), ("eqfl", QualityFocalLoss())])
def test_scale_zero__is_the_plain_loss(equalized, plain):
    cls = EqualizedFocalLoss if equalized == "efl" else EqualizedQualityFocalLoss
    loss = cls(7, scale=0.0)
    loss.balance.ratio.fill_(0.2)
    logits, labels, quality = sample(dtype=torch.float32)
    a, b = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    ours, want = loss(a, labels, quality), plain(b, labels, quality)
    ours.backward()
    want.backward()
    torch.testing.assert_close(ours, want, rtol=1e-6, atol=0)
    torch.testing.assert_close(a.grad, b.grad, rtol=1e-6, atol=1e-9)


def test_switches__focusing_keeps_the_weight_and_weighting_keeps_the_exponent():
    for focusing, weighting, want in ((True, False, (6.0, 1.0)), (False, True, (2.0, 3.0)), (False, False, (2.0, 1.0))):
        loss = EqualizedFocalLoss(3, scale=4.0, focusing=focusing, weighting=weighting)
        loss.balance.ratio.zero_()
        exponent, weight = loss.category_factors()
        assert (exponent[0].item(), weight[0].item()) == want


@pytest.mark.parametrize("name", ["sigmoid", "focal", "qfl", "efl", "eqfl"])
@pytest.mark.parametrize("value", [-1e4, -100.0, -17.0, 17.0, 100.0, 1e4])
def test_extreme_logits__give_finite_loss_gradient_and_statistic(name, value):
    loss = make(name, 3, torch.tensor([0.0, 0.5, 1.0])).float()
    logits = torch.full((4, 3), value, requires_grad=True)
    labels = torch.tensor([0, 2, -1, -2])
    result = loss(logits, labels, torch.tensor([0.7, 1.0, 0, 0]))
    result.backward()
    assert torch.isfinite(result)
    assert torch.isfinite(logits.grad).all()
    assert (logits.grad[3] == 0).all()  # ignored
    if hasattr(loss, "balance"):
        assert torch.isfinite(loss.balance.ratio).all()


@pytest.mark.parametrize("layout", ["transposed", "sliced", "channels last"])
def test_layout__non_contiguous_logits_give_the_same(layout):
    logits, labels, quality = sample(40, 6, dtype=torch.float32)
    other = {
        "transposed": lambda: logits.T.contiguous().T,
        "sliced": lambda: torch.cat([logits, logits], 1)[:, :6],
        "channels last": lambda: logits.view(2, 4, 5, 6).permute(0, 3, 1, 2).permute(0, 2, 3, 1).reshape(40, 6),
    }[layout]()
    a, b = EqualizedQualityFocalLoss(6), EqualizedQualityFocalLoss(6)
    assert a(logits, labels, quality) == b(other, labels, quality)
    assert torch.equal(a.balance.pos_grad, b.balance.pos_grad)


def test_permutations__of_rows_change_nothing_of_categories_follow():
    logits, labels, quality = sample(40, 6)
    order, channels = torch.randperm(40), torch.tensor([3, 1, 0, 5, 2, 4])
    base, rows, columns = (make("eqfl", 6) for _ in range(3))
    want = base(logits, labels, quality)
    torch.testing.assert_close(rows(logits[order], labels[order], quality[order]), want)
    torch.testing.assert_close(rows.balance.ratio, base.balance.ratio)
    # Channels permuted without their labels is another loss: the statistic lands on other categories.
    columns(logits[:, channels], labels, quality)
    assert not torch.allclose(columns.balance.ratio, base.balance.ratio)


def test_half_precision__is_computed_in_float32_and_scales_before_rounding():
    logits, labels, quality = sample(64, 5, spread=2.0, dtype=torch.float32)
    half = logits.half()
    full_loss, half_loss = EqualizedQualityFocalLoss(5), EqualizedQualityFocalLoss(5)
    a, b = half.float().requires_grad_(), half.clone().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        x, y = full_loss(a, labels, quality, 1e5), half_loss(b, labels, quality, 1e5)
    assert y.dtype == torch.float32
    assert x == y
    (y * 65536).backward()
    (x * 65536).backward()
    assert b.grad.dtype == torch.float16
    torch.testing.assert_close(b.grad, a.grad.half())
    assert torch.equal(full_loss.balance.pos_grad, half_loss.balance.pos_grad)


# ------------------------------------------------------------------------------------------------- the statistic


def test_balance__hand_worked():
    balance = GradientBalance(3)
    assert balance.ratio.tolist() == [1, 1, 1]
    balance.accumulate(torch.tensor([1.0, 0, 6]), torch.tensor([4.0, 5, 2]))
    assert balance.ratio.tolist() == pytest.approx([0.25, 0, 1])
    balance.accumulate(torch.tensor([1.0, 1, 0]), torch.tensor([0.0, 5, 18]))
    assert balance.ratio.tolist() == pytest.approx([0.5, 0.1, 0.3])  # the sums never decay


def test_statistic_without_alpha__has_three_times_the_ratio_at_alpha_a_quarter():
    logits, labels, _ = sample()
    released, paper = EqualizedFocalLoss(7).double(), EqualizedFocalLoss(7, alpha_in_statistic=False).double()
    for loss in (released, paper):
        loss.balance.rule = unclamped_ratio  # before the clamp
    assert torch.equal(released(logits, labels), paper(logits, labels))
    assert torch.allclose(paper.balance.pos_grad, 4 * released.balance.pos_grad, rtol=1e-12)
    assert torch.allclose(paper.balance.neg_grad, released.balance.neg_grad / 0.75, rtol=1e-12)
    assert torch.allclose(paper.balance.ratio, 3 * released.balance.ratio, rtol=1e-6)
    assert released.balance.ratio.any()
    assert not torch.equal(released(logits, labels), paper(logits, labels))  # the factors of the second step differ


def test_statistic_without_alpha__is_eq_6_of_the_paper():
    logits, labels, _ = sample()
    loss = EqualizedFocalLoss(7, alpha_in_statistic=False).double()
    loss.balance.ratio.copy_(torch.linspace(0, 1, 7))
    exponent, weight = loss.category_factors(torch.float64)
    loss(logits, labels)
    keep = labels != -2
    y = F.one_hot(labels[keep].clamp(min=0), 7) * (labels[keep] >= 0)[:, None]
    p = torch.sigmoid(logits[keep])
    p_t = torch.where(y == 1, p, 1 - p)
    gradient = weight * (1 - p_t) ** exponent * (exponent * p_t * p_t.log() + p_t - 1).abs()
    assert torch.allclose(loss.balance.pos_grad, (gradient * y).sum(0), rtol=1e-10)
    assert torch.allclose(loss.balance.neg_grad, (gradient * (1 - y)).sum(0), rtol=1e-10)


def test_statistic_without_alpha__is_refused_where_alpha_loses_a_half():
    with pytest.raises(ValueError, match="alpha 0 leaves no statistic"):
        EqualizedFocalLoss(3, alpha=0, alpha_in_statistic=False)
    EqualizedFocalLoss(3, alpha=-1, alpha_in_statistic=False)  # no alpha at all


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_balance__non_finite_contribution_is_left_out_and_counted(bad):
    balance = GradientBalance(2)
    balance.accumulate(torch.tensor([1.0, 1]), torch.tensor([2.0, 4]))
    before = balance.state_dict()
    before = {k: v.clone() for k, v in before.items()}
    balance.accumulate(torch.tensor([bad, 1]), torch.tensor([1.0, 1]))
    for name in ("pos_grad", "neg_grad", "ratio"):
        assert torch.equal(balance.state_dict()[name], before[name])
    assert balance.skipped == 1
    balance.accumulate(torch.tensor([1.0, 0]), torch.tensor([2.0, 0]))
    assert balance.ratio.tolist() == pytest.approx([0.5, 0.25])


def test_balance__skipped_counts_the_contributions_left_out_alone():
    balance = GradientBalance(2)
    for value in (1.0, float("nan"), 1.0, 1.0):
        balance.accumulate(torch.full((2,), value), torch.ones(2))
    assert int(balance.skipped) == 1
    assert balance.pos_grad.tolist() == [3, 3]


def test_balance__commit_takes_all_parts_at_once_and_discard_none():
    balance = GradientBalance(1)
    balance.auto_commit = False
    balance.accumulate(torch.tensor([1.0]), torch.tensor([3.0]))
    balance.accumulate(torch.tensor([1.0]), torch.tensor([1.0]))
    assert balance.ratio.item() == 1
    balance.commit()
    assert balance.ratio.item() == pytest.approx(0.5)
    balance.accumulate(torch.tensor([9.0]), torch.tensor([1.0]))
    balance.discard()
    balance.commit()
    assert balance.pos_grad.item() == 2


def test_balance__category_whose_every_prior_is_positive_has_no_negative_gradient():
    loss = EqualizedFocalLoss(2)
    logits, labels = torch.randn(600, 2), torch.zeros(600, dtype=torch.int64)
    loss(logits, labels)
    assert loss.balance.neg_grad[0] == 0
    assert loss.balance.ratio.tolist()[0] == 1
    assert loss.balance.pos_grad[1] == 0
    assert loss.balance.ratio[1] == 0


def test_balance__absent_categories_keep_g_finite_at_1203():
    loss = EqualizedQualityFocalLoss(1203)
    for step in range(3):
        labels = torch.full((300,), -1)
        labels[:5] = torch.tensor([0, 3, 3, 1202, 7])
        loss(torch.randn(300, 1203, generator=torch.Generator().manual_seed(step)) - 7, labels)
    assert torch.isfinite(loss.balance.ratio).all()
    assert (loss.balance.ratio > 0).nonzero().flatten().tolist() == [0, 3, 7, 1202]


def test_evaluation_mode__leaves_the_statistic():
    loss = EqualizedFocalLoss(3).eval()
    loss(torch.randn(5, 3), torch.tensor([0, 1, 2, -1, -2]))
    assert loss.balance.ratio.tolist() == [1, 1, 1]


@pytest.mark.parametrize("labels", [[0, 5], [-3, 0]])
def test_bad_labels__are_refused_with_the_value(labels):
    with pytest.raises(ValueError, match=r"labels must be in -2\.\.4"):
        FocalLoss()(torch.zeros(2, 5), torch.tensor(labels))
    with pytest.raises(ValueError, match="expected logits"):
        FocalLoss()(torch.zeros(2, 5), torch.tensor([0]))


# ------------------------------------------------------------------------------------------------- EQLv2


def test_eqlv2__starts_as_focal_and_then_follows_its_formula():
    logits, labels, _ = sample(60, 5)
    loss = EQLv2FocalLoss(5).double()
    first = loss(logits, labels, normalizer=2.0)
    torch.testing.assert_close(first, FocalLoss()(logits, labels, normalizer=2.0), rtol=1e-6, atol=0)
    ratio = loss.balance.pos_grad / loss.balance.neg_grad
    torch.testing.assert_close(loss.balance.ratio, ratio)
    m = 1 / (1 + torch.exp(-12 * (ratio - 0.8)))
    x = logits.clone().requires_grad_()
    y = F.one_hot(labels.clamp(min=0), 5).double() * (labels >= 0)[:, None]
    p_t = torch.where(y == 1, torch.sigmoid(x), torch.sigmoid(-x))
    weight = torch.where(y == 1, 0.25 * (1 + 4 * (1 - m)), 0.75 * m)
    want = (weight * (1 - p_t) ** 2 * -p_t.log())[labels != -2].sum() / 2
    want.backward()
    a = logits.clone().requires_grad_()
    before = loss.balance.pos_grad.clone()
    ours = loss(a, labels, normalizer=2.0)
    ours.backward()
    torch.testing.assert_close(ours, want, rtol=1e-10, atol=0)
    torch.testing.assert_close(a.grad, x.grad, rtol=1e-8, atol=1e-14)
    torch.testing.assert_close(loss.balance.pos_grad - before, (x.grad.abs() * y).sum(0), rtol=1e-8, atol=1e-12)


def test_eqlv2__ratio_is_not_clamped():
    loss = EQLv2FocalLoss(2)
    assert loss.balance.ratio.tolist() == [100, 100]
    loss.balance.accumulate(torch.tensor([6.0, 1]), torch.tensor([2.0, 4]))
    assert loss.balance.ratio.tolist() == pytest.approx([3, 0.25])


@pytest.mark.parametrize(
    "loss", [SigmoidLoss(), QualityFocalLoss(), EqualizedFocalLoss(3), EqualizedQualityFocalLoss(3)]
)
def test_class_weights__multiply_the_column_of_a_category(loss):
    """Columns are independent: weights (2, 1, 0.5) give 2, 1 and 0.5 times the gradient; g stays."""
    plain = copy.deepcopy(loss)
    loss.set_class_weights(torch.tensor([2.0, 1.0, 0.5]))
    x = torch.randn(40, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    labels, quality = torch.arange(40) % 5 - 2, torch.linspace(0, 1, 40, dtype=torch.float64)
    gradients = []
    for each in (plain, loss):
        own = x.clone().requires_grad_()
        each(own, labels, quality).backward()
        gradients.append(own.grad)
    torch.testing.assert_close(gradients[1], gradients[0] * torch.tensor([2.0, 1.0, 0.5]))
    if hasattr(loss, "balance"):
        loss.balance.commit(), plain.balance.commit()
        torch.testing.assert_close(loss.balance.ratio, plain.balance.ratio)
    assert loss.state_dict().keys() == plain.state_dict().keys()
