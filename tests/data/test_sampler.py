"""Numbers of the sampling that follow from its definition by hand: seeds, defaults, first pass, lengths."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from yolox_lt.data.sampling.sampler import SampleSampler, SampleStream, iterations_per_epoch, pass_indices

ONES = np.ones(9, np.int64)


@pytest.mark.parametrize(
    ("seed", "number", "state"),
    [
        (0, 4, 4),
        (2, 1, 2_000_007),
        (5_000, 3, 5_000_015_003 - 2**32),  # beyond what RandomState takes
    ],
)
def test_seed__shifts_the_state_of_the_permutation(seed, number, state):
    assert pass_indices(ONES, seed, number).tolist() == np.random.RandomState(state).permutation(9).tolist()


def test_defaults__seed_rank_and_world():
    assert pass_indices(ONES, 0, 0).tolist() == pass_indices(ONES, 0, 0, 0, 1).tolist()
    stream = SampleStream(ONES)
    assert (stream.seed, stream.rank, stream.world_size) == (0, 0, 1)


def test_data_set_of_one_image__is_drawn_and_an_empty_one_refused():
    assert list(itertools.islice(SampleStream(np.ones(1, np.int64)).from_position(0), 3)) == [0, 0, 0]
    with pytest.raises(ValueError, match="empty data set"):
        SampleStream(np.ones(0, np.int64))


@pytest.mark.parametrize("kind", [int, float])
def test_stream__begins_with_pass_0(kind):
    factors = np.array([1, 2, 1, 3], kind) + (0.5 if kind is float else 0)
    first, second = (pass_indices(factors, 7, number).tolist() for number in (0, 1))
    stream = itertools.islice(SampleStream(factors, 7).from_position(0), len(first) + len(second))
    assert list(stream) == first + second


def test_length__counts_the_iterations_that_are_left():
    sampler = SampleSampler(SampleStream(ONES), 2, 3, 10, 5)
    assert len(sampler) == 7
    batches = list(sampler)
    assert len(batches) == 7
    assert [batch[0].use_mosaic for batch in batches] == [
        True,
        True,
        False,
        False,
        False,
        False,
        False,
    ]  # 5 is the first
    assert [draw.number for draw in batches[0]] == [6, 7]


def test_iterations__round_up_twice():
    assert iterations_per_epoch(10, 3, 2) == 2  # 4 images a rank
    assert iterations_per_epoch(13, 3, 2) == 3  # 5 images a rank
