"""Memory and open files of every process of a long training on the CPU (Linux).

    python -m benchmarks.long_run [--iterations 2000] [--workers 4]

The command `train` runs in a process of its own on small glyphs, with a checkpoint every 100 iterations. At every 50
iterations the memory and the open file descriptors of the process and of each loader process are read. Memory is the
proportional set size of what is not a mapped file: the share of one in a file depends on who else on the machine maps
it. Growth is the largest after the first 200 iterations by the one at 200; flat is a growth of at most 5 %. Of the
descriptors those that stay open show in the least number, because a checkpoint that is being written holds one for a
moment: that of the last ten readings must not be above that of the first ten after 200 iterations.
Batches on their way between processes hold others, one for each of their tensors. They come and go, and are counted
apart: a loader process has at most the four that it makes in advance and the one at hand.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

EXP = Path(__file__).resolve().parents[1] / "exps/glyphs/eqfl.py"
SETTINGS = (
    "num_classes 4 glyph_image_size 64 glyph_train_images 360 glyph_val_images 12 depth 0.33 width 0.125 "
    "input_size (64,64) test_size (64,64) batch_size 2 max_iter 100 no_aug_epochs 0 eval_interval 1000 "
    "print_interval 50 mosaic_prob 1.0 seed 3"
)
FIRST = 200  # iterations until everything that is kept has been allocated
GROWTH = 0.05  # that counts as flat
READINGS = 10  # at the beginning and at the end, whose least numbers of descriptors are compared
BATCH_DESCRIPTORS = 9  # tensors of a batch
MOST_BATCHES = 5  # of one loader process


@dataclass(frozen=True)
class Sample:
    """After `iteration` iterations: MiB of proportional set size, open files, and descriptors of batches' tensors."""

    iteration: int
    memory: float
    files: int
    tensors: int


def sample(process: int, iteration: int) -> Sample:
    rollup = Path(f"/proc/{process}/smaps_rollup").read_text()
    pss = sum(int(line.split()[1]) for line in rollup.splitlines() if line.startswith(("Pss_Anon:", "Pss_Shmem:")))
    names = targets(Path(f"/proc/{process}/fd"))
    tensors = sum(name.startswith("/dev/shm/torch_") for name in names)
    return Sample(iteration, pss / 1024, len(names) - tensors, tensors)


def targets(descriptors: Path) -> list[str]:
    """What the descriptors of a process stand for; one that is closed meanwhile is left out."""
    names = []
    for descriptor in descriptors.iterdir():
        with contextlib.suppress(FileNotFoundError):
            names.append(os.readlink(descriptor))
    return names


def children(process: int) -> list[int]:
    threads = Path(f"/proc/{process}/task").iterdir()
    return sorted(int(word) for thread in threads for word in (thread / "children").read_text().split())


def iterations_done(metrics: Path) -> int:
    """Of a run with rows at every print interval."""
    lines = metrics.read_text().splitlines() if metrics.exists() else []
    return json.loads(lines[-1])["iteration"] + 1 if lines else 0


def follow(process: subprocess.Popen[bytes], metrics: Path, iterations: int) -> dict[str, list[Sample]]:
    """Samples of the training process and its loader processes by name, until the last iteration."""
    found: dict[str, list[Sample]] = defaultdict(list)
    last = 0
    while process.poll() is None:
        done = iterations_done(metrics)
        if done > last and done < iterations:  # at the end the loader processes leave
            last = done
            for number, one in enumerate([process.pid, *children(process.pid)]):
                found["training process" if number == 0 else f"loader process {number}"].append(sample(one, done))
        time.sleep(0.2)
    if process.returncode:
        raise SystemExit(f"the training ended with status {process.returncode}")
    return found


def growth(samples: list[Sample]) -> tuple[float, int]:
    """(share by which the memory grew, descriptors that stayed open) after the first FIRST iterations."""
    first, *later = settled = [s for s in samples if s.iteration >= FIRST]
    least_first, least_last = (min(s.files for s in part) for part in (settled[:READINGS], settled[-READINGS:]))
    return max(s.memory for s in later) / first.memory - 1, least_last - least_first


def most_tensors(name: str, workers: int) -> int:
    """Descriptors that batches on their way may hold at a time in the process of that name."""
    return MOST_BATCHES * (workers if name == "training process" else 1) * BATCH_DESCRIPTORS


def measure(iterations: int, workers: int) -> dict[str, list[Sample]]:
    with tempfile.TemporaryDirectory(prefix="long_run_") as folder:
        words = ["-f", str(EXP), "-expn", "run", "--device", "cpu", "-d", "1", *SETTINGS.split()]
        words += ["max_epoch", str(iterations // 100), "data_num_workers", str(workers)]
        words += ["data_dir", f"{folder}/data", "output_dir", folder]
        tool = Path(__file__).resolve().parents[1] / "tools/train.py"
        with open(Path(folder, "log"), "wb") as log:
            process = subprocess.Popen(
                [sys.executable, str(tool), *words], stdout=log, stderr=log, env=os.environ | {"OMP_NUM_THREADS": "1"}
            )
            try:
                return follow(process, Path(folder, "run/metrics.jsonl"), iterations)
            finally:
                process.kill()
                process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--iterations", type=int, default=2000, help="a multiple of 100 (%(default)s)")
    parser.add_argument("--workers", type=int, default=4, help="loader processes (%(default)s)")
    args = parser.parse_args()
    found = measure(args.iterations, args.workers)
    from benchmarks.paired import print_header, table_row

    print_header("process", f"MiB at {FIRST}", "largest after", "at the end", "growth", "files", "stay open", "batches")
    flat = True
    for name, samples in found.items():
        share, more = growth(samples)
        later = [s for s in samples if s.iteration >= FIRST]
        values = (later[0].memory, max(s.memory for s in later[1:]), later[-1].memory)
        files = f"{min(s.files for s in later)} to {max(s.files for s in later)}"
        tensors = max(s.tensors for s in later)
        batches = f"{tensors / BATCH_DESCRIPTORS:.3g}"
        print(table_row(name, *(f"{v:.1f}" for v in values), f"{share:+.1%}", files, f"{more:+d}", batches))
        flat = flat and share <= GROWTH and more <= 0 and tensors <= most_tensors(name, args.workers)
    print(f"\nreach: growth of at most {GROWTH:.0%} and no file that stays open: {'yes' if flat else 'MISSED'}")
    sys.exit(not flat)


if __name__ == "__main__":
    main()
