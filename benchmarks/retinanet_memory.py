"""Peak memory of a training step of RetinaNet with 9 anchors a cell and 1203 categories, CPU, one image.

    python -m benchmarks.retinanet_memory [--height 800] [--width 1344] [--textbook]

Each formulation runs in a process of its own, whose peak resident memory is reported. "Textbook" is the focal loss as
papers write it: sigmoid, logarithm, one-hot targets, autograd.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import time

os.environ.setdefault("GOMP_SPINCOUNT", "10000")

import torch
from torch import Tensor

from yolox_lt.exp import RetinaNetExp
from yolox_lt.losses import DenseLoss


class TextbookFocal(DenseLoss):
    """-alpha_t (1 - p_t)^gamma ln p_t, term by term."""

    def forward(
        self, logits: Tensor, labels: Tensor, quality: Tensor | None = None, normalizer: float | Tensor = 1.0
    ) -> Tensor:
        target = torch.zeros_like(logits)
        positive = labels >= 0
        target[positive, labels[positive]] = 1.0
        p = logits.sigmoid()
        p_t = p * target + (1 - p) * (1 - target)
        alpha_t = 0.25 * target + 0.75 * (1 - target)
        loss = -alpha_t * (1 - p_t) ** 2 * torch.log(p_t)
        return (loss * (labels != -2)[:, None]).sum() / normalizer


def peak_gib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def step(height: int, width: int, textbook: bool) -> None:
    """One training step; prints seconds, peak memory and the loss."""
    torch.manual_seed(0)
    exp = RetinaNetExp()
    exp.num_classes, exp.cls_loss = 1203, "focal"
    model, criterion = exp.get_model().train(), exp.get_criterion()
    if textbook:
        criterion.cls_loss = TextbookFocal()
    optimizer = exp.get_optimizer(1, model)
    images = torch.rand(1, 3, height, width)
    corner = torch.rand(20, 2) * torch.tensor([width * 0.7, height * 0.7])
    boxes = torch.cat([corner, corner + 20 + torch.rand(20, 2) * 200], 1)
    before, start = peak_gib(), time.perf_counter()
    predictions, priors = model(images)
    losses = criterion(predictions, priors, [boxes], [torch.arange(20) * 60], [(height, width)])
    sum(losses.values()).backward()
    optimizer.step()
    print(
        f"{'textbook' if textbook else 'ours':<9} {height}x{width}  {len(priors.boxes):>8,} priors  one logits matrix "
        f"{len(priors.boxes) * 1203 * 4 / 2**30:.2f} GiB  peak {peak_gib():.2f} GiB (before the step {before:.2f})  "
        f"{time.perf_counter() - start:.0f} s  cls {losses['cls'].item():.6f} box {losses['box'].item():.6f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--height", type=int, default=800)
    parser.add_argument("--width", type=int, default=1344)
    parser.add_argument("--textbook", action="store_true", help="measure the textbook formulation too")
    parser.add_argument("--only", choices=("ours", "textbook"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.only:
        step(args.height, args.width, args.only == "textbook")
        return
    for name in ("ours", "textbook") if args.textbook else ("ours",):
        size = ["--height", str(args.height), "--width", str(args.width)]
        subprocess.run([sys.executable, "-m", "benchmarks.retinanet_memory", "--only", name, *size], check=True)


if __name__ == "__main__":
    main()
