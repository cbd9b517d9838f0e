"""How a category's g follows from two sums: as in EFL, relative to the head, or from counts. Ours but the first.

A rule: positive [C], negative [C] -> g [C] in 0..1, the same dtype. With a free bias for each category, the gradients
of its positives and of its negatives become equal in the end, so EFL's ratio tells what a category went through and not
how rare it is: near 1 for all, or near 0 for all where the first steps were wrong. `relative_ratio` takes out what all
categories share. `sample_ratio` knows rarity from the labels alone, in any regime.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

RatioRule = Callable[[Tensor, Tensor], Tensor]


def gradient_ratio(positive: Tensor, negative: Tensor) -> Tensor:
    """EFL's: sum of positive over sum of negative gradients, at most 1 (paper, Eq. 6)."""
    return (positive / (negative + 1e-10)).clamp(0.0, 1.0)


def unclamped_ratio(positive: Tensor, negative: Tensor) -> Tensor:
    """As `gradient_ratio` without a limit above: EQLv2's."""
    return (positive / (negative + 1e-10)).clamp(min=0.0)


def relative_ratio(positive: Tensor, negative: Tensor) -> Tensor:
    """The ratio of gradients divided by the head's, at most 1: EFL's where the head's ratio is 1.

    The head's is the weighted median of the ratios: categories with at least that ratio hold half of all positive
    gradients. All 1 before the first positive.
    """
    ratio = positive / (negative + 1e-10)
    head = weighted_median(ratio, positive)
    return torch.where(head > 0, ratio / head.clamp(min=torch.finfo(ratio.dtype).tiny), 1.0).clamp(0.0, 1.0)


def count_samples(labels: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """Priors that are a category's positives and its negatives, float64 [C] each; labels int64 [N], -2 is ignored."""
    counts = torch.zeros(classes + 1, dtype=torch.float64, device=labels.device)
    # Not bincount, for which the host waits.
    counts.scatter_add_(0, labels.clamp(min=-1) + 1, (labels >= -1).double())
    return counts[1:], counts.sum() - counts[1:]


def sample_ratio(positive: Tensor, negative: Tensor) -> Tensor:
    """Logarithm of the head's share of positive priors over the category's (the ratio of samples, paper, Figure 2).

    Sums are counts of priors. A share is positive / negative; one that has no positive yet counts as half of one. With
    a share of 1 in 100 in the head, a category of 1 in 10,000 has g 0.5, 1 in a million a third. The head's share is
    the median of the shares weighted by positives. All 1 before the first positive.
    """
    share = ((positive + (positive == 0) * 0.5) / negative.clamp(min=1.0)).clamp(max=0.5)
    head = weighted_median(share, positive).clamp(min=torch.finfo(share.dtype).tiny)
    return (torch.log(head) / torch.log(share)).clamp(0.0, 1.0)


def weighted_median(values: Tensor, weights: Tensor) -> Tensor:
    """The largest value [] so that values of at least it hold half of the weights; 0 where all weights are 0."""
    ordered, index = values.sort(descending=True)
    held = weights[index].double().cumsum(0)
    first = (held < 0.5 * held[-1]).sum()  # stays on the device
    return torch.where(held[-1] > 0, ordered.gather(0, first[None])[0], ordered.new_zeros(()))


RULES: dict[str, RatioRule] = {"gradients": gradient_ratio, "relative": relative_ratio, "samples": sample_ratio}
"""Value of the setting `loss_ratio` -> rule."""
