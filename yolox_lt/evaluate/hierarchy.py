"""Labels along the category hierarchy of an index: from every category to its ancestors or its descendants."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from yolox_lt.data.annotations.index import AnnotationIndex
from yolox_lt.data.columns import Ints, offsets_of, run_positions


@dataclass(frozen=True)
class Relatives:
    """For each of C categories itself and its relatives: labels[offsets[c] : offsets[c + 1]], ascending.

    offsets: int64 [C + 1]. labels: int64, flat.
    """

    offsets: Ints
    labels: Ints

    @classmethod
    def ancestors(cls, index: AnnotationIndex) -> Relatives:
        """All ancestors of each category, without itself."""
        return cls._of(*_pairs(index), len(index.category_ids))

    @classmethod
    def descendants(cls, index: AnnotationIndex) -> Relatives:
        """All descendants of each category, without itself."""
        return cls._of(*_pairs(index)[::-1], len(index.category_ids))

    @classmethod
    def _of(cls, category: Ints, relative: Ints, count: int) -> Relatives:
        order = np.lexsort((relative, category))
        return cls(offsets_of(np.bincount(category, minlength=count)), relative[order])

    def spread(self, labels: Ints) -> tuple[Ints, Ints]:
        """Copies of N labelled things for all relatives: (row of the original int64 [M], label int64 [M]), by row."""
        counts = np.diff(self.offsets)[labels]
        rows = np.repeat(np.arange(len(labels)), counts)
        return rows, self.labels[np.repeat(self.offsets[labels], counts) + run_positions(counts)]


def _pairs(index: AnnotationIndex) -> tuple[Ints, Ints]:
    """(category, itself or an ancestor) of all categories."""
    every = np.arange(len(index.category_ids))
    category = np.repeat(every, np.diff(index.ancestor_offsets))
    return np.concatenate([every, category]), np.concatenate([every, index.ancestor_labels])
