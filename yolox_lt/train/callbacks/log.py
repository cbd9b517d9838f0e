"""What a run leaves behind while it continues: log file, csv, jsonl, TensorBoard, progress bar."""

from __future__ import annotations

import csv
import io
import itertools
import json
import math
import os
import sys
import time
from pathlib import Path

from loguru import logger
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from yolox_lt.checkpoint import numbered_checkpoints
from yolox_lt.train.callbacks.callback import Callback, EpochRecord
from yolox_lt.train.state import RunState

PREFIX = "{time:YYYY-MM-DD HH:mm:ss} | {level: <7} | "
FORMAT = PREFIX + "{message}"


def setup_console(rank: int = 0) -> None:
    """Log to standard error through tqdm, so that lines and the progress bar do not tear each other.

    Ranks other than 0 log warnings and errors alone, with their number.
    """
    logger.remove()
    level, form = ("INFO", FORMAT) if rank == 0 else ("WARNING", f"{PREFIX}rank {rank}: {{message}}")
    logger.add(lambda line: tqdm.write(line, file=sys.stderr, end=""), format=form, level=level, colorize=None)


class RunLog(Callback):
    """Log file, metrics.csv, metrics.jsonl, TensorBoard and progress bar of a run's folder, on rank 0.

    Args:
        run: at its start. resumed: rows of later epochs are dropped from metrics.csv, and those that the checkpoint
            does not know from metrics.jsonl: they come again. A new run leaves the figures of another one in the
            folder under other names.
    """

    def __init__(self, run: RunState, resumed: bool) -> None:
        folder, start = run.folder, run.iteration
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.sink = logger.add(folder / "train.log", format=FORMAT, level="INFO", enqueue=False)
        remove_unfinished(folder)
        if resumed:
            keep_csv_rows(folder / "metrics.csv", run.progress.epochs)
            run.log_rows = keep_json_rows(folder / "metrics.jsonl", run.log_rows)
        else:
            set_aside(folder, run.exp.max_epoch)
        self.started, self.start = time.time(), start
        self.board = SummaryWriter(str(folder), purge_step=start)
        # A bar on a terminal, plain lines elsewhere.
        on_terminal = sys.stderr.isatty()
        self.bar = tqdm(total=run.total, initial=start, dynamic_ncols=True, unit="it") if on_terminal else None

    def on_iteration_end(self, run: RunState, losses: dict[str, float]) -> None:
        if self.bar is not None:
            self.bar.update(1)

    def on_log(self, run: RunState, values: dict[str, float]) -> None:
        done = run.iteration
        with open(self.folder / "metrics.jsonl", "a") as file:
            file.write(json.dumps({"iteration": done - 1} | finite(values)) + "\n")
        run.log_rows += 1
        for name, value in values.items():
            self.board.add_scalar(f"train/{name}", value, done - 1)
        if self.bar is not None:
            self.bar.set_postfix_str(" ".join(f"{k} {v:.4g}" for k, v in values.items() if k != "epoch"))
        else:
            text = " | ".join(f"{name} {value:.4g}" for name, value in values.items())
            logger.info(f"iteration {done}/{run.total} | {text} | ETA {self.eta(done, run.total)}")

    def eta(self, done: int, total: int) -> str:
        """Time that is left at the speed so far."""
        seconds = (time.time() - self.started) / max(done - self.start, 1) * (total - done)
        return time.strftime("%H:%M:%S", time.gmtime(seconds)) if seconds < 86400 else f"{seconds / 86400:.1f} days"

    def on_epoch_record(self, run: RunState, record: EpochRecord) -> None:
        """One row of metrics.csv; a metric that was not measured or is not defined stays empty."""
        row = record.row
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
                self.board.add_scalar(f"epoch/{name}", value, record.epoch)
        self.board.flush()
        if record.report is not None:
            logger.info(f"epoch {record.epoch}/{run.exp.max_epoch}\n{record.report.table()}")

    def close(self, run: RunState) -> None:
        if self.bar is not None:
            self.bar.close()
        self.board.close()
        logger.remove(self.sink)


class RankWarnings(Callback):
    """Warnings of a rank other than 0 in the run's train.log, with its number; a machine without the folder has none.

    Every line is appended by one write, so those of several ranks do not mix.
    """

    def __init__(self, run: RunState) -> None:
        form = f"{PREFIX}rank {run.process.rank}: {{message}}"
        there = run.folder.is_dir()
        self.sink = logger.add(run.folder / "train.log", format=form, level="WARNING") if there else None

    def close(self, run: RunState) -> None:
        if self.sink is not None:
            logger.remove(self.sink)


def finite(values: dict[str, float]) -> dict[str, float | None]:
    """JSON has no NaN: undefined values become null."""
    return {k: v if math.isfinite(v) else None for k, v in values.items()}


def set_aside(folder: Path, epochs: int) -> None:
    """A new run in the folder of another one: the other's figures and checkpoints stay under names with .previous.

    A third run keeps the second's as .previous-2 and so on; nothing is overwritten.

    Args:
        epochs: of the new run; epoch_N.pth of later ones keep their names, it never writes them.
    """
    names = ("metrics.csv", "metrics.jsonl", "latest.pth", "best.pth")
    files = [path for path in (folder / name for name in names) if path.exists()]
    files += [path for number, path in numbered_checkpoints(folder).items() if number <= epochs]
    marks = (f".previous{f'-{number}' if number > 1 else ''}" for number in itertools.count(1))
    mark = next(m for m in marks if not any(folder.glob(f"*{m}.*")))
    kept = [path.replace(path.with_name(f"{path.stem}{mark}{path.suffix}")) for path in files]
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
