"""One pass under many calibrators finds what a pass for each finds."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from yolox_lt.calibrate import PriorAdjustment
from yolox_lt.coders import grid_coder
from yolox_lt.evaluate.strengths import Scan, enough
from yolox_lt.models.priors import AnchorGrid
from yolox_lt.predict import Predictor
from yolox_lt.types import Batch, Predictions

SIZE = (64, 64)
CONTENTS = torch.tensor([[64, 64], [40, 64]])
"""The second image is flat: priors below it can hold no candidate, whatever their scores."""


@pytest.mark.parametrize("pre_nms", [None, 3, 20, 1000])
@pytest.mark.parametrize("multi_label", [True, False])
def test_scan__equals_a_pass_for_each_calibrator(pre_nms, multi_label):
    """Of 84 priors few are good, and those for many categories: their pairs take the places of all priors.

    Between the extremes a few pairs of a small list may be others: only priors that are good under one are looked at.
    """
    generator = torch.Generator().manual_seed(0)
    priors = AnchorGrid([8, 16, 32], [1])([(8, 8), (4, 4), (2, 2)], torch.device("cpu"))
    logits = torch.randn(2, 84, 6, generator=generator) + 6 * torch.randn(2, 84, 1, generator=generator)
    logits[1, 40:64] += 8  # where the second image has no content
    predictions = Predictions(
        logits, torch.randn(2, 84, 4, generator=generator) * 0.3, torch.randn(2, 84, generator=generator)
    )
    calibrators = [None, *(PriorAdjustment([1, 3, 10, 30, 100, 300], tau) for tau in (0.3, 1.0))]
    predictor = Predictor(grid_coder(), pre_nms=pre_nms, multi_label=multi_label, clip="content")
    scales = torch.ones(2, 2)
    batch = Batch(torch.zeros(2, 3, *SIZE), [], [], torch.arange(2), CONTENTS, CONTENTS, scales)
    found = Scan(predictor, calibrators)(predictions, priors, batch, SIZE)
    exact = (0, 1, 2) if pre_nms in (None, 1000) else (0, 2)
    for calibrator, ours in ((calibrators[k], found[k]) for k in exact):
        alone = replace(predictor, calibrator=calibrator)(predictions, priors, scales, CONTENTS, CONTENTS, SIZE)
        for a, b in zip(ours, alone):
            torch.testing.assert_close(a.scores, b.scores)
            torch.testing.assert_close(a.boxes, b.boxes)
            assert torch.equal(a.labels, b.labels)


def test_enough__by_hand():
    """Levels of 4 and 3 priors: two pairs of each need two rows of each; all pairs need all rows."""
    rows, sizes = enough(torch.tensor([2, 4, 5, 6]), [4, 3], 2)
    assert (rows.tolist(), sizes) == ([0, 2, 4, 5, 6], [2, 3])
    assert enough(torch.tensor([2]), [4, 3], None)[1] == [4, 3]
