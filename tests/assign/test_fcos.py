"""FCOS: cases worked by hand and a plain double loop over points and objects."""

from __future__ import annotations

import math

import pytest
import torch

from tests.assign.test_max_iou import ODD_SIZES, random_boxes
from yolox_lt.assign import FCOSAssigner, Targets, fcos
from yolox_lt.errors import UserError
from yolox_lt.models.priors import AnchorGrid


def two_levels():
    """Points x = 0, 8, 16, 24 of stride 8, then x = 0, 16 of stride 16; all with y = 0."""
    return AnchorGrid([8, 16], [1])([(1, 4), (1, 2)])


def assign(assigner, priors, boxes):
    boxes = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    result = assigner(priors, boxes, torch.zeros(len(boxes), dtype=torch.int64), (8, 32))
    assert result.iou.tolist() == [0.0] * len(priors.boxes)
    return result.gt_index.tolist()


def by_double_loop(priors, boxes, radius, ranges):
    """The definition, one pair after the other, in Python's floats."""
    borders = [0.0, *ranges, math.inf]
    legacy, gt_index, first = int(priors.legacy), [], 0
    for level, (size, stride) in enumerate(zip(priors.level_sizes, priors.level_strides)):
        for x1, y1, x2, y2 in priors.boxes[first : first + size].tolist():
            x, y = (x1 + x2) / 2, (y1 + y2) / 2
            best, best_area = -1, math.inf
            for g, (left, top, right, bottom) in enumerate(boxes.tolist()):
                width, height = right - left + legacy, bottom - top + legacy
                center_x, center_y = (left + right) / 2, (top + bottom) / 2
                # The centre window, cut by the object.
                window = (
                    max(left, center_x - radius * stride),
                    max(top, center_y - radius * stride),
                    min(right, center_x + radius * stride),
                    min(bottom, center_y + radius * stride),
                )
                fits = borders[level] <= max(x - left, y - top, right - x, bottom - y) <= borders[level + 1]
                within = window[0] < x < window[2] and window[1] < y < window[3]
                if min(width, height) > 1 and within and fits and width * height < best_area:
                    best, best_area = g, width * height
            gt_index.append(best)
        first += size
    return gt_index


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("block", [1, 4, 16])
@pytest.mark.parametrize(("radius", "ranges"), [(1.5, (16, 32, 64)), (0.75, (8, 24, 40)), (1.5, (64, 128, 256))])
def test_double_loop__same_assignment_with_blocks_smaller_than_the_objects(monkeypatch, legacy, block, radius, ranges):
    monkeypatch.setattr(fcos, "OBJECTS_PER_BLOCK", block)
    generator = torch.Generator().manual_seed(block)
    priors = AnchorGrid([8, 16, 32, 64], [1], legacy=legacy)(ODD_SIZES)
    found = 0
    for n, snap in [(0, 1.0), (1, 0.5), (20, 0.5), (40, 4.0), (40, 8.0)]:  # exact in both arithmetics
        boxes = random_boxes(generator, n, snap=snap)
        result = FCOSAssigner(radius, ranges)(priors, boxes, torch.zeros(n, dtype=torch.int64), (56, 40))
        assert result.gt_index.tolist() == by_double_loop(priors, boxes, radius, ranges)
        assert result.gt_index.dtype == torch.int64
        assert result.iou.dtype == torch.float32
        found += int((result.gt_index >= 0).sum())
    assert found > 10


def test_hand_worked__each_object_on_the_level_of_its_size():
    # Object 0, centre 16. Stride 8: points 8, 16, 24 lie within 12 of the centre; max(l, t, r, b) is 22, 14, 22, and
    # only 14 is in [0, 16]. Stride 16: point 0 is outside, point 16 has 14, not in [16, inf].
    # Object 1, centre 20. Stride 8: point 16 has 24. Stride 16: point 0 lies on the border, point 16 has 24: positive.
    boxes = [[2, -10, 30, 10], [0, -20, 40, 20]]
    assert assign(FCOSAssigner(1.5, (16,)), two_levels(), boxes) == [-1, -1, 0, -1, -1, 1]


def test_range__borders_belong_to_both_levels():
    # Point 16 has l = t = r = b = 16.
    assert assign(FCOSAssigner(1.5, (16,)), two_levels(), [[0, -16, 32, 16]]) == [-1, -1, 0, -1, -1, 0]


def test_center_sampling__the_window_is_open_and_cut_by_the_object():
    priors = AnchorGrid([8], [1])([(1, 6)])  # points 0, 8, ..., 40
    # Centre 20: points 8 and 32 are exactly 1.5 strides away.
    assert assign(FCOSAssigner(1.5, ()), priors, [[-4, -6, 44, 6]]) == [-1, -1, 0, 0, -1, -1]
    assert assign(FCOSAssigner(1.6, ()), priors, [[-4, -6, 44, 6]]) == [-1, 0, 0, 0, 0, -1]
    # Centre 16, half width 6: the neighbours are within the radius but outside the object; on its border is outside.
    assert assign(FCOSAssigner(1.5, ()), priors, [[10, -6, 22, 6]]) == [-1, -1, 0, -1, -1, -1]
    assert assign(FCOSAssigner(1.5, ()), priors, [[8, -6, 24, 6]]) == [-1, -1, 0, -1, -1, -1]


def test_conflict__smallest_area_wins_and_the_first_on_equality():
    large, small = [2, -10, 30, 10], [10, -6, 22, 6]
    assigner = FCOSAssigner(1.5, (16,))
    for boxes, winner in [([large, small], 1), ([small, large], 0), ([small, small], 0)]:
        assert assign(assigner, two_levels(), boxes) == [-1, -1, winner, -1, -1, -1]


@pytest.mark.parametrize(("legacy", "winner"), [(False, 1), (True, 0)])
def test_legacy__areas_count_pixels(legacy, winner):
    # 20 x 20 = 400 against 7 x 57 = 399; counted in pixels 21 x 21 = 441 against 8 x 58 = 464.
    priors = AnchorGrid([8], [1], legacy=legacy)([(1, 1)])
    assert assign(FCOSAssigner(1.5, ()), priors, [[-8, -8, 12, 12], [-2, -26, 5, 31]]) == [winner]


def test_last_level__has_no_upper_end():
    # Centre 515. Level 4 (stride 128): x of 384, 512 and 640 lie within 192, so 3 x 3 points; everywhere else
    # max(l, t, r, b) >= 515 is above the level's range.
    priors = AnchorGrid([8, 16, 32, 64, 128], [1])([(129, 129), (65, 65), (33, 33), (17, 17), (9, 9)])
    index = torch.tensor(assign(FCOSAssigner(), priors, [[0, 0, 1030, 1030]]))
    first = sum(priors.level_sizes[:4])
    want = [first + row * 9 + column for row in (3, 4, 5) for column in (3, 4, 5)]
    assert (index == 0).nonzero().flatten().tolist() == want


def test_small_objects__between_the_points_or_of_one_pixel_get_nothing():
    assigner = FCOSAssigner(1.5, (16,))
    assert assign(assigner, two_levels(), [[10, -2, 13, 2]]) == [-1] * 6
    # One pixel wide around point 8; then a 3 x 3 object at the same point, whose index counts the first.
    assert assign(assigner, two_levels(), [[7.5, -4, 8.5, 4], [6.5, -1.5, 9.5, 1.5]]) == [-1, 1, -1, -1, -1, -1]
    # Legacy, point (3.5, 3.5): corners [3, 4] are two pixels; one pixel contains no point strictly.
    priors = AnchorGrid([8], [1], legacy=True)([(1, 1)])
    assert assign(FCOSAssigner(1.5, ()), priors, [[3.5, 0, 3.5, 9], [3, 0, 4, 9]]) == [1]


def test_no_objects__everything_is_background():
    assert assign(FCOSAssigner(1.5, (16,)), two_levels(), []) == [-1] * 6


def test_batch__equals_the_loop_over_images_with_an_empty_one():
    generator = torch.Generator().manual_seed(3)
    priors = AnchorGrid([8, 16, 32, 64], [1])(ODD_SIZES)
    boxes = [random_boxes(generator, n) for n in (7, 0, 1, 40)]
    labels = [torch.zeros(len(b), dtype=torch.int64) for b in boxes]
    assigner = FCOSAssigner(1.5, (16, 32, 64))
    results = assigner.assign_batch(priors, Targets(boxes, labels, [(56, 40)] * 4))
    assert len(results) == 4
    for b, result in enumerate(results):
        assert torch.equal(result.gt_index, assigner(priors, boxes[b], labels[b], (56, 40)).gt_index)
    assert (results[1].gt_index == -1).all()
    assert (results[3].gt_index >= 0).any()


def test_errors__ranges_and_priors_that_do_not_fit():
    with pytest.raises(ValueError, match="4 ranges for 2 levels, not 1"):
        assign(FCOSAssigner(), two_levels(), [[0, 0, 9, 9]])
    with pytest.raises(ValueError, match="4 ranges for 2 levels"):
        assign(FCOSAssigner(), two_levels(), [])
    with pytest.raises(ValueError, match="one prior per cell, not 2"):
        assign(FCOSAssigner(1.5, ()), AnchorGrid([8], [3, 4])([(1, 1)]), [])
    with pytest.raises(UserError, match="increase"):
        FCOSAssigner(1.5, (64, 64))
