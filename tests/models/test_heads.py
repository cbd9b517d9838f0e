"""The layout of the head's outputs: which channel becomes which prior and category."""

from __future__ import annotations

import pytest
import torch

from yolox_lt.errors import UserError
from yolox_lt.models import YOLOXHead
from yolox_lt.models.heads import concat_levels, level_map_to_prior_rows

C, A = 7, 2
SIZES = [(4, 6), (2, 3), (1, 2)]  # not square, so that rows and columns cannot be exchanged unnoticed
LEVEL_ROWS = [rows * columns * A for rows, columns in SIZES]


@pytest.fixture
def head() -> YOLOXHead:
    torch.manual_seed(0)
    return YOLOXHead(C, 1 / 64, num_anchors=A).eval()


def features() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(2, c, h, w, generator=generator) for c, (h, w) in zip((4, 8, 16), SIZES)]


def test_level_map_to_prior_rows__every_element_by_its_index():
    level_map = torch.arange(2 * 6 * 3 * 5).reshape(2, 6, 3, 5)  # B = 2, A = 2, K = 3, H = 3, W = 5
    rows = level_map_to_prior_rows(level_map, 3)
    assert rows.shape == (2, 30, 3)
    for b in range(2):
        for a in range(2):
            for k in range(3):
                for i in range(3):
                    for j in range(5):
                        assert rows[b, (i * 5 + j) * 2 + a, k] == level_map[b, a * 3 + k, i, j]


def test_level_map_to_prior_rows__empty_batch():
    assert level_map_to_prior_rows(torch.zeros(0, 6, 3, 5), 3).shape == (0, 30, 3)


def test_concat_levels__finest_level_first():
    rows = concat_levels([torch.zeros(1, 2, 2, 2), torch.ones(1, 2, 1, 1)], 1)
    assert rows[0, :, 0].tolist() == [0] * 8 + [1] * 2


def test_forward__shapes(head):
    predictions = head(features())
    assert predictions.cls_logits.shape == (2, sum(LEVEL_ROWS), C)
    assert predictions.box_deltas.shape == (2, sum(LEVEL_ROWS), 4)
    assert predictions.quality_logits.shape == (2, sum(LEVEL_ROWS))
    assert predictions.boxes is None


@pytest.mark.parametrize("anchor", [0, 1])
@pytest.mark.parametrize("category", [0, 3, C - 1])
@pytest.mark.parametrize("level", [0, 1, 2])
def test_cls_channel__changes_one_anchor_and_one_category_in_every_cell(head, level, anchor, category):
    inputs = features()
    with torch.no_grad():
        before = head(inputs)
        head.cls_preds[level].bias[anchor * C + category] += 1.0
        after = head(inputs)
    want = torch.zeros_like(before.cls_logits)
    start = sum(LEVEL_ROWS[:level])
    want[:, start + anchor : start + LEVEL_ROWS[level] : A, category] = 1.0
    torch.testing.assert_close(after.cls_logits - before.cls_logits, want, rtol=0, atol=1e-5)
    assert torch.equal(after.box_deltas, before.box_deltas)
    assert torch.equal(after.quality_logits, before.quality_logits)


@pytest.mark.parametrize("anchor", [0, 1])
def test_box_and_quality_channels__anchor_major(head, anchor):
    inputs = features()
    with torch.no_grad():
        before = head(inputs)
        head.reg_preds[0].bias[anchor * 4 + 3] += 1.0
        head.obj_preds[0].bias[anchor] += 2.0
        after = head(inputs)
    boxes, quality = torch.zeros_like(before.box_deltas), torch.zeros_like(before.quality_logits)
    boxes[:, anchor : LEVEL_ROWS[0] : A, 3] = 1.0
    quality[:, anchor : LEVEL_ROWS[0] : A] = 2.0
    torch.testing.assert_close(after.box_deltas - before.box_deltas, boxes, rtol=0, atol=1e-5)
    torch.testing.assert_close(after.quality_logits - before.quality_logits, quality, rtol=0, atol=1e-5)


def test_forward__a_cell_reaches_its_neighbours_and_no_other_level(head):
    """A cell's features reach the priors of the 5x5 cells around it (two 3x3 blocks) and of no other level."""
    inputs = features()
    with torch.no_grad():
        before = head(inputs).cls_logits[0]
        inputs[0][0, :, 0, 5] += 1.0  # level 0, first row, last column
        after = head(inputs).cls_logits[0]
    changed = ((after - before).abs().amax(dim=1) > 1e-6).nonzero().flatten().tolist()
    reached = [(i * 6 + j) * A + a for i in range(3) for j in range(3, 6) for a in range(A)]
    assert set(changed) <= set(reached)
    assert {5 * A, 5 * A + 1} <= set(changed)


def test_quality__comes_from_the_regression_branch(head):
    inputs = features()
    with torch.no_grad():
        before = head(inputs)
        for block in head.reg_convs:
            block[1].bn.bias += 0.5
        after = head(inputs)
    assert torch.equal(after.cls_logits, before.cls_logits)
    assert not torch.allclose(after.box_deltas, before.box_deltas, atol=1e-3)
    assert not torch.allclose(after.quality_logits, before.quality_logits, atol=1e-3)


def test_head__values_out_of_range_are_refused(head):
    with pytest.raises(UserError, match="num_classes is 0"):
        YOLOXHead(0)
    with pytest.raises(UserError, match="num_anchors is 0"):
        YOLOXHead(3, num_anchors=0)
    with pytest.raises(ValueError, match="2 strides"):
        YOLOXHead(3, strides=(8, 16))
    with pytest.raises(ValueError, match="3 levels but got 2"):
        head(features()[:2])
