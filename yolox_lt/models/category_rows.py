"""Parameters with rows for each category: how they are laid out, and how rows move to another list of categories."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class CategoryRows:
    """The first axis of a parameter: blocks x (C x rows of a category + further rows).

    blocks: anchors of a cell, whose rows come one after the other (anchor-major, row a*C + c). each: rows of a category
    in a block, 4 for box deltas. extra: rows behind those of the categories in each block, like a background.
    """

    blocks: int = 1
    each: int = 1
    extra: int = 0

    def count(self, num_classes: int) -> int:
        """Rows for so many categories."""
        return self.blocks * (num_classes * self.each + self.extra)

    def moved(self, source: Tensor, own: Tensor, pairs: Sequence[tuple[int, int]]) -> Tensor | None:
        """A copy of `own` [rows, ...] with the rows of some categories, and the further ones, from `source`.

        Args:
            source: the same parameter for other categories. own: with its start values.
            pairs: (label here, label in the source) of the categories that both have.

        Returns:
            None if the two differ in more than their categories.
        """
        theirs, here = (self.view(tensor) for tensor in (source, own.clone()))
        if theirs is None or here is None or source.shape[1:] != own.shape[1:]:
            return None
        for label, there in pairs:
            here[:, label * self.each : (label + 1) * self.each] = theirs[
                :, there * self.each : (there + 1) * self.each
            ]
        if self.extra:
            here[:, -self.extra :] = theirs[:, -self.extra :]
        return here.flatten(0, 1)  # [blocks, C*each + extra, ...] -> [rows, ...]

    def view(self, tensor: Tensor) -> Tensor | None:
        """[rows, ...] -> [blocks, C*each + extra, ...]; None for a number of rows that is no such layout."""
        rows = tensor.shape[0] // self.blocks
        if tensor.shape[0] % self.blocks or rows < self.extra or (rows - self.extra) % self.each:
            return None
        return tensor.unflatten(0, (self.blocks, rows))  # [rows, ...] -> [blocks, C*each + extra, ...]


def same_named(names: Sequence[str], theirs: Sequence[str]) -> list[tuple[int, int]]:
    """(label in `names`, label in `theirs`) of each category that both have; a name that one has twice is left out."""
    counts, there = Counter(names), Counter(theirs)
    place = {name: label for label, name in enumerate(theirs)}
    return [(label, place[name]) for label, name in enumerate(names) if counts[name] == there[name] == 1]
