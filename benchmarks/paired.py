"""Two ways to the same result, measured in turn in one process, so that a busy machine slows both.

    from benchmarks.paired import compare, print_header
    print_header()
    compare("sum of a million", lambda: x.sum(), lambda: loop(x), equal=torch.testing.assert_close, reach=10)

Seconds are medians with the quartiles in brackets. The ratio is the median over the pairs of (alternative / ours). Peak
memory is what a call adds to the memory in use before it, its result included: resident memory of the process on a CPU
(Linux only, nan elsewhere), allocated memory on a GPU.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import math
import os
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("GOMP_SPINCOUNT", "10000")

import torch

COLUMNS = ("what", "ours", "alternative", "ratio", "reach", "peak MiB", "alternative's")
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Measurement:
    """Seconds of each call and the peak memory of one call in MiB (nan where it cannot be read)."""

    seconds: list[float]
    peak: float

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    def __str__(self) -> str:
        low, high = self.seconds[0], self.seconds[-1]
        if len(self.seconds) > 1:
            low, _, high = statistics.quantiles(self.seconds, n=4, method="inclusive")
        unit, factor = ("s", 1) if self.median >= 1 else ("ms", 1e3) if self.median >= 1e-3 else ("us", 1e6)
        return f"{self.median * factor:.3g} {unit} ({low * factor:.3g} to {high * factor:.3g})"


@dataclass(frozen=True)
class Comparison:
    """Both sides of one row; `reach` is the ratio that is asked for, None for none."""

    name: str
    ours: Measurement
    other: Measurement
    reach: float | None = None

    @property
    def ratio(self) -> float:
        """Median over the pairs of the alternative's seconds by ours."""
        return statistics.median(b / a for a, b in zip(self.ours.seconds, self.other.seconds))

    def row(self) -> str:
        reach = "" if self.reach is None else f"{self.reach:g} {'yes' if self.ratio >= self.reach else 'MISSED'}"
        peaks = (f"{self.ours.peak:.1f}", f"{self.other.peak:.1f}")
        return table_row(self.name, str(self.ours), str(self.other), f"{self.ratio:.2f}", reach, *peaks)


def compare(
    name: str,
    ours: Callable[[], Any],
    other: Callable[[], Any],
    equal: Callable[[Any, Any], object],
    repeats: int = 9,
    reach: float | None = None,
    device: torch.device = CPU,
) -> Comparison:
    """Check that both give the same, measure them in turn, print one row of the table.

    Args:
        name: first column.
        ours, other: called without arguments; their results are compared once and then dropped.
        equal: called with both results, raises when they differ.
        repeats: pairs that are timed, after one call for the check and one for the memory.
        reach: least ratio asked for.
        device: where the work runs; calls on a GPU are waited for.
    """
    equal(ours(), other())
    peaks = peak_of(ours, device), peak_of(other, device)
    seconds: tuple[list[float], list[float]] = ([], [])
    for repeat in range(repeats):
        # Who goes first changes, so that neither always finds the other's traces in the caches.
        for side in (0, 1) if repeat % 2 == 0 else (1, 0):
            seconds[side].append(seconds_of((ours, other)[side], device))
    result = Comparison(name, Measurement(seconds[0], peaks[0]), Measurement(seconds[1], peaks[1]), reach)
    print(result.row(), flush=True)
    return result


def measure(call: Callable[[], Any], repeats: int = 5, device: torch.device = CPU) -> Measurement:
    """One side alone, for tables of growing work."""
    call()
    peak = peak_of(call, device)
    return Measurement([seconds_of(call, device) for _ in range(repeats)], peak)


def seconds_of(call: Callable[[], Any], device: torch.device = CPU) -> float:
    """Wall-clock seconds of one call; its result is dropped outside the measured time."""
    wait(device)
    start = time.perf_counter()
    result = call()
    wait(device)
    seconds = time.perf_counter() - start
    del result
    return seconds


def peak_of(call: Callable[[], Any], device: torch.device = CPU) -> float:
    """MiB that one call adds at most to the memory in use before it."""
    gc.collect()
    if device.type == "cuda":
        wait(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        result = call()
        wait(device)
        del result
        return (torch.cuda.max_memory_allocated(device) - before) / 2**20
    if platform.system() != "Linux":
        call()
        return math.nan
    ctypes.CDLL(None).malloc_trim(0)  # memory that the allocator keeps for later would hide what the call takes
    Path("/proc/self/clear_refs").write_text("5")  # sets VmHWM back to VmRSS
    before = status("VmRSS")
    result = call()
    peak = status("VmHWM") - before
    del result
    return peak / 1024


def status(field: str) -> int:
    """A field of /proc/self/status in KiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:"))


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def table_row(*cells: object) -> str:
    return "| " + " | ".join(str(cell) for cell in cells) + " |"


def print_header(*columns: str) -> None:
    """Names of the columns, those of `compare` unless given."""
    print(table_row(*(columns or COLUMNS)))
    print(table_row(*("---" for _ in columns or COLUMNS)), flush=True)


def parser(doc: str | None, repeats: int = 9, device: bool = False) -> argparse.ArgumentParser:
    """The options that the benchmarks share; `begin` reads them."""
    options = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--repeats", type=int, default=repeats, help="pairs that are timed (%(default)s)")
    options.add_argument("--threads", type=int, default=1, help="CPU threads (%(default)s)")
    if device:
        options.add_argument("--device", default="cpu", help="cpu or cuda (%(default)s)")
    return options


def begin(args: argparse.Namespace) -> torch.device:
    """Set threads and seed, say where the numbers come from; returns the device."""
    torch.manual_seed(0)
    torch.set_num_threads(args.threads)
    device = torch.device(getattr(args, "device", "cpu"))
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{processor()}, {args.threads} thread(s)"
    print(f"{name}, torch {torch.__version__}\n")
    return device


def processor() -> str:
    """The processor's name, or its kind where the system does not say."""
    info = Path("/proc/cpuinfo")
    names = (
        [line.split(":")[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
        if (info.exists())
        else []
    )
    return names[0] if names else platform.machine()
