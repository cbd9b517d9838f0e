"""What a run may be asked for beside its recipe; by default nothing."""

from __future__ import annotations

import difflib
import math
from collections.abc import Sequence
from typing import Any

from yolox_lt.errors import UserError
from yolox_lt.exp.data import DataExp
from yolox_lt.models.category_rows import CategoryRows


class WishesExp(DataExp):
    """When to stop, what best.pth is chosen by, what stays as it is, what counts more."""

    # stop after so many evaluations in a row that do not improve best_metric; None = train all epochs. Nothing counts
    # before the first value above 0. The closing epochs, which bring most, are not trained then: see choosing.md
    patience: int | None = None
    # the metric that best.pth and patience go by: one of the evaluation's (AP, AP50, APr, ...), or F1, the mean over
    # the categories of the best F1 at IoU 0.5
    best_metric: str = "AP"
    # factors on the classification loss of categories by name: {"crow": 2.0}; the others have 1. For comparison: the
    # equalized losses find weights by themselves
    class_weights: dict[str, float] | None = None
    # parts whose weights and BatchNorm statistics stay as they are: backbone (without the neck), neck, or names of
    # parameters, also with * and ?: freeze backbone,head.stems
    freeze: tuple[str, ...] = ()

    def category_rows(self, content: dict[str, Any]) -> dict[str, CategoryRows]:
        """Beginnings of the names of parameters with rows for each category -> their layout; a run from a checkpoint
        with other categories takes over the rows of those that have the same names.

        Args:
            content: the checkpoint; empty where its classifier means something else.
        """
        return {}

    def largest_input(self) -> tuple[int, int]:
        """(height, width) in pixels of the largest training input, for `-b auto`."""
        raise NotImplementedError

    def weights_of(self, names: Sequence[str]) -> list[float]:
        """`class_weights` in the order of the categories `names`.

        Raises:
            UserError: a name that no category has, or a weight that is no number above 0.
        """
        given = self.class_weights or {}
        for name, weight in given.items():
            if name not in names:
                near = difflib.get_close_matches(name, names, n=3, cutoff=0) or list(names[:3])
                raise UserError(
                    f"class_weights names {name!r}, which is no category; the nearest are {', '.join(near)}"
                )
            if not (isinstance(weight, (int, float)) and 0 < weight < math.inf):
                raise UserError(f"class_weights gives {name!r} the weight {weight!r}; give a number above 0")
        return [float(given.get(name, 1.0)) for name in names]
