"""Which image is drawn when: an endless stream that is a pure function of seed, pass and rank.

Nothing here has a position or a generator of its own. Iteration n of rank r is always the same batch, so a run resumes
anywhere by asking for the iteration it stopped at, and any number of worker processes sees the same batches. A run that
continues with another number of ranks or another batch size asks for what the stretches before it have left.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
from torch.utils.data import Sampler


class SampleRequest(NamedTuple):
    """One sample to make: position of the image in the data set, number of the draw over all ranks, strong
    augmentation.
    """

    image: int
    number: int
    use_mosaic: bool


class SamplerSegment(NamedTuple):
    """A stretch of a run without change: each of `world_size` ranks drew `batches` batches of `batch_size`."""

    world_size: int
    batch_size: int
    batches: int


def epoch_permutation(factors: np.ndarray, seed: int, number: int) -> np.ndarray:
    """Image positions int64 of pass `number` over the repeated list, in the order in which they are drawn.

    As in the released models the repeated list is permuted by NumPy's RandomState(number). Integer factors repeat
    exactly; fractional ones are rounded up with a probability equal to their fraction, again in each pass. Other seeds
    than 0 shift the state.
    """
    state = np.random.RandomState((number + 1_000_003 * seed) % 2**32)
    if np.issubdtype(factors.dtype, np.integer):
        repeats = factors
    else:
        whole = np.floor(factors)
        repeats = (whole + (state.random_sample(len(factors)) < factors - whole)).astype(np.int64)
    repeated = np.repeat(np.arange(len(factors)), repeats)
    return repeated[state.permutation(len(repeated))]


def share(order: np.ndarray, rank: int, world_size: int) -> np.ndarray:
    """The part of `rank`: the order, padded with its own head to a multiple of the ranks, in contiguous blocks."""
    per_rank = math.ceil(len(order) / world_size)
    return np.resize(order, per_rank * world_size)[rank * per_rank : (rank + 1) * per_rank]


def pass_indices(factors: np.ndarray, seed: int, number: int, rank: int = 0, world_size: int = 1) -> np.ndarray:
    """Image positions int64 that `rank` draws in pass `number`."""
    return share(epoch_permutation(factors, seed, number), rank, world_size)


NOTHING = np.zeros(0, np.int64)


@dataclass(frozen=True)
class SampleStream:
    """The endless stream of one rank: passes 0, 1, 2, ... one after the other.

    factors: int64 or float64 [images], see `repeat_factors`; ones for uniform sampling.
    rest, first_pass, first_number: of a stream that continues another one, see `resume_stream`: images int64 that
        all ranks draw first, the pass that comes after them, the number of the first draw.
    """

    factors: np.ndarray
    seed: int = 0
    rank: int = 0
    world_size: int = 1
    rest: np.ndarray = field(default_factory=NOTHING.copy)
    first_pass: int = 0
    first_number: int = 0

    def __post_init__(self) -> None:
        if len(self.factors) == 0:
            raise ValueError("cannot sample from an empty data set")

    def from_position(self, position: int) -> Iterator[int]:
        """Image positions from the given place of the stream on."""
        own = share(self.rest, self.rank, self.world_size)
        yield from own[position:].tolist()
        position = max(position - len(own), 0)
        number = self.first_pass
        if np.issubdtype(self.factors.dtype, np.integer):
            passes, position = divmod(position, math.ceil(int(self.factors.sum()) / self.world_size))
            number += passes
        while True:
            indices = pass_indices(self.factors, self.seed, number, self.rank, self.world_size)
            yield from indices[position:].tolist()
            position = max(position - len(indices), 0)
            number += 1

    def number_of(self, place: int) -> int:
        """Number of the draw at a place of this rank's stream, over all ranks and from the start of the run."""
        return self.first_number + place * self.world_size + self.rank


def resume_stream(
    stream: SampleStream, segments: Iterable[SamplerSegment], groups: np.ndarray | None = None
) -> SampleStream:
    """What `stream` becomes after stretches with other ranks or batch sizes: no image of a pass is lost or repeated.

    The images of the passes that were begun and that no batch has held come first, divided among the present ranks;
    then the passes that nobody had begun. groups: as in `SampleSampler`.
    """
    rest, number, first = stream.rest, stream.first_pass, stream.first_number
    for segment in segments:
        before = SampleStream(stream.factors, stream.seed, 0, segment.world_size, rest, number, first)
        used = [used_places(replace(before, rank=rank), segment, groups) for rank in range(segment.world_size)]
        longest = max(map(len, used))
        offset, left = 0, [NOTHING]
        while offset < longest:
            order, rest = rest, NOTHING
            if len(order) == 0:
                order, number = epoch_permutation(stream.factors, stream.seed, number), number + 1
            length = math.ceil(len(order) / segment.world_size)
            unused = np.ones((segment.world_size, length), dtype=bool)
            for row, mask in zip(unused, used):
                there = mask[offset : offset + length]
                row[: len(there)] = ~there
            # [world_size, length] -> [world_size * length], the order itself and then its padding
            left.append(order[unused.reshape(-1)[: len(order)]])
            offset += length
        rest = np.concatenate([*left, rest])
        first += longest * segment.world_size
    return replace(stream, rest=rest, first_pass=number, first_number=first)


def used_places(stream: SampleStream, segment: SamplerSegment, groups: np.ndarray | None) -> np.ndarray:
    """bool [places]: which places of a rank's stream went into a batch, up to the last that did."""
    if groups is None:
        return np.ones(segment.batches * segment.batch_size, dtype=bool)
    sampler = SampleSampler(stream, segment.batch_size, 0, segment.batches, 0, groups)
    batches = itertools.islice(sampler.grouped_batches(groups, 0), segment.batches)
    places = [place for batch in batches for _, place in batch]
    used = np.zeros(max(places, default=-1) + 1, dtype=bool)
    used[places] = True
    return used


@dataclass(frozen=True)
class SampleSampler(Sampler[list[SampleRequest]]):
    """Batches of draws for iterations `start` to `stop` of a rank; from iteration `no_aug_start` on without mosaic and
    mixup.

    groups: int64 [images], a batch holds images of one group only (wide or tall, so that little is padding); each
        group's images keep the order of the stream. None: batches are cut from the stream as it comes.
    done: batches of the stream before `start`; `start` itself unless the stream began later than the run.
    """

    stream: SampleStream
    batch_size: int
    start: int
    stop: int
    no_aug_start: int
    groups: np.ndarray | None = None
    done: int | None = None

    def __len__(self) -> int:
        return self.stop - self.start

    def __iter__(self) -> Iterator[list[SampleRequest]]:
        done = self.start if self.done is None else self.done
        batches = self.plain_batches(done) if self.groups is None else self.grouped_batches(self.groups, done)
        for iteration, batch in zip(range(self.start, self.stop), batches):
            use_mosaic = iteration < self.no_aug_start
            yield [SampleRequest(image, self.stream.number_of(place), use_mosaic) for image, place in batch]

    def plain_batches(self, done: int) -> Iterator[list[tuple[int, int]]]:
        """Pairs (image, place in the stream) after `done` batches."""
        position = done * self.batch_size
        images = self.stream.from_position(position)
        while True:
            yield [(next(images), position + i) for i in range(self.batch_size)]
            position += self.batch_size

    def grouped_batches(self, groups: np.ndarray, done: int) -> Iterator[list[tuple[int, int]]]:
        """The same with one group a batch. A batch leaves when it is full.

        Which batch is the next one depends on all before it, so the stream is followed from its beginning: a second
        for a whole training on LVIS, and as exact as counting.
        """
        waiting: dict[int, list[tuple[int, int]]] = {int(g): [] for g in np.unique(groups)}
        group_of = groups.tolist()
        left = 0
        for place, image in enumerate(self.stream.from_position(0)):
            batch = waiting[group_of[image]]
            batch.append((image, place))
            if len(batch) == self.batch_size:
                waiting[group_of[image]] = []
                left += 1
                if left > done:
                    yield batch


def iterations_per_epoch(num_images: int, world_size: int, batch_size: int) -> int:
    """Iterations of one epoch: ceil(ceil(images / ranks) / images per rank), as in the released YOLOX models.

    `num_images` is the data set's own size, or the length of the repeated list when an epoch is to cover that.
    """
    return math.ceil(math.ceil(num_images / world_size) / batch_size)
