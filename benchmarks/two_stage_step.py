"""Time and peak memory of a training step and of a prediction of Faster R-CNN with 1203 categories, CPU, one image.

    python -m benchmarks.two_stage_step [--height 800] [--width 1344]

Each loss runs in a process of its own, whose peak resident memory is reported: ResNet-50, random weights, 20 objects;
the second of two steps is timed, by the clock and in seconds of cores. Then one prediction from the start values, where
a sigmoid classifier has every one of 1000 x 1203 pairs above the score threshold.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time

os.environ.setdefault("GOMP_SPINCOUNT", "10000")

import torch

from benchmarks.retinanet_memory import peak_gib
from yolox_lt.exp import TwoStageExp
from yolox_lt.train.memory import keep_large_blocks

KINDS = ("softmax", "eql", "eqlv2", "seesaw", "bags", "classifier")
"""The losses, and the second training of softmax."""


def measure(kind: str, height: int, width: int) -> None:
    """Two training steps and a prediction; prints a row of a table."""
    torch.manual_seed(0)
    keep_large_blocks()
    exp = TwoStageExp()
    exp.num_classes, exp.seed = 1203, 0
    exp.cls_loss, exp.classifier_only = ("softmax", True) if kind == "classifier" else (kind, False)
    exp.normed_classifier = kind == "seesaw"
    counts = (50_000 / torch.arange(1, 1204)).round()  # as long a tail as LVIS's
    exp.category_counts = tuple((counts / 100_000 if kind == "eql" else counts).tolist())
    model, criterion = exp.get_model().to(memory_format=torch.channels_last).train(), exp.get_criterion()
    optimizer = exp.get_optimizer(1, model)
    optimizer.param_groups[0]["lr"] = 0.0  # of random weights a real rate makes another network
    images = torch.rand(1, 3, height, width)
    corner = torch.rand(20, 2) * torch.tensor([width * 0.7, height * 0.7])
    boxes = torch.cat([corner, corner + 20 + torch.rand(20, 2) * 200], 1)
    before = peak_gib()
    for _ in range(2):
        start, processor = time.perf_counter(), time.process_time()
        optimizer.zero_grad(set_to_none=True)
        predictions, priors = model(images)
        losses = criterion(predictions, priors, [boxes], [torch.arange(20) * 60], [(height, width)])
        sum(losses.values()).backward()
        optimizer.step()
        seconds, processor = time.perf_counter() - start, time.process_time() - processor
    peak = peak_gib()
    model.eval()
    size = torch.tensor([[height, width]])
    with torch.no_grad():
        predictions, priors = model(images)
        start = time.perf_counter()
        found = exp.get_predictor()(predictions, priors, torch.ones(1, 2), size, size, (height, width))[0]
        second_stage = time.perf_counter() - start
    memory = f"{peak:.2f} GiB | {before:.2f} GiB"
    print(
        f"| {kind} | {seconds:.1f} s | {processor:.1f} s | {memory} | {second_stage:.2f} s, {len(found)} detections |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--height", type=int, default=800)
    parser.add_argument("--width", type=int, default=1344)
    parser.add_argument("--only", choices=KINDS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.only:
        measure(args.only, args.height, args.width)
        return
    print(f"{torch.get_num_threads()} thread(s), torch {torch.__version__}, {args.height} x {args.width} pixels\n")
    print("| loss | a step | of cores | peak | before the steps | proposals, second stage and NMS of a prediction |")
    print("| --- | --- | --- | --- | --- | --- |", flush=True)
    for kind in KINDS:
        size = ["--height", str(args.height), "--width", str(args.width)]
        subprocess.run([sys.executable, "-m", "benchmarks.two_stage_step", "--only", kind, *size], check=True)


if __name__ == "__main__":
    main()
