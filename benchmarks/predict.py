"""What follows the network for one image, against a sort of all (prior, category) pairs and NMS by coordinate offset.

    python -m benchmarks.predict [--device cuda] [--categories 1203] [--size 640] [--trained | --random] [--grow]

640 x 640 pixels, two anchors a cell (16,800), 1000 pairs a level, 300 detections. The offset is added in float64, so
that the alternative is right for all categories too. Logits are as of a trained detector (--trained: most scores tiny,
some clear objects) and as of one before training (--random: all scores alike); both unless one is chosen.
"""

from __future__ import annotations

import functools

import torch
from torchvision.ops import nms

from benchmarks.paired import begin, compare, measure, parser, print_header, table_row
from yolox_lt import boxes as box_ops
from yolox_lt.coders import DeltaCoder
from yolox_lt.models.priors import AnchorGrid
from yolox_lt.predict import Predictor
from yolox_lt.types import Detections, Predictions, Priors

PRE_NMS = 1000
"""Pairs a level."""
NMS_THRESHOLD = 0.65
MAX_DETECTIONS = 300


def case(size: int, categories: int, trained: bool, device: torch.device) -> tuple[Predictions, Priors]:
    """Outputs of a network for one image. Trained: 40 objects, each seen by 30 priors in three categories."""
    generator = torch.Generator().manual_seed(0)
    priors = AnchorGrid([8, 16, 32], [3, 4])([(size // s, size // s) for s in (8, 16, 32)], device)
    n = len(priors.boxes)
    logits = torch.randn(1, n, categories, generator=generator)
    if trained:
        logits = logits * 1.5 - 9
        for _ in range(40):
            near = torch.randint(n - 30, (1,), generator=generator) + torch.arange(30)
            own = torch.randint(categories, (3,), generator=generator)
            logits[0, near[:, None], own] += torch.tensor([10.0, 5.0, 3.0])
    else:
        logits = logits * 0.01 - 4.6
    deltas = torch.randn(1, n, 4, generator=generator) * 0.2
    quality = torch.randn(1, n, generator=generator)
    return Predictions(logits.to(device), deltas.to(device), quality.to(device)), priors


def plain(predictions: Predictions, priors: Priors, size: int) -> list[Detections]:
    """Every score, every pair sorted, one NMS over boxes that are shifted by category."""
    assert predictions.quality_logits is not None
    boxes = DeltaCoder().decode(priors.boxes, predictions.box_deltas[0])
    boxes = box_ops.clip(boxes, (size, size))
    scores = predictions.cls_logits[0].sigmoid() * predictions.quality_logits[0].sigmoid()[:, None]  # [P, C]
    scores[((boxes[:, 2:] - boxes[:, :2]) <= 0).any(dim=1)] = -1
    kept_scores, kept_pairs, first = [], [], 0
    for level in scores.split(priors.level_sizes):
        ranked = level.flatten().sort(descending=True, stable=True)  # [n, C] -> [n*C], pair = prior * C + label
        count = min(PRE_NMS, len(level))
        kept_scores.append(ranked.values[:count])
        kept_pairs.append(ranked.indices[:count] + first * level.shape[1])
        first += len(level)
    score, pair = torch.cat(kept_scores), torch.cat(kept_pairs)
    score, pair = score[score >= 0], pair[score >= 0]
    prior, label = pair // scores.shape[1], pair % scores.shape[1]
    shifted = boxes[prior].double() + label.double()[:, None] * 2 * size
    keep = nms(shifted, score.double(), NMS_THRESHOLD)[:MAX_DETECTIONS]
    return [Detections(boxes[prior[keep]], score[keep], label[keep])]


def ours(predictions: Predictions, priors: Priors, size: int) -> list[Detections]:
    predictor = Predictor(DeltaCoder(), NMS_THRESHOLD, pre_nms=PRE_NMS, max_detections=MAX_DETECTIONS)
    sizes = torch.tensor([[size, size]])
    return predictor(predictions, priors, torch.ones(1, 2), sizes, sizes, (size, size))


def same(a: list[Detections], b: list[Detections]) -> None:
    for ours, theirs in zip(a, b):
        assert len(ours) == MAX_DETECTIONS
        torch.testing.assert_close(ours.scores, theirs.scores, rtol=0, atol=0)
        torch.testing.assert_close(ours.labels, theirs.labels, rtol=0, atol=0)
        torch.testing.assert_close(ours.boxes, theirs.boxes, rtol=0, atol=0)


def grow(device: torch.device, repeats: int) -> None:
    print_header("logits", "priors", "categories", "ms", "peak MiB", "peak in logits matrices")
    for trained in (True, False):
        for size, categories in [(640, 80), (640, 300), (640, 1203), (640, 5000), (320, 1203), (960, 1203)]:
            predictions, priors = case(size, categories, trained, device)
            result = measure(functools.partial(ours, predictions, priors, size), repeats, device)
            matrix = predictions.cls_logits.numel() * 4 / 2**20
            numbers = (f"{result.median * 1e3:.2f}", f"{result.peak:.1f}", f"{result.peak / matrix:.2f}")
            name = "trained" if trained else "random"
            print(table_row(name, len(priors.boxes), categories, *numbers), flush=True)


def main() -> None:
    options = parser(__doc__, repeats=7, device=True)
    options.add_argument("--size", type=int, default=640, help="pixels of a side (%(default)s)")
    options.add_argument("--categories", type=int, default=1203, help="%(default)s")
    options.add_argument("--trained", action="store_true", help="only logits as of a trained detector")
    options.add_argument("--random", action="store_true", help="only logits as of an untrained one")
    options.add_argument("--grow", action="store_true", help="print how ours grows instead")
    args = options.parse_args()
    device = begin(args)
    if args.grow:
        grow(device, args.repeats)
        return
    print_header()
    for name in ("trained", "random"):
        if getattr(args, "random" if name == "trained" else "trained"):
            continue
        predictions, priors = case(args.size, args.categories, name == "trained", device)
        compare(
            f"prediction, {len(priors.boxes):,} x {args.categories}, {name} / sort, offset",
            functools.partial(ours, predictions, priors, args.size),
            functools.partial(plain, predictions, priors, args.size),
            same,
            args.repeats,
            reach=10,
            device=device,
        )


if __name__ == "__main__":
    main()
