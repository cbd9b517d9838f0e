"""ATSS over a batch against its definition, which compares all anchors with all objects, image by image.

    python -m benchmarks.atss [--device cuda] [--images 8] [--objects 100] [--size 640] [--grow]

YOLOX levels (strides 8, 16, 32), two anchors a cell, 18 candidates a level. --grow prints how ours grows with objects,
images, image size (anchors) and categories instead; the work of the definition grows with objects x anchors.
"""

from __future__ import annotations

import functools

import torch

from benchmarks.paired import begin, compare, measure, parser, print_header, table_row
from yolox_lt import boxes as box_ops
from yolox_lt.assign import ATSSAssigner, Targets
from yolox_lt.assign.atss import MIN_INSIDE
from yolox_lt.models.priors import AnchorGrid
from yolox_lt.types import BACKGROUND, Assignment, Priors

TOPK = 18
"""Boxes float32 [G, 4], labels int64 [G] and (height, width) of each image."""


def case(images: int, objects: int, size: int, device: torch.device, categories: int = 1203) -> tuple[Priors, Targets]:
    """Objects of 8 pixels to half the image anywhere in square images."""
    generator = torch.Generator().manual_seed(0)
    priors = AnchorGrid([8, 16, 32], [3, 4])([(size // s, size // s) for s in (8, 16, 32)], device)
    boxes, labels = [], []
    for _ in range(images):
        center = torch.rand(objects, 2, generator=generator) * size
        extent = 8 + torch.rand(objects, 2, generator=generator) ** 2 * size / 2
        boxes.append(torch.cat([center - extent / 2, center + extent / 2], dim=1).to(device))
        labels.append(torch.randint(categories, (objects,), generator=generator).to(device))
    return priors, Targets(boxes, labels, [(size, size)] * images)


def definition(priors: Priors, objects: Targets) -> list[Assignment]:
    """Algorithm 1 of the paper with full tables, each [G, P]."""
    points = (priors.boxes[:, :2] + priors.boxes[:, 2:]) / 2
    results = []
    for boxes, _, (height, width) in zip(*objects):
        center = (boxes[:, :2] + boxes[:, 2:]) / 2
        center = torch.stack([center[:, 0].clamp(0, width), center[:, 1].clamp(0, height)], dim=1)
        distance = ((points[None] - center[:, None]) ** 2).sum(dim=2).sqrt()
        overlap = box_ops.pairwise_iou(boxes, priors.boxes, min_union=0.0)
        levels = distance.split(priors.level_sizes, dim=1)
        first = [sum(priors.level_sizes[:i]) for i in range(len(levels))]
        nearest = torch.cat([d.topk(TOPK, dim=1, largest=False).indices + f for d, f in zip(levels, first)], dim=1)
        near = overlap.gather(1, nearest)
        threshold = near.mean(dim=1) + near.std(dim=1)
        is_candidate = torch.zeros_like(overlap, dtype=torch.bool).scatter_(1, nearest, True)
        margin = torch.cat([points[None] - boxes[:, None, :2], boxes[:, None, 2:] - points[None]], dim=2).amin(dim=2)
        positive = is_candidate & (overlap >= threshold[:, None]) & (margin > MIN_INSIDE)
        best, owner = torch.where(positive, overlap, -1.0).max(dim=0)
        taken = best >= 0
        results.append(Assignment(torch.where(taken, owner, BACKGROUND), torch.where(taken, best, 0.0)))
    return results


def same(a: list[Assignment], b: list[Assignment]) -> None:
    for ours, theirs in zip(a, b):
        torch.testing.assert_close(ours.gt_index, theirs.gt_index, rtol=0, atol=0)
        torch.testing.assert_close(ours.iou, theirs.iou)


def grow(device: torch.device, repeats: int) -> None:
    print_header("images", "objects an image", "anchors", "categories", "ms", "us an object", "peak MiB")
    sizes = [(8, 10, 640, 1203), (8, 100, 640, 1203), (8, 300, 640, 1203), (8, 1000, 640, 1203)]
    sizes += [(1, 100, 640, 1203), (2, 100, 640, 1203), (4, 100, 640, 1203), (16, 100, 640, 1203)]
    sizes += [(8, 100, 320, 1203), (8, 100, 1280, 1203), (8, 100, 2560, 1203), (8, 100, 640, 80), (8, 100, 640, 5000)]
    assigner = ATSSAssigner(TOPK)
    for images, objects, size, categories in sizes:
        priors, targets = case(images, objects, size, device, categories)
        result = measure(functools.partial(assigner.assign_batch, priors, targets), repeats, device)
        each = result.median / (images * objects)
        numbers = (f"{result.median * 1e3:.2f}", f"{each * 1e6:.1f}", f"{result.peak:.1f}")
        print(table_row(images, objects, len(priors.boxes), categories, *numbers), flush=True)


def main() -> None:
    options = parser(__doc__, repeats=15, device=True)
    options.add_argument("--images", type=int, default=8, help="%(default)s")
    options.add_argument("--objects", type=int, default=100, help="of an image (%(default)s)")
    options.add_argument("--size", type=int, default=640, help="pixels of a side (%(default)s)")
    options.add_argument("--grow", action="store_true", help="print how ours grows instead")
    args = options.parse_args()
    device = begin(args)
    if args.grow:
        grow(device, args.repeats)
        return
    priors, objects = case(args.images, args.objects, args.size, device)
    print_header()
    compare(
        f"ATSS, {args.images} images x {args.objects} objects, {len(priors.boxes):,} anchors / definition",
        lambda: ATSSAssigner(TOPK).assign_batch(priors, objects),
        lambda: definition(priors, objects),
        same,
        args.repeats,
        reach=20,
        device=device,
    )


if __name__ == "__main__":
    main()
