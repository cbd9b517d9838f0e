"""The best pairs of prior and category of one level, found without a score for every pair.

With 16,800 priors and 1203 categories there are 20 million pairs, of which some thousand matter. The k-th largest of
the priors' best scores is a bound that k pairs reach, so only priors whose best score reaches it can hold one of the k
best pairs. `traced.best_pairs` gives the same with the operations that a traced file can hold.
"""

from __future__ import annotations

import torch
from torch import Tensor

NONE = -1.0
"""Score of a row that is no candidate."""

GROUP = 64
"""Scores of which only the best is looked at first."""

SLACK = 1e-6
"""The same logit's score may round differently in a vector and in a matrix; bounds are lowered by this share."""


def best_pairs(
    logits: Tensor, quality: Tensor, usable: Tensor, count: int, multi_label: bool, threshold: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Scores [B, count], prior indices int64 [B, count] and labels int64 [B, count] of a level, best first.

    Of equal scores the lower prior, then the lower category goes first. Rows that are filled up have the score NONE.

    Args:
        logits: [B, n, C], of any precision. quality: float32 [B, n]. usable: bool [B, n], priors whose box counts.
        count: pairs wanted, at most n. multi_label: a prior may appear with several categories, else with its best.
        threshold: lower scores are no candidates.
    """
    batch = len(logits)
    scores = quality.new_full((batch, count), NONE)
    priors, labels = (torch.zeros(batch, count, dtype=torch.int64, device=logits.device) for _ in range(2))
    pairs_of = pairs_of_image if multi_label else best_of_each_prior
    for b in range(batch):
        score, prior, label = pairs_of(logits[b], quality[b], usable[b], count, threshold)
        rows = int((score >= threshold).sum())
        scores[b, :rows], priors[b, :rows], labels[b, :rows] = score[:rows], prior[:rows], label[:rows]
    return scores, priors, labels


def pairs_of_image(
    logits: Tensor, quality: Tensor, usable: Tensor, count: int, threshold: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Score, prior and label of the `count` best pairs; logits [n, C], quality and usable [n]."""
    categories = logits.shape[1]
    best = (logits.amax(dim=1).float().sigmoid() * quality).masked_fill(~usable, NONE)  # [n]
    bound = best.topk(count).values[-1].clamp(min=threshold) * (1 - SLACK)
    rows = (best >= bound).nonzero().squeeze(1)
    # In place: where many scores are equal m is n, and each copy as large as the level's logits.
    scores = logits[rows].float().sigmoid_().mul_(quality[rows, None]).flatten()  # [m, C] -> [m*C]
    pair = largest(scores, count)  # row * C + label
    return scores[pair], rows[pair // categories], pair % categories


def best_of_each_prior(
    logits: Tensor, quality: Tensor, usable: Tensor, count: int, threshold: float
) -> tuple[Tensor, Tensor, Tensor]:
    """As `pairs_of_image`, every prior with the category of its largest logit alone."""
    best = (logits.amax(dim=1).float().sigmoid() * quality).masked_fill(~usable, NONE)
    prior = largest(best, count)
    return best[prior], prior, logits[prior].argmax(dim=1)


def largest(values: Tensor, count: int) -> Tensor:
    """Indices of the `count` largest of `values` [n], or of all; largest first, the lower index on equality."""
    groups = values[: len(values) // GROUP * GROUP].view(-1, GROUP).amax(dim=1)  # [n] -> [n // GROUP, GROUP]
    if len(groups) <= count:
        return values.argsort(descending=True, stable=True)[:count]
    # So many values reach this bound, and few others; only they are sorted.
    index = (values >= groups.topk(count).values[-1]).nonzero().squeeze(1)
    return index[values[index].argsort(descending=True, stable=True)[:count]]
