"""The first ten minutes with a GPU: kernel, steps, speed, host waits, switches, runs, NCCL, overflow.

    OUT=results python -m benchmarks.gpu_check [--parts 1,2,5] [--limit 600] [--wheels FOLDER]
    python -m benchmarks.gpu_check --device cpu --tiny          # a rehearsal on any machine, two minutes

Each part runs in a process of its own within its time limit, so that a crash, a hang or a full memory stops no other.
Every line is written at once, to the console and to gpu_check.txt; gpu_check.json has the figures, card, versions.
A part ends with PASS, FAIL (a check does not hold), MISSED REACH (a figure below what is asked for) or NOT RUN.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.gpu.report import FAIL, NOT_RUN, Report, Setup, read_result

NEEDED = ("loguru", "msgspec", "cv2", "yaml", "tqdm", "matplotlib", "tensorboard")
OPTIONAL = ("pycocotools", "lvis", "thop", "triton")


class Part(NamedTuple):
    """title: for people. module, function: where it is. seconds: its time limit on a GPU."""

    title: str
    module: str
    function: str
    seconds: int


PARTS = {
    1: Part("loss kernel", "kernel", "run", 120),
    2: Part("five steps, CPU against GPU", "training", "equal_steps", 60),
    3: Part("speed, memory, loader", "training", "speed", 210),
    4: Part("host waits and profile", "training", "host_waits", 60),
    5: Part("switches", "training", "switches", 150),
    6: Part("demo and predictor", "runs", "demo", 170),
    7: Part("NCCL, stop and resume", "runs", "nccl", 110),
    8: Part("fp16 overflow", "runs", "overflow", 60),
}


def missing(names: Sequence[str]) -> list[str]:
    """Those of the modules that cannot be imported here."""
    found = []
    for name in names:
        try:
            importlib.import_module(name)
        except Exception:  # a broken installation fails in any way
            found.append(name)
    return found


def machine() -> dict[str, Any]:
    """Card, driver and versions."""
    import torch

    found: dict[str, Any] = {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "cores": os.cpu_count(),
    }
    if torch.cuda.is_available():
        card = torch.cuda.get_device_properties(0)
        found |= {
            "card": card.name,
            "GiB": round(card.total_memory / 2**30, 1),
            "capability": f"{card.major}.{card.minor}",
            "cudnn": torch.backends.cudnn.version(),
        }
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        asked = subprocess.run(
            ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"],
            capture_output=True,
            text=True,
            timeout=20,
            check=True,
        )
        found["driver"] = asked.stdout.strip()
    with contextlib.suppress(ImportError):
        import triton

        found["triton"] = triton.__version__
    return found


def run_part(number: int, setup: Setup) -> None:
    """In the part's own process: run it and leave its result."""
    import torch

    part, report = PARTS[number], Report()
    if setup.device == "cpu":
        torch.set_num_threads(1)
    try:
        if setup.device == "cuda" and not torch.cuda.is_available():
            report.not_run("torch sees no GPU")
        else:
            function = getattr(importlib.import_module(f"benchmarks.gpu.{part.module}"), part.function)
            function(setup, report)
    except Exception as error:  # whatever it is, the other parts continue
        report.say(traceback.format_exc())
        report.check(f"{type(error).__name__}: {str(error)[:300]}", False)
    (setup.out / f"part_{number}.json").write_text(json.dumps(report.as_dict()), encoding="utf-8")


def watch(command: list[str], limit: float, write: Any) -> str | None:
    """Run a command in a process group of its own; its lines go to `write`. What ended it too early, or None."""
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )
    late = threading.Event()

    def end() -> None:
        late.set()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)

    timer = threading.Timer(limit, end)
    timer.start()
    assert process.stdout is not None  # a pipe
    for line in process.stdout:
        write(line.rstrip("\n"))
    status = process.wait()
    timer.cancel()
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)  # what the part has left running
    if late.is_set():
        return f"ended after its {limit:.0f} s"
    return None if status == 0 else f"ended with status {status}"


def main(words: Sequence[str] | None = None) -> int:
    """Run the parts one after the other; the status is 1 if a part failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", default=",".join(map(str, PARTS)), help="%(default)s")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path(os.environ.get("OUT", "gpu_check")),
        help="folder of results; $OUT if not given",
    )
    parser.add_argument(
        "--work",
        type=Path,
        default=Path(tempfile.gettempdir()) / "gpu_check",
        help="folder of data and runs (%(default)s)",
    )
    parser.add_argument("--limit", type=float, default=570, help="seconds for everything (%(default)s)")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--tiny", action="store_true", help="small sizes, for a rehearsal")
    parser.add_argument("--wheels", type=Path, help="folder of wheels for packages that this machine lacks")
    parser.add_argument("--part", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args(words)
    setup = Setup(args.device, args.tiny, args.out.resolve(), args.work.resolve())
    setup.out.mkdir(parents=True, exist_ok=True)
    setup.work.mkdir(parents=True, exist_ok=True)
    if args.part is not None:
        run_part(args.part, setup)
        return 0
    begun, results = time.monotonic(), {}
    with (setup.out / "gpu_check.txt").open("a", encoding="utf-8") as file:

        def write(line: str) -> None:
            print(line, flush=True)
            print(line, file=file, flush=True)

        if args.wheels is not None:
            install = [
                sys.executable,
                "-m",
                "pip",
                "install",
                "--quiet",
                "--no-index",
                "--no-deps",
                *map(str, sorted(args.wheels.glob("*.whl"))),
            ]
            watch(install, 120, write)
        lacking, about = missing(NEEDED), machine()
        write(f"machine: {json.dumps(about)}")
        write(f"cannot be imported: {', '.join([*lacking, *missing(OPTIONAL)]) or 'nothing'}")
        for number in map(int, args.parts.split(",")):
            part = PARTS[number]
            left = args.limit - (time.monotonic() - begun)
            write(f"== part {number}: {part.title}")
            result_file = setup.out / f"part_{number}.json"
            result_file.unlink(missing_ok=True)
            if left < 10:
                results[number] = {"verdict": NOT_RUN, "reason": "no time left", "figures": {}}
            else:
                command = [
                    sys.executable,
                    "-m",
                    "benchmarks.gpu_check",
                    "--part",
                    str(number),
                    "--out",
                    str(setup.out),
                    "--work",
                    str(setup.work),
                    "--device",
                    args.device,
                    *(["--tiny"] if args.tiny else []),
                ]
                ended = watch(command, min(part.seconds, left), lambda line, n=number: write(f"{n}| {line}"))
                found = read_result(result_file)
                result_file.unlink(missing_ok=True)
                results[number] = found or {"verdict": FAIL, "reason": ended or "left no result", "figures": {}}
            write(f"part {number}: {results[number]['verdict']} {results[number]['reason']}".rstrip())
        seconds = round(time.monotonic() - begun)
        content = {"machine": about, "lacking": lacking, "seconds": seconds, "parts": results}
        (setup.out / "gpu_check.json").write_text(json.dumps(content, indent=1), encoding="utf-8")
        write(f"\n| part | verdict | {seconds} s in all |\n|---|---|---|")
        for number, result in results.items():
            why = "; ".join([*result.get("failed", []), *result.get("missed", []), result["reason"]]).strip("; ")
            write(f"| {number} {PARTS[number].title} | {result['verdict']} | {why} |")
    return int(any(result["verdict"] == FAIL for result in results.values()))


if __name__ == "__main__":
    sys.exit(main())
