"""SimOTA against its rules over plain tables, one object after the other, on random and on hostile input."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch

from yolox_lt import boxes as box_ops
from yolox_lt.assign import SimOTAAssigner, Targets, simota
from yolox_lt.models.priors import AnchorGrid
from yolox_lt.types import Predictions

SIZE = 96


def by_definition(priors, boxes, labels, predictions):
    """The docstring's steps; the class cost of every object, candidate and category is formed and summed, float64."""
    points = (priors.boxes[:, :2] + priors.boxes[:, 2:]) / 2 + priors.strides[:, None] / 2
    centers = (boxes[:, :2] + boxes[:, 2:]) / 2
    near = (points[None] - centers[:, None]).abs().amax(2) < 1.5 * priors.strides  # [G, P]
    gt_index, iou = torch.full((len(points),), -1), torch.zeros(len(points))
    candidates = near.any(0).nonzero().squeeze(1)
    if len(candidates) == 0:
        return gt_index, iou
    overlap = box_ops.pairwise_iou(boxes, predictions.boxes[candidates], min_union=0.0)
    logits, objectness = predictions.cls_logits[candidates].double(), predictions.quality_logits[candidates].double()
    score = (logits.sigmoid() * objectness.sigmoid()[:, None]).sqrt()  # [M, C]
    cost = torch.empty(len(boxes), len(candidates))
    for g in range(len(boxes)):
        target = torch.zeros_like(score)
        target[:, labels[g]] = 1
        bce = -(target * score.log().clamp(min=-100) + (1 - target) * (1 - score).log().clamp(min=-100)).sum(1)
        cost[g] = bce.float() + 3 * -torch.log(overlap[g] + 1e-8) + 1e6 * ~near[g, candidates]
    wanted = [[] for _ in candidates]
    for g in range(len(boxes)):
        k = max(int(overlap[g].sort(descending=True).values[:10].sum()), 1)
        for m in cost[g].sort(stable=True).indices[:k].tolist():
            wanted[m].append(g)
    for m, objects in enumerate(wanted):
        if objects:
            # A candidate that several objects want goes to the cheapest of all objects.
            owner = objects[0] if len(objects) == 1 else int(cost[:, m].argmin())
            gt_index[candidates[m]], iou[candidates[m]] = owner, overlap[owner, m]
    return gt_index, iou


def make_case(case):
    generator = torch.Generator().manual_seed(len(case))
    categories = {"one category": 1, "1203 categories": 1203}.get(case, 7)
    objects = {"one object": 1, "more objects than priors": 400}.get(case, 12)
    priors = AnchorGrid([8, 16, 32], [1])([(SIZE // s, SIZE // s) for s in (8, 16, 32)])
    n = len(priors.boxes)
    center = torch.rand(objects, 2, generator=generator) * SIZE
    extent = 6 + torch.rand(objects, 2, generator=generator) * 40
    boxes = torch.cat([center - extent / 2, center + extent / 2], 1)
    labels = torch.randint(categories, (objects,), generator=generator)
    middle = (priors.boxes[:, :2] + priors.boxes[:, 2:]) / 2
    half = priors.strides[:, None] * torch.exp(torch.randn(n, 2, generator=generator) / 2) * 2
    logits = torch.randn(n, categories, generator=generator) * 2 - 3
    quality = torch.randn(n, generator=generator)
    if case == "equal objects":
        boxes, labels = boxes[:1].expand(5, 4).clone(), labels[:1].expand(5).clone()
    elif case == "outside the image":
        boxes = boxes + 1000
    elif case == "no overlap":  # every IoU is 0: each object takes its single cheapest candidate
        middle = middle + 5000
    elif case == "logits of +-100":
        logits = torch.randint(0, 2, logits.shape, generator=generator) * 200.0 - 100
    elif case == "all scores equal":
        logits, quality = torch.zeros_like(logits), torch.zeros_like(quality)
    return (
        priors,
        boxes,
        labels,
        Predictions(logits, torch.zeros(n, 4), quality, torch.cat([middle - half, middle + half], 1)),
    )


CASES = [
    "random",
    "one object",
    "one category",
    "1203 categories",
    "more objects than priors",
    "equal objects",
    "outside the image",
    "no overlap",
    "logits of +-100",
    "all scores equal",
]


@pytest.mark.parametrize("case", CASES)
def test_definition__same_assignment(case):
    priors, boxes, labels, predictions = make_case(case)
    result = SimOTAAssigner()(priors, boxes, labels, (SIZE, SIZE), predictions)
    want_index, want_iou = by_definition(priors, boxes, labels, predictions)
    torch.testing.assert_close(result.gt_index, want_index, rtol=0, atol=0)
    torch.testing.assert_close(result.iou, want_iou)
    assert (case == "outside the image") == bool((want_index < 0).all())


@pytest.mark.parametrize("layout", ["transposed", "every second column", "bfloat16"])
def test_predictions__of_any_memory_and_half_precision(layout):
    priors, boxes, labels, predictions = make_case("1203 categories")
    logits = predictions.cls_logits
    if layout == "bfloat16":
        predictions.cls_logits = logits.bfloat16().float()
    want = SimOTAAssigner()(priors, boxes, labels, (SIZE, SIZE), predictions)
    predictions.cls_logits = {
        "transposed": logits.T.contiguous().T,
        "every second column": torch.stack([logits, -logits], 2)[:, :, 0],
        "bfloat16": logits.bfloat16(),
    }[layout]
    result = SimOTAAssigner()(priors, boxes, labels, (SIZE, SIZE), predictions)
    assert torch.equal(result.gt_index, want.gt_index)
    assert torch.equal(result.iou, want.iou)


def test_equal_costs__the_lower_prior_is_taken():
    # Two priors of one level on both sides of the object's centre, equal boxes and scores; the IoUs sum to less than 2.
    priors = AnchorGrid([8], [1])([(1, 2)])
    box = torch.tensor([[2.0, -2, 14, 10]])
    predictions = Predictions(torch.zeros(2, 3), torch.zeros(2, 4), torch.zeros(2), box.expand(2, 4) + 3)
    result = SimOTAAssigner()(priors, box, torch.tensor([1]), (8, 16), predictions)
    assert result.gt_index.tolist() == [0, -1]


def test_batch__equals_one_image_after_the_other():
    cases = [make_case(c) for c in ("random", "equal objects", "one object")]
    stacked = Predictions(
        *(
            torch.stack([getattr(c[3], f) for c in cases])
            for f in ("cls_logits", "box_deltas", "quality_logits", "boxes")
        )
    )
    priors, sizes = cases[0][0], [(SIZE, SIZE)] * 3
    batch = SimOTAAssigner().assign_batch(priors, Targets([c[1] for c in cases], [c[2] for c in cases], sizes), stacked)
    for result, (_, boxes, labels, predictions) in zip(batch, cases):
        alone = SimOTAAssigner()(priors, boxes, labels, (SIZE, SIZE), predictions)
        assert torch.equal(result.gt_index, alone.gt_index)
        assert torch.equal(result.iou, alone.iou)


def test_center_window__is_open():
    """Cell centres at 4, 12, 20, 28; reach 1.5 x 8 = 12 pixels from the object's centre at 16: 4 and 28 lie on it."""
    priors = AnchorGrid([8], [1])([(1, 4)])
    window = SimOTAAssigner().center_window(priors, torch.tensor([[10.0, -2, 22, 10]]))
    assert window.tolist() == [[False, True, True, False]]


def test_choose__equal_costs_fill_up_to_k():
    """IoUs sum to 2.6, so k is 2: the cheapest and the first of three equals; never more than `topk` count."""
    cost = torch.tensor([[5.0, 1, 3, 3, 3, 9]])
    overlap = torch.tensor([[0.0, 0.5, 0.6, 0.7, 0.8, 0.0]])
    assert SimOTAAssigner().choose(cost, overlap).nonzero()[:, 1].tolist() == [1, 2]
    assert SimOTAAssigner(topk=1).choose(cost, overlap).nonzero()[:, 1].tolist() == [1]
    assert SimOTAAssigner().choose(cost, torch.zeros(1, 6)).nonzero()[:, 1].tolist() == [1]


def test_class_cost__by_hand_and_at_its_ends(monkeypatch):
    """Scores of 1 and 0 cost 100 at most, as in torch's own binary cross entropy; blocks change nothing."""
    logits = torch.tensor([[0.0, 0, 0], [300, -300, 300], [-400, -400, 0]])
    objectness = torch.tensor([0.0, 300, -400])
    cost = simota.class_cost(logits, objectness, torch.arange(3), torch.tensor([0, 1]))
    half = math.log(2)  # of sqrt(1/2 x 1/2)
    own = torch.tensor([[3 * half, 100, 100], [3 * half, 300, 100]])
    torch.testing.assert_close(cost, own)
    monkeypatch.setattr(simota, "ENTRIES_PER_BLOCK", 3)
    torch.testing.assert_close(simota.class_cost(logits, objectness, torch.arange(3), torch.tensor([0, 1])), own)


def test_defaults__are_official_yolox():
    assert SimOTAAssigner() == SimOTAAssigner(radius=1.5, iou_weight=3.0, topk=10)
    assert simota.OUTSIDE_COST == 1e6


@pytest.mark.parametrize("lacking", ["everything", "boxes", "quality_logits"])
def test_predictions__without_boxes_or_objectness_are_refused(lacking):
    priors, boxes, labels, predictions = make_case("one object")
    given = None if lacking == "everything" else dataclasses.replace(predictions, **{lacking: None})
    with pytest.raises(ValueError, match="needs predictions with decoded boxes and objectness"):
        SimOTAAssigner()(priors, boxes, labels, (SIZE, SIZE), given)
    with pytest.raises(ValueError, match="needs predictions with decoded boxes and objectness"):
        SimOTAAssigner().assign_batch(priors, Targets([boxes], [labels], [(SIZE, SIZE)]), given)
