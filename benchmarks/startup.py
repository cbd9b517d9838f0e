"""Seconds from the start of the train command to its first batch, phase by phase, on a data set of LVIS's size.

    python -m benchmarks.startup [-f exps/lvis/yolox_s_eqfl.py] [-b 64] [--repeats 5] [KEY VALUE ...]

The annotation files have LVIS's numbers of images, boxes and categories; 600 glyph images stand for all images. Every
start is a process of its own that runs `train` until the first batch is in hand. The first of them reads the annotation
files and writes their cache, the others find it. "path" is what had to be computed before the first batch: CPU seconds
of the process itself and of the worker that made the batch, where the process waits for it. With a free core for each
worker the clock shows as much; on a machine that does other work it shows more.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

REACH = 5.0  # seconds with a warm cache
IMAGES = 600
PHASES = ("imports", "options, checks", "annotations", "model, optimizer", "log, description", "workers, first batch")


class Clock:
    """Seconds and CPU seconds of consecutive phases; the first began when the parent started this process."""

    def __init__(self, start: float) -> None:
        self.last, self.last_cpu = start, 0.0
        self.phases: dict[str, tuple[float, float]] = {}

    def end(self, phase: str, more_cpu: float = 0.0) -> None:
        """`more_cpu`: of another process that this one waited for."""
        now, cpu = time.time(), time.process_time()
        self.phases[phase] = (now - self.last, cpu - self.last_cpu + more_cpu)
        self.last, self.last_cpu = now, cpu


def child(start: float, words: list[str]) -> None:
    """Run `train` up to the first batch and print the phases."""
    clock = Clock(start)
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")  # as the command does before it loads torch
    from yolox_lt.commands import run_command, train  # noqa: F401
    from yolox_lt.train import engine

    clock.end("imports")
    build_data, build_run, build_batches = engine.build_data, engine.build_run, engine.build_batches
    cpu_at_start_of_workers = 0.0

    def timed_data(*arguments: Any) -> Any:
        clock.end("options, checks")
        data = build_data(*arguments)
        clock.end("annotations")
        return data

    def timed_run(*arguments: Any) -> Any:
        run = build_run(*arguments)
        clock.end("model, optimizer")
        return run

    def timed_workers(*arguments: Any) -> Any:
        nonlocal cpu_at_start_of_workers
        cpu_at_start_of_workers = time.process_time()
        return build_batches(*arguments)

    def first_step(trainer: engine.Trainer, batches: Any) -> NoReturn:
        clock.end("log, description")
        next(batches).to(trainer.device)
        workers = getattr(batches, "_workers", [])
        meanwhile = time.process_time() - cpu_at_start_of_workers
        clock.end("workers, first batch", max(cpu_of(workers[0].pid) - meanwhile, 0.0) if workers else 0.0)
        print(json.dumps(clock.phases), flush=True)
        raise KeyboardInterrupt  # ends the command quietly, workers included

    engine.build_data, engine.build_run, engine.build_batches = timed_data, timed_run, timed_workers
    engine.Trainer.step = first_step  # type: ignore[assignment, method-assign]
    run_command("train", words)


def cpu_of(pid: int) -> float:
    """Seconds that another, running process has computed (Linux)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def prepare(folder: Path) -> None:
    """Annotation files of LVIS's size and the images they refer to."""
    from benchmarks import lvis_like  # not above: a child imports what the command imports, no more
    from yolox_lt.data.glyphs.make import write_glyphs

    glyphs = write_glyphs(folder / "glyphs", train_images=IMAGES, image_size=(480, 640))
    (folder / "train2017").mkdir()
    (folder / "annotations").mkdir()
    for number, image in enumerate(sorted(glyphs.train_images.iterdir())):
        image.rename(folder / "train2017" / f"{number:012d}.jpg")
    for split, images in (("train", lvis_like.TRAIN_IMAGES), ("val", lvis_like.VAL_IMAGES)):
        made = lvis_like.make(images, same_size=True)
        path = folder / "annotations" / f"lvis_v1_{split}.json"
        lvis_like.write(path, made, polygons=False, pictures=IMAGES)


def start_once(args: argparse.Namespace, folder: Path) -> np.ndarray:
    """float64 [phases, 2]: seconds, CPU seconds."""
    words = ["-f", args.exp_file, "-b", str(args.batch_size), "-d", "1"]
    words += ["data_dir", str(folder), "output_dir", str(folder / "runs"), *args.opts]
    command = [sys.executable, "-m", "benchmarks.startup", "--child", repr(time.time()), *words]
    done = subprocess.run(command, capture_output=True, text=True)
    if not done.stdout.strip():
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr}")
    phases = json.loads(done.stdout.strip().splitlines()[-1])
    return np.array([phases[phase] for phase in PHASES])


def report(args: argparse.Namespace, folder: Path) -> None:
    from benchmarks.paired import print_header, table_row

    runs = np.stack([start_once(args, folder) for _ in range(1 + args.repeats)])  # [runs, phases, 2]
    runs = np.concatenate([runs, runs.sum(axis=1, keepdims=True)], axis=1)
    print_header("phase", "no cache, s", "warm cache, s (least to most)", "path, CPU s (least to most)")
    for phase, (cold, *warm) in zip([*PHASES, "start to first batch"], runs.transpose(1, 0, 2)):
        middle, least, most = np.median(warm, axis=0), np.min(warm, axis=0), np.max(warm, axis=0)
        print(
            table_row(
                phase, f"{cold[0]:.2f}", *(f"{m:.2f} ({a:.2f} to {b:.2f})" for m, a, b in zip(middle, least, most))
            )
        )
    seconds = np.median(runs[1:, -1, 0])
    print(f"\nreach: {REACH:g} s with a warm cache: {seconds:.2f} s, {'yes' if seconds <= REACH else 'MISSED'}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-f", "--exp-file", default="exps/lvis/yolox_s_eqfl.py", help="experiment (%(default)s)")
    parser.add_argument("-b", "--batch-size", type=int, default=64, help="images of a batch (%(default)s)")
    parser.add_argument("--repeats", type=int, default=5, help="starts with a warm cache (%(default)s)")
    parser.add_argument("opts", nargs=argparse.REMAINDER, metavar="KEY VALUE", help="settings to override")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="startup_") as name:
        prepare(Path(name))
        report(args, Path(name))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        child(float(sys.argv[2]), sys.argv[3:])
    else:
        main()
