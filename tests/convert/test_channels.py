"""The order of a two-anchor head: moved exactly, told apart by correlation, kept when that does not tell."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.convert.files import category_major
from yolox_lt.convert.channels import MARGIN, decide_order, mean_correlation, order_correlations, to_anchor_major


def alike(num_classes: int, noise: float, offset: float = 0.0, levels: int = 3, seed: int = 0) -> list[torch.Tensor]:
    """Anchor-major weights [2C, 16, 1, 1]: one vector per category, noise per anchor, `offset` common to an anchor.

    A vector common to all categories, four times as long as theirs, is added.
    """
    rng = torch.Generator().manual_seed(seed)
    made = []
    for _ in range(levels):
        category = torch.randn(num_classes, 16, generator=rng)
        common = 4 * torch.randn(16, generator=rng)
        anchor = offset * torch.randn(2, 1, 16, generator=rng)
        each = category + common + anchor + noise * torch.randn(2, num_classes, 16, generator=rng)
        made.append(each.flatten(0, 1)[..., None, None])  # [A, C, 16] -> [A*C, 16, 1, 1]
    return made


def test_to_anchor_major__three_categories_by_hand():
    rows = torch.tensor([10, 20, 11, 21, 12, 22])  # tens: anchor, ones: category; category-major
    assert to_anchor_major(rows).tolist() == [10, 11, 12, 20, 21, 22]
    box = torch.tensor([[0], [1], [2], [3], [4], [5], [6], [7]])  # dx0 dx1 dy0 dy1 dw0 dw1 dh0 dh1
    assert to_anchor_major(box).flatten().tolist() == [0, 2, 4, 6, 1, 3, 5, 7]


def test_to_anchor_major__undoes_a_loop_written_the_other_way():
    weight = torch.randn(2 * 7, 3, 5, 5)
    assert torch.equal(to_anchor_major(category_major(weight)), weight)


def test_mean_correlation__equals_numpy():
    first, second = torch.randn(5, 9, dtype=torch.float64), torch.randn(5, 9, dtype=torch.float64)
    want = np.mean([np.corrcoef(a, b)[0, 1] for a, b in zip(first.numpy(), second.numpy())])
    assert mean_correlation(first, second) == pytest.approx(want, abs=1e-12)
    assert mean_correlation(torch.ones(2, 4, dtype=torch.float64), torch.randn(2, 4, dtype=torch.float64)) == 0


def test_correlations__swap_with_the_order():
    """Category vectors of length 1 with noise of 0.5 correlate by 1 / (1 + 0.25) = 0.8; unrelated rows by 0."""
    weights = alike(300, noise=0.5)
    right, wrong = order_correlations(weights)
    assert right == pytest.approx(0.8, abs=0.02)
    assert wrong == pytest.approx(0, abs=0.02)
    swapped = order_correlations([category_major(w) for w in weights])
    assert swapped == pytest.approx((wrong, right), abs=0.02)


@pytest.mark.parametrize("offset", [0.0, 3.0])
@pytest.mark.parametrize("num_classes", [20, 301])
def test_auto__decides_both_ways(num_classes, offset):
    """Also if the two anchors differ by far more than their categories, and with an odd number of categories."""
    weights = alike(num_classes, noise=0.7, offset=offset)
    order, reason = decide_order(weights, "auto")
    assert order == "anchor-major"
    assert reason.endswith("higher by more than 0.1: anchor-major")
    order, reason = decide_order([category_major(w) for w in weights], "auto")
    assert order == "category-major"
    assert reason.endswith("higher by more than 0.1: category-major, reordered")


def test_auto__keeps_anchor_major_when_it_cannot_tell():
    unrelated = [torch.randn(200, 64, 1, 1, generator=torch.Generator().manual_seed(s)) for s in range(3)]
    anchor_major, category_major_ = order_correlations(unrelated)
    assert abs(anchor_major - category_major_) < MARGIN / 2
    order, reason = decide_order(unrelated, "auto")
    assert (order, reason.split("; ")[1]) == ("anchor-major", "not apart by more than 0.1: anchor-major kept")
    few = [category_major(w) for w in alike(19, noise=0.1)]
    order, reason = decide_order(few, "auto")
    assert (order, reason.split("; ")[1]) == ("anchor-major", "anchor-major kept, too few categories (19) to decide")


def test_asked_for__is_done_and_both_correlations_are_given_all_the_same():
    weights = alike(100, noise=0.5)
    first, second = order_correlations(weights)
    for asked in ("anchor-major", "category-major"):
        order, reason = decide_order(weights, asked)
        assert order == asked
        assert f"{first:.3f} anchor-major, {second:.3f} category-major; {asked} as asked for" in reason


@pytest.mark.parametrize("num_classes", [1, 2])
def test_correlations__of_very_few_categories_are_numbers(num_classes):
    assert all(np.isfinite(order_correlations(alike(num_classes, noise=0.5))))
