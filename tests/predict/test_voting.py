"""Score voting worked by hand."""

from __future__ import annotations

import math

import torch

from yolox_lt.predict.voting import SIGMA, vote


def test_vote__is_the_weighted_mean_of_the_overlapping_candidates_of_the_category():
    kept = torch.tensor([[0.0, 0, 10, 10]])
    # Itself; one shifted by 2 (IoU 80 / 120); one of another category in the same place; one far away.
    boxes = torch.tensor([[0.0, 0, 10, 10], [2, 0, 12, 10], [0, 0, 10, 10], [50, 50, 60, 60]])
    scores, labels = torch.tensor([0.9, 0.6, 0.8, 0.9]), torch.tensor([4, 4, 7, 4])
    a, b = 0.9, 0.6 * math.exp(-((1 - 80 / 120) ** 2) / SIGMA)
    shift = 2 * b / (a + b)
    got = vote(kept, torch.tensor([4]), boxes, scores, labels)
    torch.testing.assert_close(got, torch.tensor([[shift, 0, 10 + shift, 10]]))


def test_vote__legacy_boxes_count_pixels():
    kept, boxes = torch.tensor([[0.0, 0, 9, 9]]), torch.tensor([[0.0, 0, 9, 9], [2, 0, 11, 9]])
    plain = vote(kept + torch.tensor([0, 0, 1, 1]), torch.tensor([0]), boxes + torch.tensor([0, 0, 1, 1]),
                 torch.tensor([0.5, 0.5]), torch.tensor([0, 0]))  # fmt: skip
    got = vote(kept, torch.tensor([0]), boxes, torch.tensor([0.5, 0.5]), torch.tensor([0, 0]), legacy=True)
    torch.testing.assert_close(got, plain - torch.tensor([0.0, 0, 1, 1]))


def test_vote__nothing_kept():
    empty = torch.zeros(0, 4)
    assert vote(empty, torch.zeros(0).long(), empty, torch.zeros(0), torch.zeros(0).long()).shape == (0, 4)
