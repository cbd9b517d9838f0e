"""The order of the channels of a head with two anchors: told apart by correlation, brought into ours."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

NUM_ANCHORS = 2

MARGIN = 0.1
"""Category-major is believed if its mean correlation is higher by more than this. Our choice: unrelated weights of 100
categories and 64 input channels give differences of about 0.02."""

MIN_CATEGORIES = 20
"""With fewer categories correlations scatter too much to decide by. Our choice."""


def to_anchor_major(tensor: Tensor, num_anchors: int = NUM_ANCHORS) -> Tensor:
    """Rows k * A + a (category-major) -> a * K + k (anchor-major, ours); any trailing axes."""
    return (
        tensor.unflatten(0, (-1, num_anchors)).transpose(0, 1).flatten(0, 1)
    )  # [K*A, ...] -> [A, K, ...] -> [A*K, ...]


def order_correlations(weights: Sequence[Tensor]) -> tuple[float, float]:
    """Mean correlation of the two anchors' weights of a category if rows are anchor-major, and if category-major.

    The weights of a category's two anchors resemble each other, so the true order gives clearly more: rows r and r + C
    are compared, and rows 2k and 2k + 1, averaged over categories and levels. What all categories of an anchor share
    says nothing about the order and may hide it, so it is taken out first: each quarter of the rows (first or second
    half, even or odd) is centred, since it belongs to one anchor whichever order is the true one. Our choice.

    Args:
        weights: classification weights [2 * C, ...] of every level.

    Returns:
        (anchor-major, category-major), each within [-1, 1].
    """
    totals = torch.zeros(2, dtype=torch.float64)
    for weight in weights:
        rows = weight.flatten(1).double()  # [2C, ...] -> [2C, V]
        count = len(rows) // 2
        index = torch.arange(len(rows))
        quarter = 2 * (index // count) + index % 2
        for q in range(4):
            rows[quarter == q] -= rows[quarter == q].mean(0)
        totals[0] += mean_correlation(rows[:count], rows[count:])
        totals[1] += mean_correlation(rows[0::2], rows[1::2])
    anchor_major, category_major = (totals / len(weights)).tolist()
    return anchor_major, category_major


def mean_correlation(first: Tensor, second: Tensor) -> float:
    """Mean over rows [R, V] of the correlation of a row of `first` with that row of `second`; 0 for constant rows."""
    first = first - first.mean(1, keepdim=True)
    second = second - second.mean(1, keepdim=True)
    norms = (first.norm(dim=1) * second.norm(dim=1)).clamp(min=1e-300)
    return float(((first * second).sum(1) / norms).mean())


def decide_order(weights: Sequence[Tensor], channels: str) -> tuple[str, str]:
    """("anchor-major" | "category-major", a sentence that gives both correlations and the reason).

    Args:
        weights: classification weights [2 * C, ...] of every level.
        channels: "auto" decides by the weights and keeps anchor-major, the order of the releases' time, unless
            category-major is clearly better; the other two are taken as they are.
    """
    anchor_major, category_major = order_correlations(weights)
    found = (
        f"correlation of a category's two anchors: {anchor_major:.3f} anchor-major, {category_major:.3f} category-major"
    )
    if channels != "auto":
        return channels, f"{found}; {channels} as asked for"
    categories = len(weights[0]) // NUM_ANCHORS
    if categories < MIN_CATEGORIES:
        return "anchor-major", f"{found}; anchor-major kept, too few categories ({categories}) to decide"
    difference = category_major - anchor_major
    if difference > MARGIN:
        return "category-major", f"{found}; higher by more than {MARGIN}: category-major, reordered"
    if difference < -MARGIN:
        return "anchor-major", f"{found}; higher by more than {MARGIN}: anchor-major"
    return "anchor-major", f"{found}; not apart by more than {MARGIN}: anchor-major kept"
