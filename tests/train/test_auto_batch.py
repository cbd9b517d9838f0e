"""The search for the largest batch, with steps that fail as a GPU's do."""

from __future__ import annotations

import pytest
import torch

from tests.tiny import tiny_exp
from yolox_lt.distributed.processes import ProcessInfo
from yolox_lt.errors import UserError
from yolox_lt.exp import ResNetExp, TwoStageExp, YOLOXStarExp
from yolox_lt.train.auto_batch import auto_batch, largest_batch


@pytest.mark.parametrize(
    ("an_image", "most", "found", "tried"),
    [
        (0.1, 1000, 8, [1, 2, 4, 8, 16]),  # 16 are out of memory
        (0.06, 1000, 8, [1, 2, 4, 8, 16]),  # 16 would fit, but with more than 90 %
        (0.05, 1000, 16, [1, 2, 4, 8, 16, 32]),
        (0.001, 6, 4, [1, 2, 4]),
        (2.0, 1000, 0, [1]),
    ],
)
def test_search__doubles_up_to_90_percent(an_image, most, found, tried):
    seen = []

    def step(count):
        seen.append(count)
        if count * an_image > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return count * an_image

    assert largest_batch(step, most) == found
    assert seen == tried


def test_cpu__is_refused_with_a_remedy(data, tmp_path):
    with pytest.raises(UserError, match="there is none; give a number, for example -b 8"):
        auto_batch(tiny_exp(data, tmp_path), ProcessInfo(0, 1, torch.device("cpu")), None)


def test_largest_input():
    assert YOLOXStarExp().largest_input() == (800, 800)
    assert ResNetExp().largest_input() == (832, 1344)  # multiples of 64
    assert TwoStageExp().largest_input() == (800, 1344)  # of 32
