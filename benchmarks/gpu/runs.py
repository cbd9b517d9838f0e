"""Parts 6 to 8: whole runs through the command line, NCCL with one process, and an fp16 overflow."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu.report import Report, Setup
from benchmarks.gpu.steps import ROOT, experiment, make_steps, peak_gib, reset_peak, seconds_of

DEMO = "exps/glyphs/eqfl.py"
SMALL = (
    "num_classes 4 glyph_image_size 64 glyph_train_images 360 glyph_val_images 12 width 0.125 "
    "input_size (64,64) test_size (64,64)"
)


def settings(setup: Setup, name: str, folder: Path, *more: object) -> list[str]:
    """Overrides of a run of the demo's experiment: its name, folders, and small sizes in a rehearsal."""
    words = [*SMALL.split(), "max_iter", "4"] if setup.tiny else []
    return [*map(str, ("exp_name", name, "output_dir", folder, *more)), *words]


def train(setup: Setup, words: list[str], device: str, *options: str) -> subprocess.Popen[str]:
    """Start tools/train.py on one device."""
    command = [sys.executable, "tools/train.py", "-f", DEMO, "-d", "1", "--device", device, *options, *words]
    environment = os.environ | {"YOLOX_DATADIR": str(setup.work)}
    log = open(setup.out / f"train_{words[1]}.log", "w")  # noqa: SIM115  it belongs to the process
    return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log, text=True)


def last_ap(folder: Path) -> float:
    """AP in percent of the last row of metrics.csv."""
    with (folder / "metrics.csv").open(newline="") as file:
        return 100 * float(list(csv.DictReader(file))[-1]["AP"])


def demo(setup: Setup, report: Report) -> None:
    """Part 6: the demo's run in every precision side by side, the CPU's AP of one of them; predictor; memory."""
    folder = setup.work / "demo"
    epochs = 2 if setup.tiny else 3
    run = ("max_epoch", epochs, "no_aug_epochs", 0, "eval_interval", epochs)
    options: dict[str, tuple[str, ...]] = {"fp32": (), "bf16": ("--bf16",)}
    if setup.device == "cuda":
        options["fp16"] = ("--fp16",)
    # The data set is written once, before the runs share it.
    words = settings(setup, "data", folder, "max_epoch", 1)
    environment = os.environ | {"YOLOX_DATADIR": str(setup.work)}
    subprocess.run(
        [sys.executable, "tools/inspect_data.py", "-f", DEMO, "--pictures", "0", *words],
        cwd=ROOT,
        check=True,
        stdout=subprocess.DEVNULL,
        env=environment,
    )
    begun, found = time.perf_counter(), {}
    runs = {
        name: train(setup, settings(setup, name, folder, *run), setup.device, *more) for name, more in options.items()
    }
    for name, process in runs.items():
        status = process.wait()
        report.check(f"demo {name}: exit status 0", status == 0)
        if status == 0:
            found[name] = last_ap(folder / name)
            report.figure(f"demo {name}: AP after {epochs} epochs", found[name])
    report.figure("demo: seconds of all precisions side by side", time.perf_counter() - begun, "s")
    if "fp32" in found:
        found["cpu"] = ap_on_cpu(setup, folder / "fp32/latest.pth")
        report.figure("demo fp32: AP of the same weights on the CPU", found["cpu"])
    if found:
        spread = max(found.values()) - min(found.values())
        report.reach("largest difference of the demo's AP", spread, 1.0, at_least=False)
    predictor(setup, report)


def ap_on_cpu(setup: Setup, checkpoint: Path) -> float:
    """AP in percent by tools/eval.py on the CPU, as mean over the categories that have one."""
    table = setup.out / "on_cpu.csv"
    command = [sys.executable, "tools/eval.py", "-f", DEMO, "-c", str(checkpoint), "-d", "1", "--device", "cpu"]
    subprocess.run(
        [*command, "--csv", str(table)],
        cwd=ROOT,
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"YOLOX_DATADIR": str(setup.work)},
    )
    with table.open(newline="") as file:
        values = [row["AP"] for row in csv.DictReader(file)]
    numbers = [float(value) for value in values if value not in ("", "-", "nan")]
    return 100 * sum(numbers) / len(numbers)


def predictor(setup: Setup, report: Report) -> None:
    """Milliseconds an image from network output to detections, and peak memory at LVIS's shape and -b 64."""
    device = torch.device(setup.device)
    batch, side = (2, 64) if setup.tiny else (64, 640)
    exp = experiment("lvis/yolox_m_eqfl.py", **({"width": 0.125, "num_classes": 30} if setup.tiny else {}))
    steps = make_steps(exp, device, batch, (side, side))
    model, find = steps.model.eval(), exp.get_predictor()
    sizes = torch.full((batch, 2), side)
    ones = torch.ones(batch, 2)
    half = None if device.type == "cpu" else torch.bfloat16
    with torch.inference_mode(), torch.autocast(device.type, dtype=half, enabled=half is not None):
        images = steps.preprocessor(steps.images)
        predictions, priors = model(images)
        seconds = seconds_of(lambda: find(predictions, priors, ones, sizes, sizes, (side, side)), device, 2, 5)
        report.figure("predictor", 1e3 * seconds / batch, "ms an image")
        del predictions
        reset_peak(device)
        predictions, priors = model(images)
        find(predictions, priors, ones, sizes, sizes, (side, side))
    if device.type == "cuda":
        report.figure(f"evaluation of LVIS shape at -b {batch}, peak", peak_gib(device), "GiB")


def nccl(setup: Setup, report: Report) -> None:
    """Part 7: torchrun with one process: start, SIGTERM, resume bit for bit with `deterministic True`."""
    folder = setup.work / "nccl"
    data = os.environ | {"YOLOX_DATADIR": str(setup.work)}
    common = ("max_epoch", 1, "no_aug_epochs", 0, "deterministic", "True", "data_num_workers", 1, "max_iter", 40)

    def start(name: str, *options: str) -> subprocess.Popen[str]:
        words = settings(setup, name, folder, *common)
        words[words.index("max_iter") + 1] = "12" if setup.tiny else "40"
        if setup.tiny:
            del words[-2:]
        command = [
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--standalone",
            "--nproc-per-node",
            "1",
            "tools/train.py",
            "-f",
            DEMO,
            "--device",
            setup.device,
            *options,
            *words,
            "print_interval",
            "1",
        ]
        log = open(setup.out / f"torchrun_{name}.log", "w")  # noqa: SIM115  it belongs to the process
        return subprocess.Popen(command, cwd=ROOT, env=data, stdout=log, stderr=log, text=True)

    begun = time.perf_counter()
    status = start("whole").wait()
    report.figure("torchrun, one process: seconds", time.perf_counter() - begun, "s")
    report.check("torchrun, one process: exit status 0", status == 0)
    process = start("stopped")
    rows = folder / "stopped/metrics.jsonl"
    while process.poll() is None and not (rows.is_file() and len(rows.read_text().splitlines()) >= 4):
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    process.wait()
    latest = folder / "stopped/latest.pth"
    report.check("SIGTERM: latest.pth is there", latest.is_file())
    if not latest.is_file() or status != 0:
        return
    stopped = torch.load(latest, map_location="cpu", weights_only=True)["iteration"]
    report.figure("SIGTERM: stopped after iteration", int(stopped))
    report.check("resume: exit status 0", start("stopped", "--resume").wait() == 0)
    whole, resumed = (
        torch.load(folder / name / "latest.pth", map_location="cpu", weights_only=True) for name in ("whole", "stopped")
    )
    for part in ("model", "criterion"):
        same = all(torch.equal(value, resumed[part][name]) for name, value in whole[part].items())
        report.check(f"resumed run equals the uninterrupted one bit for bit: {part}", same)


def overflow(setup: Setup, report: Report) -> None:
    """Part 8: a loss scale that overflows leaves weights, average and statistic as they were."""
    from yolox_lt.distributed.processes import ProcessInfo
    from yolox_lt.exp import get_exp
    from yolox_lt.train.engine import Trainer
    from yolox_lt.train.options import TrainOptions

    device = torch.device(setup.device)
    exp = get_exp(ROOT / DEMO)
    exp.merge([*SMALL.split(), "max_iter", "8", "max_epoch", "1", "no_aug_epochs", "0", "data_num_workers", "0"])
    exp.data_dir = str(setup.work / "tiny")
    exp.output_dir, exp.exp_name = str(setup.work / "overflow"), "overflow"
    seen: list[tuple[bool, bool]] = []

    def huge_scale(run: Any) -> None:
        run.scaler = torch.amp.GradScaler(device.type, init_scale=2.0**126, backoff_factor=2.0**-60)

    def state(run: Any) -> dict[str, torch.Tensor]:
        parts = {"model": run.model, "ema": run.ema.model, "criterion": run.criterion}
        tensors = {f"{n}.{k}": v for n, part in parts.items() for k, v in part.state_dict().items()}
        # The forward pass of the model moves its own BatchNorm statistics, overflow or not.
        return {
            k: v.clone()
            for k, v in tensors.items()
            if k.startswith("ema") or not ("running_" in k or "num_batches" in k)
        }

    class Watched(Trainer):
        def step(self, batches: Any) -> dict[str, float]:
            before, scale = state(self.run), self.run.scaler.get_scale()
            losses = super().step(batches)
            overflowed = self.run.scaler.get_scale() < scale
            same = all(torch.equal(v, before[k]) for k, v in state(self.run).items())
            seen.append((overflowed, same))
            return losses

    exp.on_train_start = huge_scale
    half = torch.float16 if device.type == "cuda" else None
    Watched(exp, TrainOptions(4, ProcessInfo(0, 1, device), half)).train()
    report.say(f"steps (overflowed, nothing changed): {json.dumps(seen)}")
    report.figure("steps that overflowed", sum(overflowed for overflowed, _ in seen))
    report.check("at least one step overflowed and one did not", {o for o, _ in seen} == {True, False})
    report.check("overflowed steps changed nothing, the others something", all(o == same for o, same in seen))
