"""What a run may be asked for beside its recipe; by default nothing."""

from __future__ import annotations

from typing import Any

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
