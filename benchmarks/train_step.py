"""Images per second and peak memory of a training step: network, criterion, backward, optimiser; made-up images.

    python -m benchmarks.train_step -f exps/lvis/efl_r50.py --size 800 1344 -b 4 --iterations 50 [--bf16]

On a GPU if there is one. The first five iterations warm up and do not count.
"""

from __future__ import annotations

import argparse
import os
import platform
import resource
import statistics
import time
from collections.abc import Callable

os.environ.setdefault("GOMP_SPINCOUNT", "10000")

import torch

from yolox_lt.criterion import BaseCriterion
from yolox_lt.exp import DetectorExp, get_exp
from yolox_lt.train.memory import keep_large_blocks

WARMUP = 5


def objects(
    count: int, height: int, width: int, num_classes: int, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Boxes float32 [count, 4] inside the image and labels int64 [count]."""
    generator = torch.Generator().manual_seed(0)
    size = 16 + torch.rand(count, 2, generator=generator) * torch.tensor([width / 3, height / 3])
    corner = torch.rand(count, 2, generator=generator) * (torch.tensor([width, height]) - size)
    labels = torch.randint(num_classes, (count,), generator=generator)
    return torch.cat([corner, corner + size], 1).to(device), labels.to(device)


def make_step(
    exp: DetectorExp,
    batch: int,
    size: tuple[int, int],
    amp: torch.dtype | None,
    device: torch.device,
    criterion: BaseCriterion | None = None,
    compiled: bool = False,
) -> Callable[[], torch.Tensor]:
    """A training step that can be called again and again; it returns the loss.

    criterion: in place of the experiment's. compiled: the network by torch.compile.
    """
    if device.type == "cpu":
        keep_large_blocks()  # as the trainer does
    torch.manual_seed(0)
    model = exp.get_model().to(device, memory_format=torch.channels_last).train()
    network = torch.compile(model) if compiled else model
    criterion = (exp.get_criterion() if criterion is None else criterion).to(device)
    optimizer = exp.get_optimizer(batch, model)
    for group in optimizer.param_groups:
        group["lr"] = 1e-5  # made-up images: nothing to learn
    images = torch.randint(0, 255, (batch, 3, *size), dtype=torch.uint8, device=device)
    boxes, labels = objects(12, *size, exp.num_classes, device)

    preprocessor = exp.get_preprocessor().to(device)

    def step() -> torch.Tensor:
        network_input = preprocessor(images)
        with torch.autocast(device.type, dtype=amp, enabled=amp is not None):
            predictions, priors = network(network_input)
        losses = criterion(predictions, priors, [boxes] * batch, [labels] * batch, [size] * batch)
        optimizer.zero_grad(set_to_none=True)
        total = torch.stack(list(losses.values())).sum()
        total.backward()
        if exp.clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(model.parameters(), exp.clip_norm)
        optimizer.step()
        if device.type == "cuda":
            torch.cuda.synchronize()
        return total.detach()

    return step


def measure(
    exp: DetectorExp, batch: int, size: tuple[int, int], iterations: int, amp: torch.dtype | None, device: torch.device
) -> list[float]:
    """Seconds of each iteration."""
    step = make_step(exp, batch, size, amp, device)
    seconds = []
    for _ in range(WARMUP + iterations):
        start = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - start)
    return seconds[WARMUP:]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-f", "--exp-file", required=True)
    parser.add_argument("-b", "--batch-size", type=int, default=4)
    parser.add_argument("--size", type=int, nargs=2, default=(800, 1344), metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--iterations", type=int, default=50)
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("opts", nargs=argparse.REMAINDER, metavar="KEY VALUE")
    args = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    exp = get_exp(args.exp_file)
    exp.merge(args.opts)
    amp = torch.bfloat16 if args.bf16 else None
    seconds = measure(exp, args.batch_size, tuple(args.size), args.iterations, amp, device)
    name = torch.cuda.get_device_name() if device.type == "cuda" else f"cpu ({platform.machine()})"
    memory = (
        torch.cuda.max_memory_allocated() / 2**30
        if device.type == "cuda"
        else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    )
    median = statistics.median(seconds)
    print(
        f"{exp.exp_name} {args.batch_size}x{args.size[0]}x{args.size[1]} {exp.num_classes} categories "
        f"{'bf16' if args.bf16 else 'float32'} on {name}, torch {torch.__version__}: {args.batch_size / median:.2f} "
        f"images/s (median of {len(seconds)}, {min(seconds):.3f} to {max(seconds):.3f} s a step), peak {memory:.2f} GiB"
    )


if __name__ == "__main__":
    main()
