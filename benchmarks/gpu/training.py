"""Parts 2 to 5: equal steps on CPU and GPU, speed and memory of a training, host waits, switches."""

from __future__ import annotations

import collections
import contextlib
import math
import os
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from benchmarks.gpu.report import Report, Setup
from benchmarks.gpu.steps import experiment, make_steps, peak_gib, reset_peak, seconds_of, wait

PRECISIONS: dict[str, torch.dtype | None] = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}
TINY = {"width": 0.125, "depth": 0.33, "num_classes": 30}


def yolox_m(setup: Setup) -> Any:
    """YOLOX-M* with EQFL and 1203 categories, or a small one."""
    return experiment("lvis/yolox_m_eqfl.py", **(TINY if setup.tiny else {}))


def equal_steps(setup: Setup, report: Report) -> None:
    """Part 2: five steps from seed 0 on the CPU and on the GPU in float32.

    A step with a high learning rate turns a difference in the last digit into another assignment. So beside the two
    runs, runs on the CPU whose weights are moved by 1e-7 of themselves say what rounding alone does.
    """
    torch.backends.cudnn.allow_tf32 = False
    for lr in (1e-5, 1e-3):
        cpu, gpu, *moved = (five_steps(setup, device, lr, seed) for device, seed in runs_of(setup))
        for step, (a, b) in enumerate(zip(cpu.losses, gpu.losses), 1):
            report.say(f"lr {lr:g}, step {step}: cpu {show(a)}; {setup.device} {show(b)}")
        first, last = (relative(cpu.losses[i], gpu.losses[i]) for i in (0, -1))
        report.figure(f"lr {lr:g}: losses of step 1, largest relative difference", first)
        report.figure(f"lr {lr:g}: losses of step 5, largest relative difference", last)
        by_rounding = max(relative(cpu.losses[-1], other.losses[-1]) for other in moved)
        report.figure(f"lr {lr:g}: the same on the CPU from weights moved by 1e-7, at most", by_rounding)
        for name in ("sums", "weights"):
            a, b = getattr(cpu, name), getattr(gpu, name)
            difference = float((a - b).norm() / a.norm())
            report.figure(f"lr {lr:g}: {name} after 5 steps, relative difference", difference)
        report.check(f"lr {lr:g}: losses of step 1 equal to 1e-3", first < 1e-3)
        allowed = 2e-2 if lr < 1e-4 else max(2e-2, 3 * by_rounding)
        report.check(f"lr {lr:g}: losses of step 5 equal to {allowed:.1e}", last < allowed)


def runs_of(setup: Setup) -> list[tuple[torch.device, int | None]]:
    """CPU and GPU as they are, then the CPU from moved weights; device and seed of the move."""
    cpu = torch.device("cpu")
    return [(cpu, None), (torch.device(setup.device), None), *((cpu, seed) for seed in range(3))]


class Run(NamedTuple):
    """losses: of every step. sums: [2, C] positive and negative gradients of the balance. weights: in one vector."""

    losses: list[dict[str, float]]
    sums: torch.Tensor
    weights: torch.Tensor


def five_steps(setup: Setup, device: torch.device, lr: float, seed: int | None) -> Run:
    """Of a small YOLOX; with a seed its weights are moved by 1e-7 of themselves first."""
    settings = {"num_classes": 30, "width": 0.25, "depth": 0.33}
    size, batch = ((64, 64), 2) if setup.tiny else ((256, 256), 4)
    steps = make_steps(experiment("lvis/yolox_m_eqfl.py", **settings), device, batch, size, lr=lr)
    if seed is not None:
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for p in steps.model.parameters():
                p.mul_(1 + 1e-7 * torch.randn(p.shape, generator=generator))
    losses = [{k: float(v.detach()) for k, v in steps().items()} for _ in range(5)]
    weights = torch.cat([p.detach().flatten().double().cpu() for p in steps.model.parameters()])
    balance = steps.criterion.cls_loss.balance
    return Run(losses, torch.stack([balance.pos_grad, balance.neg_grad]).cpu().double(), weights)


def relative(a: dict[str, float], b: dict[str, float]) -> float:
    """Largest difference of two sets of losses, as a share of the loss."""
    return max(abs(value - b[name]) / max(abs(value), 1e-6) for name, value in a.items())


def show(losses: dict[str, float]) -> str:
    """Losses in one line."""
    return " ".join(f"{name} {value:.5g}" for name, value in losses.items())


def speed(setup: Setup, report: Report) -> None:
    """Part 3: images a second, memory, skipped steps; the loader; the textbook; the ResNet."""
    device = torch.device(setup.device)
    side, batches, repeats = (64, (2,), 2) if setup.tiny else (640, (32, 64), 40)
    found: dict[tuple[int, str], float] = {}
    for batch in batches:
        for name, amp in PRECISIONS.items():
            if device.type == "cpu" and name == "fp16":
                continue
            with told(report, f"batch {batch} {name}"):
                found[batch, name] = one_speed(
                    report, f"YOLOX-M* {name} batch {batch}", yolox_m(setup), device, batch, (side, side), amp, repeats
                )
    for batch in batches:
        if (batch, "fp32") in found and (batch, "bf16") in found and device.type == "cuda":
            report.reach(f"bf16 over fp32, batch {batch}", found[batch, "bf16"] / found[batch, "fp32"], 1.5)
    with told(report, "textbook"):
        from benchmarks.training import textbook_criterion

        exp = yolox_m(setup)
        own = max(side, 256)  # ATSS by its definition needs 18 priors on every level
        steps = make_steps(exp, device, batches[0], (own, own), criterion=textbook_criterion(exp))
        rate = batches[0] / seconds_of(steps, device, 2, max(repeats // 8, 1))
        report.figure(f"textbook loss and definition of ATSS, fp32 batch {batches[0]}", rate, "images/s")
        if (batches[0], "fp32") in found:
            report.figure("ours over the textbook", found[batches[0], "fp32"] / rate, "times")
    with told(report, "efl_r50"):
        small = {"resnet_depth": 18, "fpn_channels": 32, "num_classes": 30, "backbone_weights": None}
        exp = experiment("lvis/efl_r50.py", **(small if setup.tiny else {"backbone_weights": None}))
        one_speed(
            report,
            "efl_r50 fp32 800 x 1344 batch 4",
            exp,
            device,
            1 if setup.tiny else 4,
            (64, 96) if setup.tiny else (800, 1344),
            None,
            1 if setup.tiny else 15,
        )
    with told(report, "loader"):
        loader_wait(setup, report)


def one_speed(
    report: Report,
    name: str,
    exp: Any,
    device: torch.device,
    batch: int,
    size: tuple[int, int],
    amp: torch.dtype | None,
    repeats: int,
) -> float:
    """Images a second of steps on made-up images; says memory and skipped steps."""
    reset_peak(device)
    steps = make_steps(exp, device, batch, size, amp)
    rate = batch / seconds_of(steps, device, 3, repeats)
    report.figure(name, rate, "images/s")
    if device.type == "cuda":
        report.figure(f"{name}, peak", peak_gib(device), "GiB")
    if amp == torch.float16:
        report.figure(f"{name}, skipped steps", steps.skipped)
    return rate


@contextlib.contextmanager
def told(report: Report, what: str) -> Iterator[None]:
    """An error here is a failed check, and the rest of the part continues."""
    try:
        yield
    except Exception as error:
        report.check(f"{what}: {type(error).__name__}: {str(error)[:300]}", False)
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def loader_wait(setup: Setup, report: Report) -> None:
    """Share of a real training's time in which the step waits for its batch."""
    from benchmarks.gpu.data import lvis_like_set
    from yolox_lt.distributed.processes import ProcessInfo
    from yolox_lt.train.engine import Trainer
    from yolox_lt.train.options import TrainOptions

    device = torch.device(setup.device)
    folder = setup.work
    data = lvis_like_set(folder / "lvis", 60 if setup.tiny else 1500)
    exp = yolox_m(setup)
    exp.num_classes = 1203
    exp.data_dir, exp.output_dir, exp.exp_name = str(data), str(folder / "runs"), "loader"
    exp.train_ann, exp.val_ann, exp.keep_empty = "train.json", "val.json", True
    exp.train_images = exp.val_images = None  # as coco_url says
    steps, warm = (3, 1) if setup.tiny else (60, 20)
    exp.max_iter, exp.max_epoch, exp.data_num_workers = steps, 1, 0 if setup.tiny else min(os.cpu_count() or 1, 15)
    exp.trackers, exp.print_interval = (), 1000
    if setup.tiny:
        exp.input_size = exp.test_size = (64, 64)
        exp.multiscale_range = 0
    waits: list[float] = []
    marks: list[float] = []

    class Timed(Trainer):
        def batches(self, *position: Any) -> Iterator[Any]:
            stream = super().batches(*position)
            while True:
                wait(device)
                start = time.perf_counter()
                try:
                    batch = next(stream)
                except StopIteration:
                    return
                marks.append(start)
                waits.append(time.perf_counter() - start)
                yield batch

        def evaluate(self) -> None:
            return None

    batch = 2 if setup.tiny else 32
    Timed(exp, TrainOptions(batch, ProcessInfo(0, 1, device), None if device.type == "cpu" else torch.bfloat16)).train()
    measured = slice(warm, None)
    total = marks[-1] - marks[warm] + waits[-1]
    share = sum(waits[measured]) / total
    report.figure("images/s of a real training, bf16", batch * (len(marks) - warm) / total, "images/s")
    if device.type == "cuda":
        report.reach("share of time waiting for the loader", share, 0.1, at_least=False)
    else:
        report.figure("share of time waiting for the loader", share)


def host_waits(setup: Setup, report: Report) -> None:
    """Part 4: places of a step where the host waits for the GPU, and its kernels by time."""
    device = torch.device(setup.device)
    batch, side = (2, 64) if setup.tiny else (32, 640)
    steps = make_steps(yolox_m(setup), device, batch, (side, side), None if device.type == "cpu" else torch.bfloat16)
    for _ in range(3):
        steps()
    wait(device)
    if device.type == "cuda":
        places: collections.Counter[str] = collections.Counter()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            steps()
            torch.cuda.set_sync_debug_mode("default")
        for warning in caught:
            if "synchroniz" in str(warning.message):
                places[f"{Path(warning.filename).name}:{warning.lineno}"] += 1
        for place, count in places.most_common():
            report.say(f"host waits at {place}: {count}")
        report.reach("host waits of a step", sum(places.values()), 3, at_least=False)
    kinds = [torch.profiler.ProfilerActivity.CPU]
    if device.type == "cuda":
        kinds.append(torch.profiler.ProfilerActivity.CUDA)
    with torch.profiler.profile(activities=kinds) as profile:
        steps()
        wait(device)
    order = "self_cuda_time_total" if device.type == "cuda" else "self_cpu_time_total"
    table = profile.key_averages().table(sort_by=order, row_limit=25, max_name_column_width=60)
    (setup.out / "profile.txt").write_text(table, encoding="utf-8")
    report.figure("events of the profiled step", len(profile.key_averages()))
    for line in table.splitlines()[:14]:
        report.say(line[:170])


def switches(setup: Setup, report: Report) -> None:
    """Part 5: TF32, cudnn.benchmark, channels-last and torch.compile, one at a time."""
    device = torch.device(setup.device)
    batch, side, repeats = (2, 64, 1) if setup.tiny else (32, 640, 20)

    def rate(amp: torch.dtype | None = None, **options: Any) -> float:
        reset_peak(device)
        return batch / seconds_of(
            make_steps(yolox_m(setup), device, batch, (side, side), amp, **options), device, 3, repeats
        )

    with told(report, "TF32"):
        plain = rate()
        report.figure("fp32, matmul in strict float32", plain, "images/s")
        torch.set_float32_matmul_precision("high")
        report.figure("fp32 with TF32 matmul", rate() / plain, "times")
        torch.set_float32_matmul_precision("highest")
    half = None if device.type == "cpu" else torch.bfloat16
    with told(report, "cudnn.benchmark"):
        plain = rate(half)
        torch.backends.cudnn.benchmark = True
        report.figure("bf16 with cudnn.benchmark", rate(half) / plain, "times")
        torch.backends.cudnn.benchmark = False
    with told(report, "channels-last"):
        small = {"resnet_depth": 18, "fpn_channels": 32, "num_classes": 30, "backbone_weights": None}
        size = (64, 96) if setup.tiny else (800, 1344)
        rates = []
        for channels_last in (True, False):
            exp = experiment("lvis/efl_r50.py", **(small if setup.tiny else {"backbone_weights": None}))
            steps = make_steps(exp, device, 1 if setup.tiny else 4, size, half, channels_last=channels_last)
            rates.append(1 / seconds_of(steps, device, 3, max(repeats // 2, 1)))
        report.figure("efl_r50 in channels-last over contiguous", rates[0] / rates[1], "times")
    for compiled_side in (side, side * 4 // 5 // 32 * 32):
        if device.type == "cpu":
            report.say("torch.compile: not rehearsed on a CPU")
            break
        with told(report, f"compile at {compiled_side}"):
            size = (compiled_side, compiled_side)
            plain = batch / seconds_of(make_steps(yolox_m(setup), device, batch, size, half), device, 3, repeats)
            steps = make_steps(yolox_m(setup), device, batch, size, half, wrap=compiled)
            report.figure(
                f"bf16 compiled at {compiled_side}", batch / seconds_of(steps, device, 4, repeats) / plain, "times"
            )
    report.check("figures are finite", all(math.isfinite(v) for v in report.figures.values() if isinstance(v, float)))


def compiled(model: nn.Module) -> nn.Module:
    """torch.compile of a model."""
    return torch.compile(model)  # type: ignore[return-value]
