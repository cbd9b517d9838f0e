"""Where a training process of benchmarks/kills.py kills itself: patches of the real functions, in that process."""

from __future__ import annotations

import io
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any


def die() -> None:
    """SIGKILL to the process group: this rank, the others, all loader processes."""
    os.killpg(0, signal.SIGKILL)


class Occurrence:
    """True at the `number`-th call (from 1) alone."""

    def __init__(self, number: int) -> None:
        self.left = number

    def __call__(self) -> bool:
        self.left -= 1
        return self.left == 0


def inside_checkpoint_write(now: Occurrence) -> None:
    """Half of the file's bytes are written."""
    import torch

    original = torch.save

    def save(content: Any, file: Any, **options: Any) -> None:
        if str(getattr(file, "name", "")).endswith(".tmp") and now():  # not a tensor that is sent to another rank
            buffer = io.BytesIO()
            original(content, buffer)
            file.write(buffer.getvalue()[: buffer.tell() // 2])
            file.flush()
            die()
        original(content, file, **options)

    torch.save = save


def before_rename(now: Occurrence) -> None:
    """A checkpoint is whole under its temporary name."""
    original = os.replace

    def replace(source: Any, target: Any) -> None:
        if str(target).endswith(".pth") and now():
            die()
        original(source, target)

    os.replace = replace  # type: ignore[assignment]


def between_best_and_latest(now: Occurrence) -> None:
    """best.pth is new, epoch_N.pth and latest.pth are old."""
    original = os.replace

    def replace(source: Any, target: Any) -> None:
        original(source, target)
        if Path(target).name == "best.pth" and now():
            die()

    os.replace = replace  # type: ignore[assignment]


def between_row_and_checkpoint(now: Occurrence) -> None:
    """The epoch has its row in metrics.csv, and latest.pth does not know."""
    from yolox_lt.train.callbacks.log import RunLog

    original = RunLog.on_epoch_record

    def on_epoch_record(self: RunLog, *arguments: Any) -> None:
        original(self, *arguments)
        if now():
            die()

    RunLog.on_epoch_record = on_epoch_record  # type: ignore[method-assign]


def inside_evaluation(now: Occurrence) -> None:
    """One validation batch is done, the others are not."""
    from yolox_lt.evaluate import evaluator

    original = evaluator.collect_detections

    def collect(*arguments: Any, **options: Any) -> Any:
        def first_alone(loader: Any) -> Iterator[Any]:
            for batch in loader:
                yield batch
                if now():
                    die()

        *before, loader, index, device = arguments[:6]
        return original(*before, first_alone(loader), index, device, *arguments[6:], **options)

    evaluator.collect_detections = collect


def while_rows_are_cut(now: Occurrence) -> None:
    """A resumed run has half-written the shortened metrics.csv or metrics.jsonl."""
    from yolox_lt.train.callbacks import log

    original = log.replace_text

    def replace_text(path: Path, text: str) -> None:
        if now():
            path.with_name(f".{path.name}.tmp").write_text(text[: len(text) // 2])
            die()
        original(path, text)

    log.replace_text = replace_text


MOMENTS: dict[str, tuple[Callable[[Occurrence], None], int]] = {
    "inside a checkpoint's write": (inside_checkpoint_write, 4),
    "between write and rename": (before_rename, 4),
    "between best.pth and latest.pth": (between_best_and_latest, 1),
    "between metrics.csv and latest.pth": (between_row_and_checkpoint, 2),
    "inside an evaluation": (inside_evaluation, 3),
    "while rows are cut on resume": (while_rows_are_cut, 2),
}
"""Name -> (patch, largest number of the call at which to die)."""
