"""Assignment of anchors and regions against arrays of the reference, and the sampling."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from yolox_lt.assign import RoIAssigner, RPNAssigner
from yolox_lt.assign.roi_assigner import BalancedSampler
from yolox_lt.coders import DeltaCoder
from yolox_lt.errors import UserError
from yolox_lt.models.priors import AnchorGrid

CASES = ("one", "several", "tiny", "crowded", "none", "on_anchor", "twins")
STRIDES = (4, 8, 16, 32, 64)


def anchors_of(data):
    return AnchorGrid(STRIDES, (8,), ratios=(0.5, 1.0, 2.0))(data["feature_hw"].tolist())


@pytest.mark.parametrize("case", CASES)
def test_rpn(golden, case):
    data = golden("two_stage_assign.npz")
    priors = anchors_of(data)
    boxes = torch.from_numpy(data[f"rpn_{case}_gt"])
    size = (int(data["padded_hw"][0]), int(data["padded_hw"][1]))
    assigned = RPNAssigner()(priors, boxes, torch.zeros(len(boxes), dtype=torch.int64), size)
    np.testing.assert_array_equal(assigned.gt_index.numpy(), data[f"rpn_{case}_gt_index"])
    positive = assigned.gt_index >= 0
    assert (assigned.iou[~positive] == 0).all()
    # The highest IoU of an anchor is its own object's, unless a later object took it for being its best.
    best = torch.from_numpy(data[f"rpn_{case}_iou"])
    assert (assigned.iou[positive] <= best[positive] + 1e-6).all()


def test_rpn__cells_beyond_an_images_own_padding_are_ignored(golden):
    """A 40 x 70 image in a 96 x 128 batch is padded to 64 x 96: 16 x 24 cells of stride 4, 1 x 2 of stride 64."""
    priors = anchors_of(golden("two_stage_assign.npz"))
    assigned = RPNAssigner()(priors, torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), (40, 70))
    assert int((assigned.gt_index == -1).sum()) == 3 * (16 * 24 + 8 * 12 + 4 * 6 + 2 * 3 + 1 * 2)
    first = assigned.gt_index[: 3 * 24 * 32].reshape(24, 32, 3)
    assert (first[:16, :24] == -1).all()
    assert (first[16:] == -2).all()


def test_rpn__refuses_thresholds_in_the_wrong_order():
    with pytest.raises(UserError, match="0 < neg_iou <= pos_iou"):
        RPNAssigner(0.3, 0.7)


@pytest.mark.parametrize("case", CASES)
def test_roi(golden, case):
    data = golden("two_stage_assign.npz")
    boxes, proposals = (torch.from_numpy(data[k]) for k in (f"rpn_{case}_gt", f"roi_{case}_proposals"))
    assigned = RoIAssigner()(proposals, boxes)
    np.testing.assert_array_equal(assigned.gt_index.numpy(), data[f"roi_{case}_gt_index"])
    positive = assigned.gt_index >= 0
    labels = torch.full_like(assigned.gt_index, -1)
    labels[positive] = torch.from_numpy(data[f"roi_{case}_labels"])[assigned.gt_index[positive]]
    np.testing.assert_array_equal(labels.numpy(), data[f"roi_{case}_label_of_each"])
    if positive.any():
        coder = DeltaCoder(stds=(0.1, 0.1, 0.2, 0.2))
        regions = torch.cat([boxes, proposals])[positive]
        deltas = coder.encode(regions, boxes[assigned.gt_index[positive]])
        np.testing.assert_allclose(deltas.numpy(), data[f"roi_{case}_delta_targets"], rtol=1e-4, atol=1e-5)


def test_sampler__counts_and_uniformity():
    gt_index = torch.tensor([0] * 10 + [-1] * 30 + [-2] * 5)
    drawn = torch.zeros(45)
    for seed in range(400):
        positive, negative = BalancedSampler(12, 0.25)(gt_index, torch.Generator().manual_seed(seed))
        assert (len(positive), len(negative)) == (3, 9)
        drawn[positive] += 1
        drawn[negative] += 1
    assert (drawn[40:] == 0).all()
    assert (drawn[:10] - 120).abs().max() < 40  # 400 x 3 / 10
    assert (drawn[10:40] - 120).abs().max() < 40  # 400 x 9 / 30
    for given, want in (([-1] * 4, (0, 4)), ([0] * 4, (3, 0)), ([], (0, 0)), ([0, -1, -1], (1, 2))):
        positive, negative = BalancedSampler(12, 0.25)(torch.tensor(given, dtype=torch.int64))
        assert (len(positive), len(negative)) == want
