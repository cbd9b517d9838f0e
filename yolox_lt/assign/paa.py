"""Probabilistic anchor assignment: each object's candidates are split by a mixture of two Gaussians over their costs.

Kim & Lee, Probabilistic Anchor Assignment with IoU Prediction for Object Detection (2020), section 3.1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from yolox_lt import boxes as box_ops
from yolox_lt.assign.base import BaseAssigner, Targets
from yolox_lt.assign.max_iou import MaxIoUAssigner
from yolox_lt.errors import UserError
from yolox_lt.types import BACKGROUND, Assignment, Predictions, Priors

ITERATIONS = 50
"""Steps of expectation maximisation, always all of them: no object waits for another's convergence. Our choice."""

VARIANCE_FLOOR = 1e-6
"""Added to every variance, so that a component may shrink to one candidate."""

ROUNDING = 1e-9
"""Logarithms of densities that differ by less count as equal. Two candidates that make up a component have the same
density, and components that have become one share all candidates equally; without this, rounding would decide there.
"""

ROWS_PER_BLOCK = 4096
"""Rows of logits at once: with 1203 categories a temporary takes 20 MB."""


@dataclass(frozen=True)
class PAAAssigner(BaseAssigner):
    """The candidates that the network finds cheap, as many as the costs themselves suggest.

    1. Every prior belongs to the object of its highest IoU, if that is at least `min_iou`, or to the object for which
       it is the best prior (MaxIoUAssigner with both thresholds at `min_iou`).
    2. Cost of such a prior: focal loss (`alpha`, `gamma`) of its logits against the object's one-hot class, summed over
       the categories, plus `box_weight` * (1 - GIoU) of its decoded prediction and the object. The focal loss is used
       whatever classification loss trains the network: a loss that changes over the training (EFL) does not steer the
       assignment. Our choice.
    3. Candidates of an object: on each level its `topk` cheapest priors, the lower index on equality.
    4. A mixture of two Gaussians is fitted to the candidates' costs, see fit_two_gaussians.
    5. The component with the lower mean owns the candidates for which it is at least as responsible as the other one.
       Of those the one with the highest density of the mixture (the dearest on equality, our choice) is the limit:
       owned candidates that cost no more are positive (Figure 3 (c)). All others are background.

    A single candidate, or candidates that cost the same, are all positive. An object without priors, or one whose lower
    component owns none, gets nothing.

    Raises:
        UserError: unless 0 < min_iou <= 1 and topk >= 1.
    """

    needs_predictions: ClassVar[bool] = True

    min_iou: float = 0.1
    topk: int = 9
    box_weight: float = 1.3
    alpha: float = 0.25
    gamma: float = 2.0

    def __post_init__(self) -> None:
        if not 0 < self.min_iou <= 1 or self.topk < 1:
            raise UserError(
                f"min_iou is {self.min_iou} and topk is {self.topk}: choose 0 < min_iou <= 1 and topk >= 1, "
                "for example 0.1 and 9."
            )

    def assign_batch(
        self, priors: Priors, targets: Targets, predictions: Predictions | None = None
    ) -> list[Assignment]:
        """The same for B images, with one fit for all of them."""
        return self.assign(priors, targets, *decoded(predictions))

    @torch.no_grad()
    def assign(self, priors: Priors, targets: Targets, cls_logits: Tensor, pred_boxes: Tensor) -> list[Assignment]:
        """Assign B images with logits [B, P, C] and decoded boxes [B, P, 4]."""
        device = priors.boxes.device
        matcher = MaxIoUAssigner(self.min_iou, self.min_iou)
        matched, candidates = [], []
        for b, (boxes, labels, size) in enumerate(zip(*targets)):
            boxes, labels = boxes.reshape(-1, 4).to(device, torch.float32), labels.to(device)
            match = matcher(priors, boxes, labels, size)
            prior = (match.gt_index >= 0).nonzero().squeeze(1)  # [M]
            owner = match.gt_index[prior]
            cost = self.class_cost(cls_logits[b], prior, labels[owner])
            giou = box_ops.giou(pred_boxes[b, prior].float(), boxes[owner], priors.legacy)
            matched.append(match)
            candidates.append(self.candidates(priors, prior, owner, cost + self.box_weight * (1 - giou)))
        positive = cheap_side(torch.cat([c.costs for c in candidates]), torch.cat([c.valid for c in candidates]))

        assignments = []
        for match, c, chosen in zip(matched, candidates, positive.split([len(c.costs) for c in candidates])):
            keep = torch.zeros_like(match.gt_index, dtype=torch.bool)
            keep[c.prior[chosen]] = True
            assignments.append(
                Assignment(torch.where(keep, match.gt_index, BACKGROUND), torch.where(keep, match.iou, 0.0))
            )
        return assignments

    def class_cost(self, cls_logits: Tensor, prior: Tensor, labels: Tensor) -> Tensor:
        """Focal loss [M] of the rows `prior` [M] of [P, C] logits against one-hot `labels` [M], summed over C."""
        cost = torch.empty(len(prior), device=cls_logits.device)
        for start in range(0, len(prior), ROWS_PER_BLOCK):
            rows = slice(start, start + ROWS_PER_BLOCK)
            logits = cls_logits[prior[rows]].float()  # [n, C]
            log_p, log_rest = F.logsigmoid(logits), F.logsigmoid(-logits)  # ln p, ln(1 - p)
            loss = -(1 - self.alpha) * (self.gamma * log_p).exp() * log_rest
            own = labels[rows, None]  # [n, 1]
            own_loss = -self.alpha * (self.gamma * log_rest.gather(1, own)).exp() * log_p.gather(1, own)
            cost[rows] = loss.scatter(1, own, own_loss).sum(dim=1)
        return cost

    def candidates(self, priors: Priors, prior: Tensor, owner: Tensor, cost: Tensor) -> Candidates:
        """The `topk` cheapest priors of each object and level, from M matched ones; prior, owner, cost: [M]."""
        device, levels = cost.device, len(priors.level_sizes)
        level_of = torch.repeat_interleave(torch.arange(levels), torch.tensor(priors.level_sizes)).to(device)  # [P]
        objects, row = torch.unique(owner, return_inverse=True)  # [U], [M]
        group = row * levels + level_of[prior]
        order = cost.argsort(stable=True)
        order = order[group[order].argsort(stable=True)]  # by group, then cost, then index of the prior
        group = group[order]
        rank = torch.arange(len(order), device=device) - torch.searchsorted(group, group)  # within its group
        cheap = rank < self.topk
        order, slot = order[cheap], group[cheap] * self.topk + rank[cheap]  # slot: [U, level, topk] flattened
        size = len(objects) * levels * self.topk

        def table(values: Tensor) -> Tensor:
            """[M] -> [U, level * topk], 0 where there is no candidate."""
            flat = torch.zeros(size, dtype=values.dtype, device=device)
            flat[slot] = values[order]
            return flat.view(len(objects), levels * self.topk)

        return Candidates(table(prior), table(cost), table(torch.ones_like(prior, dtype=torch.bool)))


@dataclass(frozen=True)
class Candidates:
    """The candidates of the U objects of an image that have any; K = levels * topk columns.

    prior: int64 [U, K], index of the prior. costs: float32 [U, K]. valid: bool [U, K], which columns are filled.
    """

    prior: Tensor
    costs: Tensor
    valid: Tensor


@dataclass(frozen=True)
class Mixture:
    """Two Gaussians for each of G rows, all float64.

    means, variances, weights: [G, 2]. log_joint: [G, 2, K], logarithm of weight times density of each component at each
    value: its softmax over the components is the responsibility, its logsumexp the log density of the mixture.
    """

    means: Tensor
    variances: Tensor
    weights: Tensor
    log_joint: Tensor


def fit_two_gaussians(costs: Tensor, valid: Tensor) -> Mixture:
    """Fit two Gaussians to each row of `costs` [G, K] by expectation maximisation, in float64.

    Means start at the row's smallest and largest cost, variances at 1, weights at 1/2; ITERATIONS steps follow, and
    `log_joint` belongs to the final parameters. Only entries with `valid` bool [G, K] count, at least one in each row.
    """
    valid = valid[:, None]  # [G, 1, K]
    costs = torch.where(valid, costs[:, None].double(), 0.0)
    smallest = torch.where(valid, costs, math.inf).amin(dim=2)
    largest = torch.where(valid, costs, -math.inf).amax(dim=2)
    means = torch.cat([smallest, largest], dim=1)  # [G, 2]
    variances = torch.ones_like(means)
    log_weights = torch.full_like(means, math.log(0.5))
    log_count = valid.sum(dim=2).double().log()  # [G, 1]
    for _ in range(ITERATIONS):
        # In logarithms throughout: a component that loses all its candidates keeps a mean and a variance.
        responsibility = log_joint(costs, means, variances, log_weights).log_softmax(dim=1)
        responsibility = torch.where(valid, responsibility, -math.inf)
        total = responsibility.logsumexp(dim=2)  # [G, 2]
        share = (responsibility - total[..., None]).exp()  # [G, 2, K], sums to 1 over K
        means = (share * costs).sum(dim=2)
        variances = (share * (costs - means[..., None]) ** 2).sum(dim=2) + VARIANCE_FLOOR
        log_weights = total - log_count
    return Mixture(means, variances, log_weights.exp(), log_joint(costs, means, variances, log_weights))


def log_joint(costs: Tensor, means: Tensor, variances: Tensor, log_weights: Tensor) -> Tensor:
    """Logarithm [G, 2, K] of weight times normal density; costs [G, 1, K], all others [G, 2]."""
    constant = log_weights - 0.5 * torch.log(2 * math.pi * variances)
    return constant[..., None] - (costs - means[..., None]) ** 2 / (2 * variances[..., None])


def cheap_side(costs: Tensor, valid: Tensor) -> Tensor:
    """Which candidates [G, K] are positive: step 5 of PAAAssigner. costs [G, K], valid bool [G, K]."""
    mixture = fit_two_gaussians(costs, valid)
    advantage = mixture.log_joint[:, 0] - mixture.log_joint[:, 1]  # [G, K] of component 0
    advantage = torch.where((mixture.means[:, 1] < mixture.means[:, 0])[:, None], -advantage, advantage)
    own = valid & (advantage >= -ROUNDING)
    density = torch.where(own, mixture.log_joint.logsumexp(dim=1), -math.inf)
    peak = density >= density.amax(dim=1, keepdim=True) - ROUNDING
    limit = torch.where(peak, costs, -math.inf).amax(dim=1, keepdim=True)
    return own & (costs <= limit)


def decoded(predictions: Predictions | None) -> tuple[Tensor, Tensor]:
    """Class logits and decoded boxes, or a ValueError."""
    if predictions is None or predictions.boxes is None:
        raise ValueError("PAAAssigner needs predictions with decoded boxes")
    return predictions.cls_logits, predictions.boxes
