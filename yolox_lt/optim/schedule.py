"""Learning rates as pure functions of the iteration: nothing to save, nothing to resume wrongly.

Iterations count optimiser steps from 0. `total` = all iterations of the run, `warmup` = those of the warm-up, `tail` =
those of the closing phase without strong augmentation.
"""

from __future__ import annotations

import math
from collections.abc import Callable

Schedule = Callable[[int], float]
"""Iteration -> learning rate."""


def _cosine(iteration: int, warmup: int, total: int, tail: int, high: float, low: float) -> float:
    return low + 0.5 * (high - low) * (1 + math.cos(math.pi * (iteration - warmup) / (total - warmup - tail)))


def released_yolox(iteration: int, lr: float, total: int, warmup: int, tail: int, min_ratio: float = 0.05) -> float:
    """Released EFL YOLOX models: lr (i / W)^2, then cosine to min_ratio of the peak, constant in the tail.

    The cosine starts from the last warm-up value lr ((W - 1) / W)^2, not from lr: the released code reads its base
    again there.
    """
    if iteration < warmup:
        return lr * (iteration / warmup) ** 2
    peak = lr * ((warmup - 1) / warmup) ** 2 if warmup else lr
    if iteration >= total - tail:
        return min_ratio * peak
    return _cosine(iteration, warmup, total, tail, peak, min_ratio * peak)


def official_yolox(
    iteration: int,
    lr: float,
    total: int,
    warmup: int,
    tail: int,
    min_ratio: float = 0.05,
    warmup_lr: float = 0.0,
) -> float:
    """Official YOLOX's "yoloxwarmcos": quadratic warm-up from warmup_lr to lr, cosine, constant tail."""
    if warmup and iteration <= warmup:
        return (lr - warmup_lr) * (iteration / warmup) ** 2 + warmup_lr
    if iteration >= total - tail:
        return min_ratio * lr
    return _cosine(iteration, warmup, total, tail, lr, min_ratio * lr)


def warm_cosine(iteration: int, lr: float, total: int, warmup: int = 0, warmup_lr: float = 0.0) -> float:
    """Official "cos" and "warmcos": linear warm-up from warmup_lr, then cosine to 0."""
    if warmup and iteration <= warmup:
        return (lr - warmup_lr) * iteration / warmup + warmup_lr
    return _cosine(iteration, warmup, total, 0, lr, 0.0)


def step(
    iteration: int, lr: float, milestones: list[int], warmup: int = 0, start_ratio: float = 0.001, gamma: float = 0.1
) -> float:
    """Linear warm-up from start_ratio * lr over `warmup` iterations, then times gamma at each milestone.

    As in the released ResNet models: iteration warmup - 1 already has the full rate.
    """
    if iteration < warmup:
        progress = iteration / (warmup - 1) if warmup > 1 else 1.0
        return lr * (start_ratio + (1 - start_ratio) * progress)
    return lr * gamma ** sum(iteration >= m for m in milestones)
