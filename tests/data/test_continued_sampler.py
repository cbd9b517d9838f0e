"""Resuming with other ranks or another batch size: no image of a pass is lost or repeated."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from yolox_lt.data.sampling.sampler import SampleRequest, SamplerSegment, SampleSampler, SampleStream, resume_stream

CHANGES = [
    [SamplerSegment(2, 3, 2)],
    [SamplerSegment(1, 4, 1), SamplerSegment(3, 2, 1)],
    [SamplerSegment(3, 1, 3), SamplerSegment(2, 4, 1), SamplerSegment(1, 5, 2)],
    [SamplerSegment(2, 3, 0)],
]


def drawn(stream: SampleStream, segment: SamplerSegment, groups=None) -> list[SampleRequest]:
    """Everything that all ranks draw in a stretch."""
    ranks = (replace(stream, rank=rank, world_size=segment.world_size) for rank in range(segment.world_size))
    return [d for s in ranks for b in SampleSampler(s, segment.batch_size, 0, segment.batches, 99, groups) for d in b]


def run(stream: SampleStream, segments: list[SamplerSegment], groups=None) -> list[SampleRequest]:
    return [
        d
        for i, segment in enumerate(segments)
        for d in drawn(resume_stream(stream, segments[:i], groups), segment, groups)
    ]


@pytest.mark.parametrize("segments", CHANGES)
@pytest.mark.parametrize("after", [1, 2, 3])
def test_pass__every_image_once_whatever_changes_in_it(segments, after):
    """30 images divide by every number of ranks here, so nothing is padded."""
    stream = SampleStream(np.ones(30, np.int64), seed=4)
    before = sum(d.world_size * d.batch_size * d.batches for d in segments)
    assert before < 30
    left = 30 - before
    ranks = after if left % after == 0 else 1
    everything = run(stream, [*segments, SamplerSegment(ranks, 1, left // ranks)])
    assert sorted(d.image for d in everything) == list(range(30))
    numbers = [d.number for d in everything]
    assert len(set(numbers)) == len(numbers)
    # The pass after it is the ordinary next one.
    assert sorted(
        d.image for d in run(stream, [*segments, SamplerSegment(ranks, 1, left // ranks + 30 // ranks)])
    ) == sorted([*range(30)] * 2)


def test_one_rank__another_batch_goes_on_at_the_very_next_image():
    stream = SampleStream(np.array([1.0, 2.5, 1.2, 1.0, 1.7] * 4), seed=5)
    images = stream.from_position(0)
    want = [next(images) for _ in range(120)]
    assert [
        d.image for d in run(stream, [SamplerSegment(1, 4, 7), SamplerSegment(1, 3, 9), SamplerSegment(1, 5, 13)])
    ] == want


def test_repeats__counts_of_a_pass_hold_over_the_change():
    factors = np.array([1, 3, 1, 2, 1])  # 8 in all
    segments = [SamplerSegment(2, 1, 3), SamplerSegment(1, 2, 1)]
    assert Counter(d.image for d in run(SampleStream(factors, 1), segments)) == {0: 1, 1: 3, 2: 1, 3: 2, 4: 1}


def test_padding__of_the_pass_is_not_dealt_again():
    """5 images on 2 ranks are 6 draws, one of them a repetition; after one draw each, 3 new images are left."""
    stream = SampleStream(np.ones(5, np.int64), seed=2)
    first = drawn(replace(stream, world_size=2), SamplerSegment(2, 1, 1))
    rest = resume_stream(stream, [SamplerSegment(2, 1, 1)]).rest
    assert sorted([*(d.image for d in first), *rest.tolist()]) == list(range(5))


@pytest.mark.parametrize(
    ("segment", "then"),
    [(SamplerSegment(2, 3, 3), SamplerSegment(1, 4, 11)), (SamplerSegment(1, 4, 4), SamplerSegment(3, 2, 9))],
)
def test_groups__waiting_images_of_every_rank_go_on_too(segment, then):
    """Images that a rank has drawn but that no full batch has held are not lost with the rank."""
    groups = np.arange(24) % 3 // 2  # 16 tall, 8 wide
    stream = SampleStream(np.ones(24, np.int64), seed=3)
    everything = run(stream, [segment, then], groups)
    counts = Counter(d.image for d in everything)
    passes = len(everything) / 24
    assert passes > 1.9
    # Nobody is two passes behind anybody of the own group: every pass goes to its end before it is left.
    for g in (0, 1):
        of_group = [counts[i] for i in np.flatnonzero(groups == g)]
        assert max(of_group) - min(of_group) <= 2, of_group
    begun = resume_stream(stream, [segment], groups)
    first = drawn(stream, segment, groups)
    assert Counter([*(d.image for d in first), *begun.rest.tolist()]) == Counter([*range(24)] * begun.first_pass)
    for batch in SampleSampler(
        replace(begun, world_size=then.world_size), then.batch_size, 0, then.batches, 99, groups
    ):
        assert len({groups[d.image] for d in batch}) == 1


def test_done__counts_batches_of_a_stream_that_began_later():
    stream = resume_stream(SampleStream(np.ones(30, np.int64)), [SamplerSegment(2, 3, 2)])
    whole = list(SampleSampler(stream, 3, 0, 6, 99))
    assert list(SampleSampler(stream, 3, 10, 14, 99, done=2)) == whole[2:6]
