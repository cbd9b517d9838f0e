"""What a run leaves behind while it continues: log file, csv, jsonl, TensorBoard, progress bar."""

from __future__ import annotations

import csv
import io
import json
import math
import os
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
        start: iterations already done. total: those of the whole run, for the progress bar.
        rows: when resuming, the rows of metrics.jsonl that were there when the checkpoint was written; later ones are
            dropped. None for a new run, which leaves the figures of another one in the folder under other names.
    """

    def __init__(self, folder: Path | None, resume_epoch: int, start: int, total: int, rows: int | None = None) -> None:
        self.folder = folder
        self.total = total
        self.rows = 0
        self.started = time.time()
        self.start = start
        if folder is None:
            return
        folder.mkdir(parents=True, exist_ok=True)
        self.sink = logger.add(folder / "train.log", format=FORMAT, level="INFO", enqueue=False)
        remove_unfinished(folder)
        if rows is None:
            set_aside(folder)
        else:
            keep_csv_rows(folder / "metrics.csv", resume_epoch)
            self.rows = keep_json_rows(folder / "metrics.jsonl", rows)
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
        self.rows += 1
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
            file.flush()
            os.fsync(file.fileno())  # the checkpoint that comes after it is flushed too
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
    """A new run in the folder of another one: the other's figures and checkpoints stay under names with .previous."""
    names = ("metrics.csv", "metrics.jsonl", "latest.pth", "best.pth")
    kept = []
    for path in (folder / name for name in names):
        if path.exists():
            kept.append(path.with_name(f"{path.stem}.previous{path.suffix}"))
            path.replace(kept[-1])
    if kept:
        listed = ", ".join(path.name for path in kept)
        logger.warning(f"{folder}: holds another run, which is kept as {listed}; use -expn for a new folder")


def remove_unfinished(folder: Path) -> None:
    """What a checkpoint that was being written has left when its process was killed."""
    for path in folder.glob(".*.pth.*.tmp"):
        path.unlink(missing_ok=True)


def replace_text(path: Path, text: str) -> None:
    """Write a file again, whole or not at all."""
    temporary = path.with_name(f".{path.name}.tmp")
    with open(temporary, "w", newline="") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def keep_csv_rows(path: Path, last_epoch: int) -> None:
    """Drop rows of epochs after `last_epoch`."""
    if not path.exists():
        return
    with open(path, newline="") as file:
        rows = list(csv.reader(file))
    column = rows[0].index("epoch")
    kept = [rows[0]] + [r for r in rows[1:] if len(r) == len(rows[0]) and int(r[column]) <= last_epoch]
    text = io.StringIO(newline="")
    csv.writer(text).writerows(kept)
    replace_text(path, text.getvalue())


def keep_json_rows(path: Path, rows: int) -> int:
    """Keep the first `rows` rows, the others will be written again; returns how many there are."""
    if not path.exists():
        return 0
    kept = path.read_text().splitlines(keepends=True)[:rows]
    replace_text(path, "".join(kept))
    return len(kept)


def memory_megabytes(device: torch.device) -> float:
    """Peak memory of this process: allocated on the GPU, or resident on a CPU machine."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10
