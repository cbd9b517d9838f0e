"""FRACAL: calibration by how often a category occurs and by how it fills the image (Alexandridis et al., CVPR 2025)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from yolox_lt.calibrate.calibrators import Calibrator, check_strength, column
from yolox_lt.errors import UserError

LARGEST_GRID = 64
FEWEST_BOXES = 4
"""With fewer boxes a category has the dimension 1."""


def fractal_dimension(centres: Any, labels: Any, num_classes: int) -> NDArray[np.float64]:
    """Box-counting dimension float64 [C] of the centres of every category's boxes, in [1, 2].

    N(G) of a category: cells of a G x G grid that hold a centre, cells half open. The dimension is the slope of ln N
    over ln G (least squares) over G = 1 .. 64 with G^2 <= boxes; 1 with fewer than 4 boxes or for a slope below 1.

    Args:
        centres: float [M, 2] as fractions of the image (x, y), in [0, 1]. labels: int64 [M], 0..C-1.
    """
    points = np.asarray(centres, np.float64).reshape(-1, 2).clip(0, np.nextafter(1, 0))  # [M, 2], also without a box
    category = np.asarray(labels, np.int64)
    counts = np.bincount(category, minlength=num_classes)
    grids = np.arange(1, LARGEST_GRID + 1)
    occupied = np.zeros((LARGEST_GRID, num_classes))
    for grid in grids.tolist():
        there = counts >= max(grid * grid, FEWEST_BOXES)
        rows = there[category]
        if not rows.any():
            break
        cell = np.floor(points[rows] * grid).astype(np.int64)
        distinct = np.unique((category[rows] * grid + cell[:, 1]) * grid + cell[:, 0])
        occupied[grid - 1] = np.bincount(distinct // (grid * grid), minlength=num_classes)
    dimension = np.ones(num_classes)
    for c in np.flatnonzero(counts >= FEWEST_BOXES).tolist():
        last = min(math.isqrt(int(counts[c])), LARGEST_GRID)
        x, y = np.log(grids[:last]), np.log(occupied[:last, c])
        x = x - x.mean()
        dimension[c] = max(float((x * y).sum() / (x * x).sum()), 1.0)
    return dimension


@dataclass(frozen=True, eq=False)
class FRACAL(Calibrator):
    """sqrt(sigmoid(x) sigmoid(x + a)), a = a frequency term and a term of the fractal dimension.

    frequency: -log10(n_c / I) - log10 C. space: -log10(Phi_c^power / sum Phi^power) + log10(1 / C). The base is 10
    although logits are natural, as released.

    Args:
        counts: [C] training images of every category; 0 counts as 1.
        num_images: I, all training images.
        dimension: [C], Phi, see `fractal_dimension`.
        power: lambda, strength of the spatial term from 0 on.
        root: the geometric mean of the two sigmoids, so that the product with the quality keeps its weight; False:
            their product, as released.
    """

    counts: Tensor
    dimension: Tensor
    num_images: int
    power: float = 2.0
    root: bool = True

    def __init__(
        self, counts: ArrayLike, num_images: int, dimension: ArrayLike, power: float = 2.0, root: bool = True
    ) -> None:
        values = {"counts": column(counts, "count", 1), "dimension": column(dimension, "dimension", 0.0)}
        for name, value in {**values, "num_images": int(num_images), "power": power, "root": root}.items():
            object.__setattr__(self, name, value)
        check_strength("power", power)
        if len(self.counts) != len(self.dimension) or not (self.dimension > 0).all() or self.num_images < 1:
            raise UserError(
                f"calibrator: {len(self.counts)} counts, {len(self.dimension)} dimensions and {num_images} images; "
                "give a count and a dimension above 0 for each category, and the number of training images"
            )

    @property
    def frequency(self) -> Tensor:
        """The frequency term, float64 [C]."""
        return -(self.counts / self.num_images).log10() - math.log10(len(self.counts))

    @property
    def space(self) -> Tensor:
        """The spatial term, float64 [C]."""
        share = self.dimension**self.power
        return -(share / share.sum()).log10() - math.log10(len(share))

    def affine(self) -> None:
        return None

    def scores(self, logits: Tensor) -> Tensor:
        both = logits.sigmoid() * (logits + (self.frequency + self.space).to(logits)).sigmoid()
        return both.sqrt() if self.root else both
