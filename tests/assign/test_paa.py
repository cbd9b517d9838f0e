"""PAA: cases worked by hand, the mixture and the whole algorithm against plain Python loops."""

from __future__ import annotations

import math
import random

import pytest
import torch
import torch.nn.functional as F

from tests.assign.test_max_iou import ODD_SIZES, by_double_loop, random_boxes
from yolox_lt.assign import PAAAssigner, Targets, paa
from yolox_lt.assign.paa import cheap_side, fit_two_gaussians
from yolox_lt.errors import UserError
from yolox_lt.models.priors import AnchorGrid
from yolox_lt.types import Predictions

C = 3


def em_by_loops(costs):
    """Means, variances, weights and the two components' densities at each cost, after 50 steps of EM."""
    means, variances, weights = [min(costs), max(costs)], [1.0, 1.0], [0.5, 0.5]

    def densities(x):
        return [
            weights[k] * math.exp(-((x - means[k]) ** 2) / (2 * variances[k])) / math.sqrt(2 * math.pi * variances[k])
            for k in range(2)
        ]

    for _ in range(50):
        shares = []
        for x in costs:
            a, b = densities(x)
            shares.append([a / (a + b), b / (a + b)])
        for k in range(2):
            total = sum(share[k] for share in shares)
            means[k] = sum(share[k] * x for share, x in zip(shares, costs)) / total
            variances[k] = sum(share[k] * (x - means[k]) ** 2 for share, x in zip(shares, costs)) / total + 1e-6
            weights[k] = total / len(costs)
    return means, variances, weights, [densities(x) for x in costs]


def padded(rows):
    """Lists of numbers as a float32 table and its mask; the filling must never be looked at."""
    width = max(len(row) for row in rows)
    costs = torch.tensor([row + [math.nan] * (width - len(row)) for row in rows])
    return costs, ~costs.isnan()


def random_costs(generator):
    """Up to 14 costs in one or two heaps, as float32 can hold them."""
    cheap = [generator.gauss(1.0, 0.2) for _ in range(generator.randint(1, 7))]
    dear = [generator.gauss(3.0, 0.5) for _ in range(generator.randint(0, 7))]
    return torch.tensor(cheap + dear).tolist()


def test_mixture__equals_expectation_maximisation_in_plain_python():
    generator = random.Random(0)
    rows = [random_costs(generator) for _ in range(20)]
    mixture = fit_two_gaussians(*padded(rows))
    for g, costs in enumerate(rows):
        means, variances, weights, densities = em_by_loops(costs)
        assert mixture.means[g].tolist() == pytest.approx(means, rel=0, abs=1e-9)
        assert mixture.variances[g].tolist() == pytest.approx(variances, rel=0, abs=1e-9)
        assert mixture.weights[g].tolist() == pytest.approx(weights, rel=0, abs=1e-9)
        joint = mixture.log_joint[g, :, : len(costs)].T  # [2, K] -> [K, 2]
        responsibilities = [[a / (a + b), b / (a + b)] for a, b in densities]
        want = torch.tensor(responsibilities, dtype=torch.float64)
        torch.testing.assert_close(joint.softmax(1), want, rtol=0, atol=1e-9)
        want = torch.tensor(densities, dtype=torch.float64).sum(1)
        torch.testing.assert_close(joint.logsumexp(1).exp(), want, rtol=1e-9, atol=0)


def test_mixture__two_far_heaps_have_their_own_means_and_variances():
    # 0, 1, 2 and 100, 104: means 1 and 102, variances 2/3 and 4 (divisor n), weights 3/5 and 2/5.
    mixture = fit_two_gaussians(*padded([[0.0, 1.0, 2.0, 100.0, 104.0]]))
    assert mixture.means[0].tolist() == pytest.approx([1, 102])
    assert mixture.variances[0].tolist() == pytest.approx([2 / 3 + 1e-6, 4 + 1e-6])
    assert mixture.weights[0].tolist() == pytest.approx([0.6, 0.4])


def positives(*rows):
    chosen = cheap_side(*padded([list(row) for row in rows]))
    return [[i for i, taken in enumerate(line) if taken] for line in chosen.tolist()]


def test_cheap_side__up_to_the_peak_of_the_lower_heap():
    # Heap 0, 1, 2 with the peak at its mean 1; in any order, beside a row of another length.
    assert positives([0.0, 1.0, 2.0, 100.0, 104.0], [104.0, 2.0, 1.0, 100.0, 0.0, 102.0]) == [[0, 1], [2, 4]]


def test_cheap_side__one_candidate_equal_costs_and_two_equal_densities():
    assert positives([5.0]) == [[0]]
    assert positives([0.3] * 7, [7000.0] * 3) == [list(range(7)), [0, 1, 2]]
    # Costs that differ by far less than the root of the variance floor make two identical components, which own all
    # candidates; the peak is at the mean.
    assert positives([2.0, 2.0001, 2.0002], [2.0, 2.0001]) == [[0, 1], [0, 1]]
    assert positives([2.0002, 2.0002, 2.0001, 2.0003]) == [[0, 1, 2]]  # rounding alone would own none
    # Two candidates far from the others are equally dense, on either side of their mean.
    assert positives([1.0, 1.5, 50.0, 51.0, 52.0], [0.1, 0.7, 90.0]) == [[0, 1], [0, 1]]
    # One cheap candidate alone in its component: the variance floor keeps it finite.
    assert positives([1.0, 50.0, 51.0, 52.0], [1.0, 50.0]) == [[0], [0]]


def test_cheap_side__the_components_may_change_places():
    # The component that started at 8.9 ends as the narrow one around 5.13; the one that started at 1 is spread around
    # 5.38 and takes the rest. Of the narrow heap 5, 5, 5.1, 5.1, 5.2, 5.4 the peak is at 5.1.
    row = [1.0, 5.0, 5.0, 5.1, 5.1, 5.2, 5.4, 6.3, 8.9]
    means, *_ = em_by_loops(row)
    assert means == pytest.approx([5.385, 5.127], abs=1e-3)
    assert positives(row) == [[1, 2, 3, 4]]


def predictions_of(boxes, logits=None):
    """Predictions of one image with these decoded boxes; by default the classes are certain and cost nothing."""
    boxes = torch.tensor(boxes)
    logits = torch.tensor([60.0, -60.0, -60.0]).expand(len(boxes), C) if logits is None else logits
    return Predictions(logits, torch.zeros(len(boxes), 4), None, boxes)


def test_hand_worked__one_level():
    # Anchors of side 32 at x = 0, 8, 16, 24, 32; the object is the middle one. IoUs 1/3, .6, 1, .6, 1/3.
    priors = AnchorGrid([8], [4])([(1, 5)])
    box = torch.tensor([[0.0, -16.0, 32.0, 16.0]])
    # A prediction inside the object that covers a part f of it has GIoU f and costs 13 (1 - f) here:
    # 9.75, .8125, 0, 1.625, 10.5625. The lower heap 0, .8125, 1.625 has its peak in the middle.
    widths = [8.0, 30.0, 32.0, 28.0, 6.0]
    predictions = predictions_of([[0.0, -16.0, w, 16.0] for w in widths])
    assigner = PAAAssigner(box_weight=13.0)
    result = assigner(priors, box, torch.tensor([0]), (32, 32), predictions)
    assert result.gt_index.tolist() == [-1, 0, 0, -1, -1]
    assert result.iou.tolist() == pytest.approx([0, 0.6, 1, 0, 0])
    # Only the two cheapest of the level: 0 and .8125, one component each.
    result = PAAAssigner(topk=2, box_weight=13.0)(priors, box, torch.tensor([0]), (32, 32), predictions)
    assert set(result.gt_index[[0, 3, 4]].tolist()) == {-1}
    assert result.gt_index[2] == 0
    # The cheapest prior (IoU 1/3) is left out by min_iou .5.
    predictions = predictions_of([[0.0, -16.0, w, 16.0] for w in (32.0, 28.0, 30.0, 6.0, 32.0)])
    result = PAAAssigner(min_iou=0.5, box_weight=130.0)(priors, box, torch.tensor([0]), (32, 32), predictions)
    assert result.gt_index.tolist() == [-1, 0, 0, -1, -1]


def test_cost__is_the_focal_loss_over_all_categories():
    logits = torch.tensor([[1.0, -2.0, 0.5], [-3.0, 0.0, 4.0], [200.0, -200.0, 0.0]], dtype=torch.float64)
    prior, labels = torch.tensor([0, 1]), torch.tensor([2, 0])
    p, y = logits[prior].sigmoid(), F.one_hot(labels, C).double()
    right = torch.where(y > 0, p, 1 - p)
    alpha = torch.where(y > 0, 0.3, 0.7)
    want = (alpha * (1 - right) ** 1.5 * -right.log()).sum(1)
    got = PAAAssigner(alpha=0.3, gamma=1.5).class_cost(logits, prior, labels)
    torch.testing.assert_close(got.double(), want, rtol=1e-6, atol=0)
    # Certain and wrong twice: .3 * 200 for the own category and .7 * 200, plus .7 / 4 * ln 2 of the undecided one.
    got = PAAAssigner(alpha=0.3).class_cost(logits, torch.tensor([2]), torch.tensor([1]))
    assert got.item() == pytest.approx(200 + 0.7 / 4 * math.log(2))


def test_cost__rows_come_in_blocks(monkeypatch):
    logits, labels = torch.randn(11, C, generator=torch.Generator().manual_seed(0)), torch.arange(7) % C
    prior = torch.tensor([0, 2, 3, 5, 7, 9, 10])
    whole = PAAAssigner().class_cost(logits, prior, labels)
    monkeypatch.setattr(paa, "ROWS_PER_BLOCK", 3)
    torch.testing.assert_close(PAAAssigner().class_cost(logits, prior, labels), whole)


def giou_by_numbers(a, b, one):
    """GIoU of two boxes, width x2 - x1 + one, the union inside IoU floored at one pixel."""
    width = max(min(a[2], b[2]) - max(a[0], b[0]) + one, 0)
    height = max(min(a[3], b[3]) - max(a[1], b[1]) + one, 0)
    union = sum((c[2] - c[0] + one) * (c[3] - c[1] + one) for c in (a, b)) - width * height
    hull = (max(a[2], b[2]) - min(a[0], b[0]) + one) * (max(a[3], b[3]) - min(a[1], b[1]) + one) + 1e-9
    return width * height / max(union, 1) - (hull - union) / hull


def by_loops(priors, boxes, labels, predictions, topk=9):
    """The whole algorithm, one prior after the other; numbers of PAAAssigner's defaults."""
    owner, overlap = by_double_loop(priors, boxes, 0.1, 0.1, True)
    gt_index, iou = [-1] * len(owner), [0.0] * len(owner)
    for g, box in enumerate(boxes.tolist()):
        costs, first = {}, 0
        for size in priors.level_sizes:
            level = {}
            for i in range(first, first + size):
                if owner[i] == g:
                    level[i] = 1.3 * (1 - giou_by_numbers(predictions.boxes[i].tolist(), box, int(priors.legacy)))
                    for c, x in enumerate(predictions.cls_logits[i].tolist()):
                        p = 1 / (1 + math.exp(-x))
                        own = c == labels[g]
                        level[i] += -0.25 * (1 - p) ** 2 * math.log(p) if own else -0.75 * p**2 * math.log(1 - p)
            costs.update(sorted(level.items(), key=lambda item: (item[1], item[0]))[:topk])
            first += size
        if not costs:
            continue
        means, _, _, densities = em_by_loops(list(costs.values()))
        low = 1 if means[1] < means[0] else 0
        own = {i: a + b for i, (a, b) in zip(costs, densities) if (a, b)[low] >= (a, b)[1 - low] * (1 - 1e-9)}
        peaks = [costs[i] for i in own if own[i] >= max(own.values()) * (1 - 1e-9)]
        for i in own:
            if costs[i] <= max(peaks):
                gt_index[i], iou[i] = g, float(overlap[i])
    return gt_index, iou


def random_image(generator, priors, n, snap=1.0):
    """Objects, labels and predictions scattered around the priors."""
    num = len(priors.boxes)
    boxes = random_boxes(generator, n, snap=snap)
    noise = torch.randn(num, 4, generator=generator) * priors.strides[:, None] / 4
    logits = torch.randn(num, C, generator=generator) * 2 - 1
    labels = torch.randint(C, (n,), generator=generator)
    return boxes, labels, Predictions(logits, torch.zeros(num, 4), None, priors.boxes + noise)


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize(("topk", "scales"), [(9, (3, 4)), (3, (1, 2, 4)), (2, (2,))])
def test_loops__same_assignment_as_the_plain_transcription(legacy, topk, scales):
    generator = torch.Generator().manual_seed(5)
    priors = AnchorGrid([8, 16, 32, 64], scales, legacy=legacy)(ODD_SIZES)
    for n, snap in [(1, 1.0), (3, 1.0), (8, 1.0), (20, 4.0)]:
        boxes, labels, predictions = random_image(generator, priors, n, snap)
        result = PAAAssigner(topk=topk)(priors, boxes, labels, (56, 40), predictions)
        gt_index, iou = by_loops(priors, boxes, labels.tolist(), predictions, topk)
        assert result.gt_index.tolist() == gt_index
        assert result.iou.tolist() == iou
        assert max(gt_index) >= 0
        assert result.gt_index.dtype == torch.int64
        assert result.iou.dtype == torch.float32


def test_conflict__a_prior_belongs_to_the_object_of_the_higher_iou():
    # Anchor of side 32 at x = 16: IoU 1 with object 1, 24 / 40 with object 0, whose own anchor is at x = 8.
    priors = AnchorGrid([8], [4])([(1, 5)])
    boxes = torch.tensor([[-8.0, -16.0, 24.0, 16.0], [0.0, -16.0, 32.0, 16.0]])
    labels = torch.tensor([0, 0])
    # Both predictions fit the other object better: the predictions do not change who owns a prior.
    swapped = predictions_of([[90.0, 90.0, 99.0, 99.0], *boxes[[1, 0]].tolist(), *[[90.0, 90.0, 99.0, 99.0]] * 2])
    result = PAAAssigner(min_iou=0.9)(priors, boxes, labels, (32, 32), swapped)
    assert result.gt_index.tolist() == [-1, 0, 1, -1, -1]
    assert result.iou.tolist() == [0, 1, 1, 0, 0]
    # The same object twice: the first one has them all, the second none.
    result = PAAAssigner(min_iou=0.9)(priors, boxes[[1, 1]], labels, (32, 32), swapped)
    assert result.gt_index.tolist() == [-1, -1, 0, -1, -1]


def test_levels__each_gives_its_cheapest_and_the_last_its_only_prior():
    priors = AnchorGrid([8, 16, 32, 64], [1])(ODD_SIZES)
    box = torch.tensor([[-32.0, -32.0, 32.0, 32.0]])
    predictions = predictions_of(priors.boxes.tolist())
    result = PAAAssigner()(priors, box, torch.tensor([0]), (56, 40), predictions)
    # IoU 1 with the last level's prior; only [-16, 16] of level 2 has as much as a quarter, and it costs .75 * 1.3.
    assert (result.gt_index >= 0).nonzero().flatten().tolist() == [len(priors.boxes) - 1]
    assert result.iou[-1] == 1


def test_small_objects__the_best_prior_is_theirs_but_one_pixel_takes_no_part():
    priors = AnchorGrid([8], [1])([(1, 4)])
    predictions = predictions_of(priors.boxes.tolist())
    # 4 / 64 of the second anchor is below min_iou: it is the best there is, and a single candidate is positive.
    boxes = torch.tensor([[4.0, -4.0, 5.0, 4.0], [5.0, -1.0, 7.0, 1.0]])
    result = PAAAssigner()(priors, boxes, torch.tensor([0, 0]), (8, 32), predictions)
    assert result.gt_index.tolist() == [-1, 1, -1, -1]
    assert result.iou.tolist() == [0, 4 / 64, 0, 0]
    result = PAAAssigner()(priors, boxes[:1], torch.tensor([0]), (8, 32), predictions)
    assert result.gt_index.tolist() == [-1] * 4


def test_no_objects__everything_is_background():
    priors = AnchorGrid([8], [1])([(1, 4)])
    for boxes in (torch.zeros(0, 4), torch.tensor([[100.0, 100.0, 120.0, 120.0]])):
        labels = torch.zeros(len(boxes), dtype=torch.int64)
        result = PAAAssigner()(priors, boxes, labels, (8, 32), predictions_of(priors.boxes.tolist()))
        assert result.gt_index.tolist() == [-1] * 4
        assert result.iou.tolist() == [0] * 4


def test_batch__equals_the_loop_over_images_with_an_empty_one():
    generator = torch.Generator().manual_seed(3)
    priors = AnchorGrid([8, 16, 32, 64], [3, 4])(ODD_SIZES)
    images = [random_image(generator, priors, n) for n in (7, 0, 1, 20)]
    batch = Predictions(
        torch.stack([p.cls_logits for _, _, p in images]),
        torch.stack([p.box_deltas for _, _, p in images]),
        None,
        torch.stack([p.boxes for _, _, p in images]),
    )
    boxes, labels = [b for b, _, _ in images], [x for _, x, _ in images]
    results = PAAAssigner().assign_batch(priors, Targets(boxes, labels, [(56, 40)] * 4), batch)
    assert len(results) == 4
    for b, result in enumerate(results):
        alone = PAAAssigner()(priors, boxes[b], labels[b], (56, 40), images[b][2])
        assert torch.equal(result.gt_index, alone.gt_index)
        assert torch.equal(result.iou, alone.iou)
    assert (results[1].gt_index == -1).all()
    assert (results[3].gt_index >= 0).any()


def test_errors__predictions_and_settings_that_do_not_do():
    priors = AnchorGrid([8], [1])([(1, 4)])
    arguments = (priors, torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), (8, 32))
    with pytest.raises(ValueError, match="decoded boxes"):
        PAAAssigner()(*arguments)
    with pytest.raises(ValueError, match="decoded boxes"):
        PAAAssigner()(*arguments, Predictions(torch.zeros(4, C), torch.zeros(4, 4)))
    with pytest.raises(ValueError, match="decoded boxes"):
        PAAAssigner().assign_batch(priors, Targets([arguments[1]], [arguments[2]], [(8, 32)]))
    with pytest.raises(UserError, match=r"min_iou is 0.* and topk is 0"):
        PAAAssigner(min_iou=0.0, topk=0)
