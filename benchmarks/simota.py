"""SimOTA on one image against the same steps with the class cost of every object and candidate gathered densely.

    python -m benchmarks.simota [--device cuda] [--objects 60] [--categories 1203] [--grow]

640 x 640 pixels, one prior a cell (8,400). The dense formulation holds [objects, candidates, categories] arrays, as
official YOLOX does. --grow prints how ours grows with objects and categories instead.
"""

from __future__ import annotations

import functools

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.paired import begin, compare, measure, parser, print_header, table_row
from yolox_lt import boxes as box_ops
from yolox_lt.assign import SimOTAAssigner
from yolox_lt.models.priors import AnchorGrid
from yolox_lt.types import BACKGROUND, Assignment, Predictions, Priors

SIZE = 640


def case(objects: int, categories: int, device: torch.device) -> tuple[Priors, Tensor, Tensor, Predictions]:
    """Objects anywhere; predicted boxes near the priors and of their order of size; scores as early in a training."""
    generator = torch.Generator().manual_seed(0)
    priors = AnchorGrid([8, 16, 32], [1])([(SIZE // s, SIZE // s) for s in (8, 16, 32)])
    n = len(priors.boxes)
    center = torch.rand(objects, 2, generator=generator) * SIZE
    extent = 8 + torch.rand(objects, 2, generator=generator) ** 2 * SIZE / 2
    boxes = torch.cat([center - extent / 2, center + extent / 2], dim=1)
    labels = torch.randint(categories, (objects,), generator=generator)
    middle = (priors.boxes[:, :2] + priors.boxes[:, 2:]) / 2
    half = priors.strides[:, None] * torch.exp(torch.randn(n, 2, generator=generator)) * 2
    predictions = Predictions(
        (torch.randn(n, categories, generator=generator) * 1.5 - 4).to(device),
        torch.zeros(n, 4, device=device),
        torch.randn(n, generator=generator).to(device),
        torch.cat([middle - half, middle + half], dim=1).to(device),
    )
    priors.boxes, priors.strides = priors.boxes.to(device), priors.strides.to(device)
    return priors, boxes.to(device), labels.to(device), predictions


def dense(priors: Priors, boxes: Tensor, labels: Tensor, predictions: Predictions) -> Assignment:
    """The rules of SimOTAAssigner with plain tables; the class cost is [G, M, C] before its sum."""
    assert predictions.boxes is not None
    assert predictions.quality_logits is not None
    gt_index = torch.full((len(priors.boxes),), BACKGROUND, device=boxes.device)
    iou = torch.zeros(len(priors.boxes), device=boxes.device)
    points = (priors.boxes[:, :2] + priors.boxes[:, 2:]) / 2 + priors.strides[:, None] / 2
    center = (boxes[:, :2] + boxes[:, 2:]) / 2
    in_window = (points[None] - center[:, None]).abs().amax(dim=2) < 1.5 * priors.strides  # [G, P]
    candidates = in_window.any(dim=0).nonzero().squeeze(1)
    overlap = box_ops.pairwise_iou(boxes, predictions.boxes[candidates], min_union=0.0)  # [G, M]
    scores = predictions.cls_logits[candidates].sigmoid() * predictions.quality_logits[candidates].sigmoid()[:, None]
    scores = scores.sqrt()[None].expand(len(boxes), -1, -1)  # [G, M, C]
    target = F.one_hot(labels, scores.shape[2]).float()[:, None].expand_as(scores)
    cost = F.binary_cross_entropy(scores, target, reduction="none").sum(dim=2)  # [G, M]
    cost = cost + 3 * -torch.log(overlap + 1e-8) + 1e6 * ~in_window[:, candidates]
    chosen = torch.zeros_like(cost, dtype=torch.bool)
    counts = overlap.topk(min(10, len(candidates)), dim=1).values.sum(dim=1).int().clamp(min=1)
    for g, count in enumerate(counts.tolist()):
        chosen[g, cost[g].topk(count, largest=False).indices] = True
    taken = chosen.any(dim=0)
    owner = torch.where(chosen.sum(dim=0) > 1, cost.argmin(dim=0), chosen.int().argmax(dim=0))
    gt_index[candidates[taken]] = owner[taken]
    iou[candidates[taken]] = overlap[owner[taken], taken.nonzero().squeeze(1)]
    return Assignment(gt_index, iou)


def same(a: Assignment, b: Assignment) -> None:
    torch.testing.assert_close(a.gt_index, b.gt_index, rtol=0, atol=0)
    torch.testing.assert_close(a.iou, b.iou)


def grow(device: torch.device, repeats: int) -> None:
    print_header("objects", "categories", "ms", "peak MiB")
    sizes = [(60, 80), (60, 300), (60, 1203), (60, 5000), (10, 1203), (100, 1203), (300, 1203)]
    for objects, categories in sizes:
        priors, boxes, labels, predictions = case(objects, categories, device)
        arguments = (priors, boxes, labels, (SIZE, SIZE), predictions)
        result = measure(functools.partial(SimOTAAssigner(), *arguments), repeats, device)
        print(table_row(objects, categories, f"{result.median * 1e3:.2f}", f"{result.peak:.1f}"), flush=True)


def main() -> None:
    options = parser(__doc__, device=True)
    options.add_argument("--objects", type=int, default=60, help="%(default)s")
    options.add_argument("--categories", type=int, default=1203, help="%(default)s")
    options.add_argument("--grow", action="store_true", help="print how ours grows instead")
    args = options.parse_args()
    device = begin(args)
    if args.grow:
        grow(device, args.repeats)
        return
    priors, boxes, labels, predictions = case(args.objects, args.categories, device)
    print_header()
    compare(
        f"SimOTA, {args.objects} objects, {args.categories} categories / dense",
        lambda: SimOTAAssigner()(priors, boxes, labels, (SIZE, SIZE), predictions),
        lambda: dense(priors, boxes, labels, predictions),
        same,
        args.repeats,
        reach=5,
        device=device,
    )


if __name__ == "__main__":
    main()
