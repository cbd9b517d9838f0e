"""What a run leaves behind while it goes on: log file, csv, jsonl, TensorBoard, progress bar."""

from __future__ import annotations

import csv
import json
import math
import sys
import time
from pathlib import Path

import torch
from loguru import logger
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

FORMAT = "{time:YYYY-MM-DD HH:mm:ss} | {level: <7} | {message}"


def setup_console(verbose: bool = True) -> None:
    """Log to standard error through tqdm, so that lines and the progress bar do not tear each other."""
    logger.remove()
    if verbose:
        logger.add(lambda line: tqdm.write(line, file=sys.stderr, end=""), format=FORMAT, level="INFO", colorize=None)


class RunLog:
    """Writers of one run folder; on ranks other than 0 every method does nothing.

    Args:
        folder: run folder, created if need be; None for a rank that does not write.
        resume_epoch: when resuming, rows of later epochs are dropped from metrics.csv; they come again.
        total: iterations of the whole run, for the progress bar.
        start: iterations already done.
    """

    def __init__(self, folder: Path | None, resume_epoch: int, start: int, total: int) -> None:
        self.folder = folder
        self.total = total
        self.started = time.time()
        self.start = start
        if folder is None:
            return
        folder.mkdir(parents=True, exist_ok=True)
        self.sink = logger.add(folder / "train.log", format=FORMAT, level="INFO", enqueue=False)
        if start == 0:
            set_aside(folder)
        keep_csv_rows(folder / "metrics.csv", resume_epoch)
        keep_json_rows(folder / "metrics.jsonl", start)
        self.board = SummaryWriter(str(folder), purge_step=start)
        # A bar on a terminal, plain lines elsewhere.
        self.bar = tqdm(total=total, initial=start, dynamic_ncols=True, unit="it") if sys.stderr.isatty() else None

    def step(self, iteration: int, values: dict[str, float] | None) -> None:
        """One iteration done (0-based); `values` at print intervals only."""
        if self.folder is None:
            return
        if self.bar is not None:
            self.bar.update(1)
        if values is None:
            return
        with open(self.folder / "metrics.jsonl", "a") as file:
            file.write(json.dumps({"iteration": iteration} | finite(values)) + "\n")
        for name, value in values.items():
            self.board.add_scalar(f"train/{name}", value, iteration)
        if self.bar is not None:
            self.bar.set_postfix_str(" ".join(f"{k} {v:.4g}" for k, v in values.items() if k != "epoch"))
        else:
            text = " | ".join(f"{name} {value:.4g}" for name, value in values.items())
            logger.info(f"iteration {iteration + 1}/{self.total} | {text} | ETA {self.eta(iteration)}")

    def eta(self, iteration: int) -> str:
        done = iteration + 1 - self.start
        seconds = (time.time() - self.started) / max(done, 1) * (self.total - iteration - 1)
        return time.strftime("%H:%M:%S", time.gmtime(seconds)) if seconds < 86400 else f"{seconds / 86400:.1f} days"

    def epoch(self, row: dict[str, float]) -> None:
        """One row of metrics.csv; a metric that was not measured or is not defined stays empty."""
        if self.folder is None:
            return
        path = self.folder / "metrics.csv"
        new = not path.exists()
        with open(path, "a", newline="") as file:
            writer = csv.writer(file)
            if new:
                writer.writerow(row)
            writer.writerow(["" if isinstance(v, float) and math.isnan(v) else v for v in row.values()])
        for name, value in row.items():
            if not math.isnan(value):
                self.board.add_scalar(f"epoch/{name}", value, int(row["epoch"]))
        self.board.flush()

    def close(self) -> None:
        if self.folder is None:
            return
        if self.bar is not None:
            self.bar.close()
        self.board.close()
        logger.remove(self.sink)


def finite(values: dict[str, float]) -> dict[str, float | None]:
    """JSON has no NaN: undefined values become null."""
    return {k: v if math.isfinite(v) else None for k, v in values.items()}


def set_aside(folder: Path) -> None:
    """A new run in the folder of another one: the other's figures stay under the names metrics.previous.*."""
    for name in ("metrics.csv", "metrics.jsonl"):
        path = folder / name
        if path.exists():
            kept = path.with_name(name.replace("metrics", "metrics.previous"))
            path.replace(kept)
            logger.warning(
                f"{folder}: holds another run, whose figures are kept as {kept.name}; use -expn for a new folder"
            )


def keep_csv_rows(path: Path, last_epoch: int) -> None:
    """Drop rows of epochs after `last_epoch`."""
    if not path.exists():
        return
    with open(path, newline="") as file:
        rows = list(csv.reader(file))
    column = rows[0].index("epoch")
    kept = [rows[0]] + [r for r in rows[1:] if len(r) == len(rows[0]) and int(r[column]) <= last_epoch]
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows(kept)


def keep_json_rows(path: Path, iterations: int) -> None:
    """Drop rows of iterations that will be run again, and a last line that was cut off."""
    if not path.exists():
        return
    kept = []
    for line in path.read_text().splitlines():
        if line.endswith("}") and json.loads(line)["iteration"] < iterations:
            kept.append(line + "\n")
    path.write_text("".join(kept))


def memory_megabytes(device: torch.device) -> float:
    """Peak memory of this process: allocated on the GPU, or resident on a CPU machine."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10
