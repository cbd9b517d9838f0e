"""Which image is drawn when: an endless stream that is a pure function of seed, pass and rank.

Nothing here has a position or a generator of its own. Iteration n of rank r is always the same batch, so a run resumes
anywhere by asking for the iteration it stopped at, and any number of worker processes sees the same batches.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from torch.utils.data import Sampler


class Draw(NamedTuple):
    """One sample to make: position of the image in the data set, number of the draw over all ranks, strong
    augmentation.
    """

    image: int
    number: int
    strong: bool


def pass_indices(factors: np.ndarray, seed: int, number: int, rank: int = 0, world: int = 1) -> np.ndarray:
    """Image positions int64 that `rank` draws in pass `number` over the repeated list.

    As in the released models: the repeated list is permuted by NumPy's RandomState(number), padded with its own head
        to a
    multiple of the ranks and cut into contiguous blocks. Integer factors repeat exactly; fractional ones are rounded up
    with a probability equal to their fraction, anew in each pass. Other seeds than 0 shift the state.
    """
    state = np.random.RandomState((number + 1_000_003 * seed) % 2**32)
    if np.issubdtype(factors.dtype, np.integer):
        repeats = factors
    else:
        whole = np.floor(factors)
        repeats = (whole + (state.random_sample(len(factors)) < factors - whole)).astype(np.int64)
    repeated = np.repeat(np.arange(len(factors)), repeats)
    order = repeated[state.permutation(len(repeated))]
    per_rank = math.ceil(len(order) / world)
    order = np.resize(order, per_rank * world)  # pads by starting over
    return order[rank * per_rank : (rank + 1) * per_rank]


@dataclass(frozen=True)
class SampleStream:
    """The endless stream of one rank: passes 0, 1, 2, ... one after the other.

    factors: int64 or float64 [images], see `repeat_factors`; ones for uniform sampling.
    """

    factors: np.ndarray
    seed: int = 0
    rank: int = 0
    world: int = 1

    def __post_init__(self) -> None:
        if len(self.factors) == 0:
            raise ValueError("cannot sample from an empty data set")

    def from_position(self, position: int) -> Iterator[int]:
        """Image positions from the given place of the stream on."""
        number = 0
        if np.issubdtype(self.factors.dtype, np.integer):
            length = math.ceil(int(self.factors.sum()) / self.world)
            number, position = divmod(position, length)
        while True:
            indices = pass_indices(self.factors, self.seed, number, self.rank, self.world)
            yield from indices[position:].tolist()
            position = max(position - len(indices), 0)
            number += 1


@dataclass(frozen=True)
class DrawSampler(Sampler[list[Draw]]):
    """Batches of draws for iterations `start` to `stop` of a rank; from iteration `plain_from` on without mosaic and
    mixup.

    groups: int64 [images], a batch holds images of one group only (wide or tall, so that little is padding); each
        group's images keep the order of the stream. None: batches are cut from the stream as it comes.
    """

    stream: SampleStream
    batch_size: int
    start: int
    stop: int
    plain_from: int
    groups: np.ndarray | None = None

    def __len__(self) -> int:
        return self.stop - self.start

    def __iter__(self) -> Iterator[list[Draw]]:
        batches = self.plain_batches() if self.groups is None else self.grouped_batches(self.groups)
        for iteration, batch in zip(range(self.start, self.stop), batches):
            strong = iteration < self.plain_from
            yield [Draw(image, place * self.stream.world + self.stream.rank, strong) for image, place in batch]

    def plain_batches(self) -> Iterator[list[tuple[int, int]]]:
        """Pairs (image, place in the stream) from iteration `start` on."""
        position = self.start * self.batch_size
        images = self.stream.from_position(position)
        while True:
            yield [(next(images), position + i) for i in range(self.batch_size)]
            position += self.batch_size

    def grouped_batches(self, groups: np.ndarray) -> Iterator[list[tuple[int, int]]]:
        """The same with one group a batch. A batch leaves when it is full.

        Which batch is number `start` depends on all before it, so the stream is followed from its beginning: a second
        for a whole training on LVIS, and as exact as counting.
        """
        waiting: dict[int, list[tuple[int, int]]] = {int(g): [] for g in np.unique(groups)}
        group_of = groups.tolist()
        done = 0
        for place, image in enumerate(self.stream.from_position(0)):
            batch = waiting[group_of[image]]
            batch.append((image, place))
            if len(batch) == self.batch_size:
                waiting[group_of[image]] = []
                done += 1
                if done > self.start:
                    yield batch


def iterations_per_epoch(num_images: int, world: int, batch_size: int) -> int:
    """Iterations of one epoch: ceil(ceil(images / ranks) / images per rank), as in the released YOLOX models.

    `num_images` is the data set's own size, or the length of the repeated list when an epoch is to cover that.
    """
    return math.ceil(math.ceil(num_images / world) / batch_size)
