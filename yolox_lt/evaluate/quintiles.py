"""AP1 to AP5 of Open Images: the categories in five groups of equal size by their boxes in *training*, 1 = rarest."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from yolox_lt.data.annotations.index import AnnotationIndex
from yolox_lt.data.columns import Ints

CHALLENGE_2019 = Path(__file__).with_name("challenge2019.csv")
"""MID and training boxes of the 500 categories of Challenge 2019, 12,195,144 boxes with those around groups; from the
tables that EQLv2 published (Tan et al. 2021), whose groups the EFL paper follows."""


def quintiles_of(train_boxes: ArrayLike) -> Ints:
    """Group 1 to 5 of every category [C] from its number of training boxes [C]; the earlier category is rarer in a tie.

    C need not be a multiple of five: the categories of rank r, counted from 0, are in group 5 r // C + 1.
    """
    counts = np.asarray(train_boxes)
    order = np.argsort(counts, kind="stable")
    result = np.empty(len(counts), np.int64)
    result[order] = 5 * np.arange(len(counts)) // max(len(counts), 1) + 1
    return result


def published_quintiles(index: AnnotationIndex) -> Ints | None:
    """Groups of categories that are those of Challenge 2019, or some of them, by MID; None if one is not."""
    with CHALLENGE_2019.open(newline="", encoding="utf-8") as file:
        boxes = {row["mid"]: int(row["train_boxes"]) for row in csv.DictReader(file)}
    if not boxes.keys() >= set(index.category_keys):
        return None
    group = dict(zip(boxes, quintiles_of(list(boxes.values())).tolist()))
    return np.array([group[key] for key in index.category_keys], np.int64)
