"""Calibrators of category scores: pure functions of a category's statistics, without a part in training.

A calibrator knows one number or two for each of C categories. It is applied to the logits of every prior, before the
best pairs are chosen: a rare pair that has been cut cannot be calibrated any more.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import torch
from torch import Tensor

from yolox_lt.errors import UserError


class Calibrator(Protocol):
    """What predictor and folding need of a calibrator of C categories."""

    def affine(self) -> tuple[Tensor, Tensor] | None:
        """(scale, shift) float64 [C] with x' = scale * x + shift on logits; None: the calibrator is not affine."""

    def scores(self, logits: Tensor) -> Tensor:
        """Logits [..., C] -> scores [..., C] in [0, 1] of the same type, before the product with the quality."""


def calibrated_logits(logits: Tensor, calibrator: Calibrator | None) -> Tensor:
    """Logits [..., C] whose sigmoids are the calibrated scores; a score of 0 is -inf. None changes nothing."""
    if calibrator is None:
        return logits
    logits = logits.float() if logits.itemsize < 4 else logits
    parts = calibrator.affine()
    return torch.logit(calibrator.scores(logits)) if parts is None else apply_affine(logits, parts)


def apply_affine(logits: Tensor, parts: tuple[Tensor, Tensor]) -> Tensor:
    """scale * x + shift of logits [..., C], in their type."""
    scale, shift = (values.to(logits) for values in parts)
    return logits * scale + shift


def column(values: Any, name: str, least: float | None = None) -> Tensor:
    """Statistic of every category as float64 [C], from an array, a tensor or a list; values below `least` become it.

    Raises:
        UserError: not one number for each category, or numbers that are negative or not finite.
    """
    given = values.detach().cpu().numpy() if isinstance(values, Tensor) else values
    made = torch.from_numpy(np.array(given, dtype=np.float64))
    if made.ndim != 1 or len(made) == 0:
        raise UserError(f"calibrator: {name} has shape {tuple(made.shape)}; give one number for each category")
    if not made.isfinite().all() or (least is not None and (made < 0).any()):
        label = int((~made.isfinite() | (made < 0)).nonzero()[0, 0])
        raise UserError(
            f"calibrator: {name} of category {label} is {made[label].item():g}; give finite counts from 0 on"
        )
    return made if least is None else made.clamp(min=least)


def check_strength(name: str, value: float) -> None:
    """Refuse a strength that is negative or not finite."""
    if not (math.isfinite(value) and value >= 0):
        raise UserError(f"calibrator: {name} is {value}; give a number of at least 0")


@dataclass(frozen=True, eq=False)
class PriorAdjustment(Calibrator):
    """sigmoid((x + shift) / temperature): logits less tau times the logarithm of the category's frequency.

    Menon et al., Long-tail Learning via Logit Adjustment, 2021 (post-hoc form), with an independent sigmoid for each
    category. anchor "rarest": shift = -tau (ln n_c - ln min n), so that no score rises; "mean": shift = tau (ln(1 / C)
    - ln pi_c), pi_c = n_c / sum n.

    Args:
        counts: [C] training images of every category; 0 counts as 1.
        tau: strength from 0 (nothing changes) on.
        temperature: common divisor of all logits, above 0.
    """

    counts: Tensor
    tau: float = 0.25
    anchor: Literal["rarest", "mean"] = "rarest"
    temperature: float = 1.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "counts", column(self.counts, "count", 1))
        check_strength("tau", self.tau)
        if self.anchor not in ("rarest", "mean"):
            raise UserError(f"calibrator: anchor {self.anchor!r} is unknown; choose one of rarest, mean")
        if not (math.isfinite(self.temperature) and self.temperature > 0):
            raise UserError(f"calibrator: temperature is {self.temperature}; give a number above 0")

    @property
    def shift(self) -> Tensor:
        """Added to the logits, float64 [C]."""
        logs = self.counts.log()
        least = logs.min() if self.anchor == "rarest" else self.counts.mean().log()
        return -self.tau * (logs - least)

    def affine(self) -> tuple[Tensor, Tensor]:
        return torch.ones_like(self.counts) / self.temperature, self.shift / self.temperature

    def scores(self, logits: Tensor) -> Tensor:
        return apply_affine(logits, self.affine()).sigmoid()


@dataclass(frozen=True, eq=False)
class NorCal(Calibrator):
    """Odds divided by n^gamma (Pan et al., On Model Calibration for Long-Tailed Object Detection, 2021).

    "none": sigmoid(x - gamma ln n), every category for itself. "background": e^{x - gamma ln n} / (1 + sum over all
    categories of the same), the original's softmax with a background of logit 0: look-alikes of one prior compete.

    Args:
        counts: [C] training images of every category; 0 counts as 1.
        gamma: strength from 0 on.
    """

    counts: Tensor
    gamma: float = 0.6
    normalize: Literal["none", "background"] = "none"

    def __post_init__(self) -> None:
        object.__setattr__(self, "counts", column(self.counts, "count", 1))
        check_strength("gamma", self.gamma)
        if self.normalize not in ("none", "background"):
            raise UserError(f"calibrator: normalize {self.normalize!r} is unknown; choose one of none, background")

    @property
    def shift(self) -> Tensor:
        """Added to the logits, float64 [C]."""
        return -self.gamma * self.counts.log()

    def affine(self) -> tuple[Tensor, Tensor] | None:
        return (torch.ones_like(self.counts), self.shift) if self.normalize == "none" else None

    def scores(self, logits: Tensor) -> Tensor:
        shifted = logits + self.shift.to(logits)
        if self.normalize == "none":
            return shifted.sigmoid()
        background = torch.zeros_like(shifted[..., :1])
        total = torch.cat([shifted, background], dim=-1).logsumexp(dim=-1, keepdim=True)  # [..., C + 1] -> [..., 1]
        return (shifted - total).exp()


@dataclass(frozen=True, eq=False)
class LogitNormalization(Calibrator):
    """x' = (x - (mu - min mu)) / sigma, moments of every category's logits (Zhao et al., LogN, IJCV 2024).

    It needs no counts: the moments show what the training has really done.

    Args:
        mean, std: [C] of the category's logits over background rows and objects alike.
        floor: std is at least this share of its median over the categories: one that never fires has a std near 0.
    """

    mean: Tensor
    std: Tensor
    floor: float = 0.1

    def __post_init__(self) -> None:
        object.__setattr__(self, "mean", column(self.mean, "mean logit"))
        object.__setattr__(self, "std", column(self.std, "standard deviation", 0.0))
        check_strength("floor", self.floor)
        if len(self.mean) != len(self.std):
            raise UserError(f"calibrator: {len(self.mean)} means and {len(self.std)} standard deviations; give both")
        if not (self.spread > 0).all():
            raise UserError("calibrator: the logits of a category never vary; give a floor above 0, or more images")

    @property
    def spread(self) -> Tensor:
        """sigma in use, float64 [C]."""
        return self.std.clamp(min=float(self.floor * self.std.quantile(0.5)))

    def affine(self) -> tuple[Tensor, Tensor]:
        return 1 / self.spread, -(self.mean - self.mean.min()) / self.spread

    def scores(self, logits: Tensor) -> Tensor:
        return apply_affine(logits, self.affine()).sigmoid()


@dataclass(frozen=True, eq=False)
class TauNormalization(Calibrator):
    """Rows of the classifier divided by their norm^tau, biases kept (Kang et al., Decoupling, ICLR 2020).

    It needs the weights, so it can be folded alone, see `fold`.
    """

    tau: float = 0.5

    def __post_init__(self) -> None:
        check_strength("tau", self.tau)

    def affine(self) -> None:
        return None

    def scores(self, logits: Tensor) -> Tensor:
        raise UserError("calibrator tau changes the classifier's weights; use it where the classifier is linear")
