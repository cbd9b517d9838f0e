"""MaxIoU: cases worked by hand and a plain double loop over objects and priors."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from yolox_lt.assign import MaxIoUAssigner, Targets, max_iou
from yolox_lt.errors import UserError
from yolox_lt.models.priors import AnchorGrid

ODD_SIZES = [(7, 5), (4, 3), (2, 2), (1, 1)]


def row_of_four(legacy=False):
    """Four anchors of side 8 in a row: plain [-4,-4,4,4], [4,-4,12,4], ...; legacy [0,0,7,7], [8,0,15,7], ..."""
    return AnchorGrid([8], [1], legacy=legacy)([(1, 4)])


def assign(assigner, priors, boxes):
    boxes = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    return assigner(priors, boxes, torch.zeros(len(boxes), dtype=torch.int64), (8, 32))


def random_boxes(generator, n, height=56, width=40, snap=1.0):
    """Boxes with corners on a grid of `snap` pixels, so that equal overlaps and objects without area are common."""
    xy = torch.rand(n, 2, generator=generator) * torch.tensor([width, height])
    wh = torch.rand(n, 2, generator=generator) ** 2 * torch.tensor([width, height])
    return (torch.cat([xy - wh / 2, xy + wh / 2], 1) / snap).round() * snap


def by_double_loop(priors, boxes, pos_iou, neg_iou, low_quality):
    """The definition, one pair after the other, in float32 arithmetic."""
    one = np.float32(priors.legacy)
    p, b = priors.boxes.numpy(), boxes.numpy()
    gt_index, iou = np.full(len(p), -1), np.zeros(len(p), np.float32)
    usable = [g for g in range(len(b)) if min(b[g, 2] - b[g, 0] + one, b[g, 3] - b[g, 1] + one) > 1]
    overlap = np.zeros((len(b), len(p)), np.float32)
    for g in usable:
        area = (b[g, 2] - b[g, 0] + one) * (b[g, 3] - b[g, 1] + one)
        for i in range(len(p)):
            width = min(b[g, 2], p[i, 2]) - max(b[g, 0], p[i, 0]) + one
            height = min(b[g, 3], p[i, 3]) - max(b[g, 1], p[i, 1]) + one
            if width > 0 and height > 0:
                inter = width * height
                own = (p[i, 2] - p[i, 0] + one) * (p[i, 3] - p[i, 1] + one)
                overlap[g, i] = inter / max(area + own - inter, one)
    for i in range(len(p)):
        best = max(usable, key=lambda g: (overlap[g, i], -g), default=None)
        if best is None:
            continue
        if overlap[best, i] >= np.float32(pos_iou):
            gt_index[i], iou[i] = best, overlap[best, i]
        elif overlap[best, i] >= np.float32(neg_iou):
            gt_index[i] = -2
        wanting = [g for g in usable if overlap[g, i] > 0 and overlap[g, i] == overlap[g].max()]
        if low_quality and wanting:
            best = max(wanting, key=lambda g: (overlap[g, i], -g))
            gt_index[i], iou[i] = best, overlap[best, i]
    return gt_index, iou


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("low_quality", [False, True])
@pytest.mark.parametrize("block", [1, 4, 16])
def test_double_loop__same_assignment_with_blocks_smaller_than_the_objects(monkeypatch, legacy, low_quality, block):
    monkeypatch.setattr(max_iou, "OBJECTS_PER_BLOCK", block)
    generator = torch.Generator().manual_seed(block)
    priors = AnchorGrid([8, 16, 32, 64], [1, 2], legacy=legacy)(ODD_SIZES)
    for n, snap, pos, neg in [(0, 1.0, 0.5, 0.4), (1, 1e-3, 0.5, 0.4), (18, 4.0, 0.4, 0.2), (18, 1e-3, 0.3, 0.3)]:
        boxes = random_boxes(generator, n, snap=snap)
        result = MaxIoUAssigner(pos, neg, low_quality)(priors, boxes, torch.zeros(n, dtype=torch.int64), (56, 40))
        gt_index, iou = by_double_loop(priors, boxes, pos, neg, low_quality)
        np.testing.assert_array_equal(result.gt_index.numpy(), gt_index)
        np.testing.assert_array_equal(result.iou.numpy(), iou)
        assert result.gt_index.dtype == torch.int64
        assert result.iou.dtype == torch.float32


def test_hand_worked__positive_ignored_and_background():
    # Object 0 is anchor 1, one pixel wider: IoU 64 / 72 = .889 there and 8 / 128 = .06 with anchor 2.
    # Object 1 covers anchors 2 and 3 and two pixels more: IoU 64 / 144 = .444 with both, between .4 and .5.
    boxes = [[4, -4, 13, 4], [12, -4, 30, 4]]
    result = assign(MaxIoUAssigner(low_quality=False), row_of_four(), boxes)
    assert result.gt_index.tolist() == [-1, 0, -2, -2]
    assert result.iou.tolist() == pytest.approx([0, 64 / 72, 0, 0])
    # .444 is object 1's largest IoU, and two anchors have it: both become positive.
    result = assign(MaxIoUAssigner(), row_of_four(), boxes)
    assert result.gt_index.tolist() == [-1, 0, 1, 1]
    assert result.iou.tolist() == pytest.approx([0, 64 / 72, 64 / 144, 64 / 144])


def test_thresholds__both_belong_to_the_upper_side():
    # The object is anchors 1 and 2 together: IoU 64 / 128, exactly one half, with each.
    box = [[4, -4, 20, 4]]
    assert assign(MaxIoUAssigner(0.5, 0.4, False), row_of_four(), box).gt_index.tolist() == [-1, 0, 0, -1]
    assert assign(MaxIoUAssigner(0.6, 0.5, False), row_of_four(), box).gt_index.tolist() == [-1, -2, -2, -1]
    assert assign(MaxIoUAssigner(0.6, 0.6, False), row_of_four(), box).gt_index.tolist() == [-1, -1, -1, -1]


def test_legacy__widths_have_one_pixel_more():
    # Legacy anchor 1 is [8, 0, 15, 7], 8 pixels wide; the object is 9 wide: 64 / 72. Plain widths would give
    # 7 * 7 / (7 * 8) = .875.
    result = assign(MaxIoUAssigner(), row_of_four(legacy=True), [[8, 0, 16, 7]])
    assert result.gt_index.tolist() == [-1, 0, -1, -1]
    assert result.iou[1].item() == pytest.approx(64 / 72)


def test_conflict__highest_iou_wins_and_the_first_on_equality():
    near, exact = [4, -4, 13, 4], [4, -4, 12, 4]
    for low_quality in (False, True):
        assigner = MaxIoUAssigner(low_quality=low_quality)
        assert assign(assigner, row_of_four(), [near, exact]).gt_index.tolist() == [-1, 1, -1, -1]
        assert assign(assigner, row_of_four(), [exact, exact]).gt_index.tolist() == [-1, 0, -1, -1]


def test_conflict__the_only_good_prior_of_an_object_is_taken_from_another():
    # Object 0: 64 / 120 = .53 with anchor 1 (its best) and 56 / 128 = .44 with anchor 2. Object 1 is 4 x 4 inside
    # anchor 2: 16 / 64 = .25, less than .44, but its only overlap.
    boxes = [[4, -4, 19, 4], [14, -2, 18, 2]]
    result = assign(MaxIoUAssigner(0.4, 0.4), row_of_four(), boxes)
    assert result.gt_index.tolist() == [-1, 0, 1, -1]
    assert result.iou.tolist() == pytest.approx([0, 64 / 120, 0.25, 0])
    assert assign(MaxIoUAssigner(0.4, 0.4, False), row_of_four(), boxes).gt_index.tolist() == [-1, 0, 0, -1]


def test_small_objects__found_below_every_anchor_but_not_at_one_pixel():
    tiny = [5, -1, 8, 2]  # 9 / 64 of anchor 1
    assert assign(MaxIoUAssigner(low_quality=False), row_of_four(), [tiny]).gt_index.tolist() == [-1, -1, -1, -1]
    # The objects of one pixel take no part, and the index still counts them.
    boxes = [[4, -4, 5, 4], [4, -4, 12, -3], tiny]
    result = assign(MaxIoUAssigner(), row_of_four(), boxes)
    assert result.gt_index.tolist() == [-1, 2, -1, -1]
    assert result.iou[1].item() == pytest.approx(9 / 64)
    # Legacy: x2 = x1 is one pixel, x2 = x1 + 1 is two.
    priors = row_of_four(legacy=True)
    assert assign(MaxIoUAssigner(), priors, [[8, 0, 8, 7]]).gt_index.tolist() == [-1, -1, -1, -1]
    assert assign(MaxIoUAssigner(), priors, [[8, 0, 9, 7]]).gt_index.tolist() == [-1, 0, -1, -1]


def test_no_overlap__no_prior_is_forced_and_an_empty_image_is_background():
    for boxes in ([], [[100, 100, 120, 120]]):
        result = assign(MaxIoUAssigner(), row_of_four(), boxes)
        assert result.gt_index.tolist() == [-1, -1, -1, -1]
        assert result.iou.tolist() == [0, 0, 0, 0]


def test_last_level__a_large_object_takes_its_only_anchor():
    priors = AnchorGrid([8, 16, 32, 64], [1])(ODD_SIZES)  # the last anchor is [-32, -32, 32, 32]
    result = assign(MaxIoUAssigner(), priors, [[-30, -32, 32, 32]])
    assert (result.gt_index >= 0).nonzero().flatten().tolist() == [35 + 12 + 4]
    assert result.iou[-1].item() == pytest.approx(62 / 64)


def test_batch__equals_the_loop_over_images_with_an_empty_one():
    generator = torch.Generator().manual_seed(3)
    priors = AnchorGrid([8, 16, 32, 64], [3, 4])(ODD_SIZES)
    boxes = [random_boxes(generator, n) for n in (7, 0, 1, 40)]
    labels = [torch.zeros(len(b), dtype=torch.int64) for b in boxes]
    results = MaxIoUAssigner().assign_batch(priors, Targets(boxes, labels, [(56, 40)] * 4))
    assert len(results) == 4
    for b, result in enumerate(results):
        alone = MaxIoUAssigner()(priors, boxes[b], labels[b], (56, 40))
        assert torch.equal(result.gt_index, alone.gt_index)
        assert torch.equal(result.iou, alone.iou)
    assert (results[1].gt_index == -1).all()


@pytest.mark.parametrize(("pos", "neg"), [(0.4, 0.5), (0.5, 0.0), (1.1, 0.4)])
def test_thresholds__refused_when_they_make_no_sense(pos, neg):
    with pytest.raises(UserError, match=f"pos_iou is {pos} and neg_iou is {neg}"):
        MaxIoUAssigner(pos, neg)
