"""FCOS's distances worked by hand; the delta code has its golden arrays in test_boxes."""

from __future__ import annotations

import math

import pytest
import torch

from yolox_lt.coders import DistanceCoder
from yolox_lt.models.priors import AnchorGrid


def test_distances__legacy_point_by_hand():
    # Stride 8, second cell of the first row: point ((8 - 1) / 2 + 8, 3.5) = (11.5, 3.5).
    priors = AnchorGrid([8], [1], legacy=True)([(1, 2)])
    box = torch.tensor([3.5, -0.5, 27.5, 11.5]) + torch.tensor([0, 0, 1, 1])  # 8 left, 4 above, 16 right, 8 below
    want = torch.tensor([0.0, math.log(0.5), math.log(2), 0.0])
    coder, prior = DistanceCoder(priors.inset), priors.plain()[1]
    torch.testing.assert_close(coder.encode(prior, box), want)
    torch.testing.assert_close(coder.decode(prior, want), box)


@pytest.mark.parametrize("legacy", [False, True])
def test_distances__round_trip_on_every_level(legacy):
    priors = AnchorGrid([8, 16, 128], [1], legacy)([(3, 5), (2, 3), (1, 1)])
    generator = torch.Generator().manual_seed(0)
    point = (priors.plain()[:, :2] + priors.plain()[:, 2:]) / 2
    distance = torch.rand(len(point), 4, generator=generator) * 100 + 1
    boxes = torch.cat([point - distance[:, :2], point + distance[:, 2:]], 1)
    coder, own = DistanceCoder(priors.inset), priors.plain()
    torch.testing.assert_close(coder.decode(own, coder.encode(own, boxes)), boxes)


def test_distances__half_precision_decodes_in_float32_and_large_ones_are_capped():
    priors = AnchorGrid([8], [1])([(1, 1)])
    deltas = torch.tensor([[0.0, 0.0, 0.0, 50.0]])
    box = DistanceCoder().decode(priors.boxes, deltas.half())
    assert box.dtype == torch.float32
    torch.testing.assert_close(box, torch.tensor([[-8.0, -8, 8, 8 * 1000 / 16]]))
