"""ATSS: golden arrays, cases worked by hand, and the definition over all anchors."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from yolox_lt import boxes as box_ops
from yolox_lt.assign import ATSSAssigner, Targets
from yolox_lt.assign.atss import inside, nearest_cells
from yolox_lt.models.priors import AnchorGrid


def golden_priors(data: dict, legacy: bool):
    scales = (6, 8) if legacy else (3, 4)
    grid = AnchorGrid([int(s) for s in data["strides"]], scales, legacy=legacy)
    return grid([(int(h), int(w)) for h, w in data["feat_hw"]])


@pytest.mark.parametrize("setting", ["aligned", "legacy"])
def test_golden__labels_and_matches_of_five_images(golden, setting):
    data = golden(f"atss_{setting}.npz")
    priors = golden_priors(data, setting == "legacy")
    for i, (height, width) in enumerate(data["image_hw"]):
        gt = torch.from_numpy(data[f"img{i}_gt"])
        result = ATSSAssigner(18)(priors, gt[:, :4], gt[:, 4].long() - 1, (int(height), int(width)))
        # Anchors inside ignore boxes are set apart by the reference; the released configurations never load such boxes.
        counted = data["label"][i] != -1
        np.testing.assert_array_equal(result.gt_index.numpy()[counted], data["matched_gt"][i][counted])


def by_definition(priors, boxes, image_size, topk):
    """Algorithm 1 with the full distance and IoU tables, one object after the other."""
    height, width = image_size
    points = (priors.boxes[:, :2] + priors.boxes[:, 2:]) / 2
    gt_index = torch.full((len(points),), -1)
    best = torch.zeros(len(points))
    overlaps = box_ops.pairwise_iou(priors.boxes, boxes, priors.legacy, float(priors.legacy))
    for g, box in enumerate(boxes):
        if (box[2:] - box[:2] + float(priors.legacy)).min() <= 1:
            continue
        center = torch.stack([((box[0] + box[2]) / 2).clamp(0, width), ((box[1] + box[3]) / 2).clamp(0, height)])
        distance = torch.sqrt(((points - center) ** 2).sum(1))
        chosen, first = [], 0
        for size in priors.level_sizes:
            order = torch.sort(distance[first : first + size], stable=True).indices[: min(topk, size)]
            chosen.append(first + order)
            first += size
        candidates = torch.cat(chosen)
        iou = overlaps[candidates, g]
        inside = (points[candidates] - box[:2]).amin(1).minimum((box[2:] - points[candidates]).amin(1)) > 0.01
        for c in candidates[(iou >= iou.mean() + iou.std()) & inside].tolist():
            if gt_index[c] < 0 or overlaps[c, g] > best[c]:
                gt_index[c], best[c] = g, overlaps[c, g]
    return gt_index, best


def random_boxes(generator, n, height, width, snap):
    """Boxes with corners on a grid of `snap` pixels, so that equal distances and shared centres are common."""
    xy = torch.rand(n, 2, generator=generator) * torch.tensor([width, height])
    wh = torch.rand(n, 2, generator=generator) ** 2 * torch.tensor([width, height]) + 2
    boxes = torch.cat([xy - wh / 2, xy + wh / 2], 1)
    return (boxes / snap).round() * snap


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize(("topk", "scales"), [(18, (3, 4)), (9, (8,)), (5, (3, 4))])
@pytest.mark.parametrize(
    "feature_sizes", [[(20, 24), (10, 12), (5, 6)], [(3, 17), (2, 9), (1, 5)], [(1, 1), (1, 1), (1, 1)]]
)
def test_definition__same_assignment_on_random_and_snapped_boxes(legacy, topk, scales, feature_sizes):
    generator = torch.Generator().manual_seed(1)
    priors = AnchorGrid([8, 16, 32], scales, legacy=legacy)(feature_sizes)
    height, width = feature_sizes[0][0] * 8, feature_sizes[0][1] * 8
    for n, snap in [(1, 1e-3), (12, 1e-3), (30, 4.0), (30, 8.0)]:
        boxes = random_boxes(generator, n, height, width, snap)
        result = ATSSAssigner(topk)(priors, boxes, torch.zeros(n, dtype=torch.int64), (height, width))
        want_index, want_iou = by_definition(priors, boxes, (height, width), topk)
        torch.testing.assert_close(result.gt_index, want_index, rtol=0, atol=0)
        torch.testing.assert_close(result.iou, want_iou)


def test_hand_worked__one_level_one_anchor():
    # Four cells in a row with points 0, 8, 16, 24 and anchors of side 8; the object is the anchor of point 8, 1 px
    # wider.
    priors = AnchorGrid([8], [1])([(1, 4)])
    box = torch.tensor([[4.0, -4.0, 13.0, 4.0]])
    result = ATSSAssigner(3)(priors, box, torch.tensor([0]), (8, 32))
    # Centre (8.5, 0); candidates: points 8, 16, 0. IoUs: 64/72, 8/128, 0 -> mean .317, standard deviation .496,
    # threshold .813.
    assert result.gt_index.tolist() == [-1, 0, -1, -1]
    assert result.iou[1].item() == pytest.approx(64 / 72)


def test_conflict__highest_iou_wins_and_the_first_on_equality():
    priors = AnchorGrid([8], [1])([(1, 4)])
    near, exact = [4.0, -4.0, 13.0, 4.0], [4.0, -4.0, 12.0, 4.0]
    labels = torch.tensor([0, 1])
    result = ATSSAssigner(3)(priors, torch.tensor([near, exact]), labels, (8, 32))
    assert result.gt_index.tolist() == [-1, 1, -1, -1]
    result = ATSSAssigner(3)(priors, torch.tensor([exact, exact]), labels, (8, 32))
    assert result.gt_index.tolist() == [-1, 0, -1, -1]


def test_batch__equals_the_loop_over_images_with_an_empty_one():
    generator = torch.Generator().manual_seed(3)
    priors = AnchorGrid([8, 16, 32], [3, 4])([(20, 24), (10, 12), (5, 6)])
    sizes = [(160, 192), (120, 150), (160, 100), (90, 90)]
    boxes = [random_boxes(generator, n, *size, 1.0) for n, size in zip((7, 0, 1, 20), sizes)]
    labels = [torch.zeros(len(b), dtype=torch.int64) for b in boxes]
    assigner = ATSSAssigner(18)
    for b, result in enumerate(assigner.assign_batch(priors, Targets(boxes, labels, sizes))):
        alone = assigner(priors, boxes[b], labels[b], sizes[b])
        torch.testing.assert_close(result.gt_index, alone.gt_index, rtol=0, atol=0)
        torch.testing.assert_close(result.iou, alone.iou, rtol=0, atol=0)
    assert (assigner.assign_batch(priors, Targets(boxes, labels, sizes))[1].gt_index == -1).all()


def test_small_objects__one_pixel_takes_no_part_and_no_object_is_forced():
    priors = AnchorGrid([8, 16, 32], [3, 4])([(8, 8), (4, 4), (2, 2)])
    one_pixel = torch.tensor([[10.0, 10.0, 11.0, 30.0]])
    assert (ATSSAssigner(18)(priors, one_pixel, torch.tensor([0]), (64, 64)).gt_index == -1).all()
    # A 3 x 3 object whose only near point (8, 8) lies outside it gets nothing: there is no fall-back.
    between = torch.tensor([[10.0, 10.0, 13.0, 13.0]])
    assert (ATSSAssigner(18)(priors, between, torch.tensor([0]), (64, 64)).gt_index == -1).all()


def test_defaults__nine_cells_of_two_anchors():
    assert ATSSAssigner().topk == 18


@pytest.mark.parametrize("n", [1, 4, 9, 12])
def test_nearest_cells__equal_the_whole_table_on_a_large_grid(n):
    """A grid larger than the window, its first point not on the diagonal, centres inside, on borders and outside."""
    rows, columns, stride = 17, 23, 8.0
    origin = torch.tensor([3.0, 5.5])
    generator = torch.Generator().manual_seed(n)
    centers = torch.rand(200, 2, generator=generator) * torch.tensor([220.0, 170.0]) - 15
    centers[:100] = (centers[:100] / 4).round() * 4
    row, column = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    points = torch.stack([origin[0] + column * stride, origin[1] + row * stride], 2).flatten(
        0, 1
    )  # [R, C, 2] -> [RC, 2]
    distance = ((points[None] - centers[:, None]) ** 2).sum(2).sqrt()
    wanted = torch.sort(distance, dim=1, stable=True).indices[:, :n]
    assert torch.equal(nearest_cells(centers, origin, stride, rows, columns, n), wanted)


@pytest.mark.parametrize(("legacy", "side", "takes_part"), [(False, 1, False), (False, 1.5, True), (True, 0.5, True)])
def test_small_objects__more_than_one_pixel_takes_part(legacy, side, takes_part):
    """In the legacy convention a box covers one pixel more."""
    priors = AnchorGrid([4], [1], legacy=legacy)([(8, 8)])
    middle = torch.tensor([17.5, 17.5] if legacy else [16.0, 16.0])  # a prior's point
    box = torch.cat([middle - side / 2, middle + side / 2])[None]
    result = ATSSAssigner(9)(priors, box, torch.zeros(1, dtype=torch.int64), (32, 32))
    assert bool((result.gt_index == 0).any()) == takes_part


def test_threshold__belongs_to_the_positives():
    """Four priors around the object's centre overlap it alike: mean and threshold are their IoU, 36 / 172."""
    priors = AnchorGrid([8], [1])([(2, 2)])
    result = ATSSAssigner(4)(priors, torch.tensor([[-2.0, -2, 10, 10]]), torch.tensor([0]), (16, 16))
    assert result.gt_index.tolist() == [0, 0, 0, 0]
    assert result.iou.tolist() == pytest.approx([36 / 172] * 4)


def test_inside__is_more_than_a_hundredth_of_a_pixel():
    prior = torch.tensor([[-1.0, -1, 1, 1]])  # its point is 0, 0
    boxes = torch.tensor([[-0.01, -5, 5, 5], [-0.011, -5, 5, 5], [-5, -5, 5, 0.01], [1, 1, 2, 2]])
    assert inside(prior, boxes).tolist() == [False, True, False, False]


@pytest.mark.parametrize(
    ("box", "size", "cells"),
    [
        # Centre -0.5, 1 becomes 0, 1: as far from the points 0, 0 and 0, 2, which are cells 0 and 3.
        ([-6, -1.5, 5, 3.5], (6, 6), [0, 3]),
        # Centre 4, 13 becomes 4, 6, the point of cell 23; of the cells 2 away 16 has the lowest index. From 4, 13
        # itself cell 22 would be nearer than cell 16.
        ([2.5, 3, 5.5, 23], (6, 14), [16, 23]),
    ],
)
def test_centers__outside_the_image_are_clamped_to_its_sides(box, size, cells):
    """Squares of two pixels around points two pixels apart; the two nearest overlap the object alike."""
    shape = (3, 3) if size == (6, 6) else (4, 7)
    result = ATSSAssigner(2)(AnchorGrid([2], [1])([shape]), torch.tensor([box]), torch.tensor([0]), size)
    assert (result.gt_index == 0).nonzero()[:, 0].tolist() == cells


def test_definition__anchors_that_are_no_squares():
    generator = torch.Generator().manual_seed(2)
    priors = AnchorGrid([8, 16], (3,), ratios=(2.0,))([(20, 24), (10, 12)])
    boxes = random_boxes(generator, 30, 160, 192, 1e-3)
    want_index, _ = by_definition(priors, boxes, (160, 192), 9)
    result = ATSSAssigner(9)(priors, boxes, torch.zeros(30, dtype=torch.int64), (160, 192))
    assert torch.equal(result.gt_index, want_index)
    assert len(set(result.gt_index.tolist())) > 10
