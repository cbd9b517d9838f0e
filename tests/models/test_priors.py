"""Anchors against the released implementation and against cells worked by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from yolox_lt.errors import UserError
from yolox_lt.models import AnchorGrid

LEGACY_STRIDES = (8, 16, 32, 64, 128)
GRIDS = {
    "aligned": AnchorGrid((8, 16, 32), (3, 4)),
    "legacy": AnchorGrid(LEGACY_STRIDES, (6, 8), legacy=True),
}
CASES = ["aligned_640x640", "aligned_96x128", "legacy_128x192", "legacy_800x1344"]


@pytest.mark.parametrize("case", CASES)
def test_anchor_grid__released_anchors(golden, case):
    data = golden("anchors.npz")
    grid = GRIDS[case.split("_")[0]]
    priors = grid(data[f"{case}_feat_hw"].tolist())
    boxes = priors.boxes.numpy()
    assert priors.boxes.dtype == torch.float32
    assert priors.level_sizes == data[f"{case}_num"].tolist()
    assert boxes.shape == (data[f"{case}_num"].sum(), 4)

    ends = np.cumsum(priors.level_sizes)
    for level, (start, end) in enumerate(zip(ends - priors.level_sizes, ends)):
        first = data[f"{case}_first8_per_level"][level]
        present = ~np.isnan(first[:, 0])
        assert present.sum() == min(8, end - start)
        np.testing.assert_array_equal(boxes[start : start + present.sum()], first[present])
        np.testing.assert_array_equal(boxes[end - 1], data[f"{case}_last_per_level"][level])

    exact = boxes.astype(np.float64)
    np.testing.assert_allclose(exact.sum(0), data[f"{case}_colsum"], rtol=1e-9)
    np.testing.assert_allclose(np.abs(exact).sum(0), data[f"{case}_colabssum"], rtol=1e-9)
    np.testing.assert_allclose((exact**2).sum(0), data[f"{case}_colsqsum"], rtol=1e-9)
    if f"{case}_all" in data:
        np.testing.assert_array_equal(boxes, data[f"{case}_all"])


def test_anchor_grid__aligned_cells_by_hand():
    priors = AnchorGrid([8, 16], [3, 4])([(2, 3), (1, 2)])
    assert len(priors.boxes) == 16
    assert priors.boxes[0].tolist() == [-12, -12, 12, 12]
    assert priors.boxes[1].tolist() == [-16, -16, 16, 16]
    assert priors.boxes[2].tolist() == [-4, -12, 20, 12]  # row 0, column 1: 8 pixels to the right
    assert priors.boxes[11].tolist() == [0, -8, 32, 24]  # row 1, column 2, second anchor: centre (16, 8)
    assert priors.boxes[15].tolist() == [-16, -32, 48, 32]  # second level, column 1, second anchor: centre (16, 0)


def test_anchor_grid__legacy_first_cell_by_hand():
    priors = AnchorGrid([8], [6, 8], legacy=True)([(1, 2)])
    assert priors.boxes.tolist() == [[-20, -20, 27, 27], [-28, -28, 35, 35], [-12, -20, 35, 27], [-20, -28, 43, 35]]


def test_anchor_grid__scale_one_is_the_official_grid():
    priors = AnchorGrid((8, 16, 32), (1,))([(12, 16), (6, 8), (3, 4)])
    want = [
        (j * s - s / 2, i * s - s / 2, j * s + s / 2, i * s + s / 2)
        for s, rows, columns in [(8, 12, 16), (16, 6, 8), (32, 3, 4)]
        for i in range(rows)
        for j in range(columns)
    ]
    np.testing.assert_array_equal(priors.boxes.numpy(), np.array(want, dtype=np.float32))


def test_anchor_grid__ratios_by_hand():
    """Side 24: ratio 4 is 12 wide and 48 high, ratio 1/4 the reverse; the smaller scale first within a ratio."""
    grid = AnchorGrid([8], [3, 6], ratios=[0.25, 4])
    priors = grid([(1, 2)])
    assert grid.num_anchors == priors.num_anchors == 4
    assert priors.level_sizes == [8]
    first_cell = [[-24, -6, 24, 6], [-48, -12, 48, 12], [-6, -24, 6, 24], [-12, -48, 12, 48]]
    assert priors.boxes.tolist() == first_cell + [[x1 + 8, y1, x2 + 8, y2] for x1, y1, x2, y2 in first_cell]


def test_anchor_grid__legacy_ratios_by_hand():
    """Centre (3.5, 3.5); 12 pixels wide are x2 - x1 = 11, 48 high y2 - y1 = 47."""
    priors = AnchorGrid([8], [3], legacy=True, ratios=[4, 0.25])([(1, 1)])
    assert priors.boxes.tolist() == [[-2, -20, 9, 27], [-20, -2, 27, 9]]


@pytest.mark.parametrize("legacy", [False, True])
def test_anchor_grid__ratio_is_height_over_width_and_keeps_the_area(legacy):
    """The nine anchors of RetinaNet: scales 4, 4 * 2^(1/3), 4 * 2^(2/3), ratios 0.5, 1, 2."""
    scales, ratios = [4 * 2 ** (i / 3) for i in range(3)], [0.5, 1, 2]
    boxes = AnchorGrid([8, 16], scales, legacy, ratios)([(1, 1), (1, 1)]).boxes.double()
    width, height = (boxes[:, 2:] - boxes[:, :2] + float(legacy)).T
    want = [(stride * scale, ratio) for stride in (8, 16) for ratio in ratios for scale in scales]
    np.testing.assert_allclose((width * height).sqrt(), [side for side, _ in want], rtol=1e-6)
    np.testing.assert_allclose(height / width, [ratio for _, ratio in want], rtol=1e-6)
    center = torch.tensor([3.5, 7.5] if legacy else [0.0, 0.0], dtype=torch.float64).repeat_interleave(9)
    for axis in (0, 1):
        np.testing.assert_allclose((boxes[:, axis] + boxes[:, axis + 2]) / 2, center, atol=1e-5)


@pytest.mark.parametrize("ratios", [[], [0], [-1.0], [1, float("nan")], [float("inf")]])
def test_anchor_grid__ratios_out_of_range_are_refused(ratios):
    with pytest.raises(UserError, match=r"anchor_ratios is \[.*\]: give one positive number"):
        AnchorGrid([8], [3], ratios=ratios)


def test_anchor_grid__every_field():
    grid = AnchorGrid(np.array([8, 16]), (3, 4), legacy=True)
    priors = grid([torch.Size([2, 3]), torch.Size([1, 2])])
    assert priors.strides.dtype == torch.float32
    assert priors.strides.tolist() == [8.0] * 12 + [16.0] * 4
    assert priors.level_sizes == [12, 4]
    assert priors.feature_sizes == [(2, 3), (1, 2)]
    assert priors.level_strides == [8, 16]
    assert priors.num_anchors == grid.num_anchors == 2
    assert priors.legacy is True
    assert AnchorGrid([8], [3])([(1, 1)]).legacy is False


def test_anchor_grid__empty_level():
    priors = AnchorGrid([8, 16], [3, 4])([(1, 1), (0, 0)])
    assert priors.level_sizes == [2, 0]
    assert priors.boxes.shape == (2, 4)


def test_anchor_grid__device():
    assert AnchorGrid([8], [3])([(2, 2)]).boxes.device.type == "cpu"
    priors = AnchorGrid([8], [3])([(2, 2)], torch.device("meta"))
    assert priors.boxes.device.type == priors.strides.device.type == "meta"


@pytest.mark.parametrize(("strides", "scales"), [([8], []), ([8], [3, 0]), ([8], [-1]), ([], [3]), ([8, 0], [3])])
def test_anchor_grid__values_out_of_range_are_refused(strides, scales):
    with pytest.raises(UserError, match="positive"):
        AnchorGrid(strides, scales)


def test_anchor_grid__wrong_number_of_levels_is_refused():
    with pytest.raises(ValueError, match="2 feature maps but 3 strides"):
        AnchorGrid([8, 16, 32], [3])([(2, 2), (1, 1)])
