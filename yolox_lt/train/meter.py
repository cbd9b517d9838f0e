"""Figures of a run: those of a print interval and those of an epoch."""

from __future__ import annotations

import math
import time

from yolox_lt.evaluate.metrics import Report
from yolox_lt.train.callbacks.callback import EpochRecord
from yolox_lt.train.memory import memory_megabytes
from yolox_lt.train.selection import improves
from yolox_lt.train.state import RunState

METRIC_COLUMNS = ("AP", "AP50", "AP75", "APs", "APm", "APl", "APr", "APc", "APf", "AR")


class IntervalMeter:
    """Losses and speed, averaged over some iterations.

    Args:
        interval: iterations. batch_size: images of a step over all ranks.
    """

    def __init__(self, interval: int, batch_size: int) -> None:
        self.interval = interval
        self.batch_size = batch_size
        self.restart()

    def restart(self) -> float:
        """Begin an interval; returns the time, in seconds of `time.perf_counter`."""
        self.started, self.steps = time.perf_counter(), 0
        return self.started

    def step(self, run: RunState, losses: dict[str, float]) -> dict[str, float] | None:
        """After a step with these losses: the figures at the end of an interval and of the run, else None."""
        self.steps += 1
        done = run.iteration
        if done % self.interval and done != run.total:
            return None
        steps, seconds = self.steps, -self.started + self.restart()
        return {
            "epoch": (done - 1) // run.epoch_iterations + 1,
            **losses,
            "lr": run.lr,
            "images/s": steps * self.batch_size / seconds,
            "memory_MB": memory_megabytes(run.process.device),
        }


def epoch_record(run: RunState, epoch: int, report: Report | None) -> EpochRecord:
    """The row of the epoch that is open in `run`, and whether its evaluation, if any, is the best so far."""
    metrics = run.metrics
    done = run.progress.open
    row: dict[str, float] = {"epoch": epoch, **done.means(), "lr": run.lr}
    row |= {name: metrics.get(name, math.nan) for name in METRIC_COLUMNS}
    row |= {
        "seconds": round(done.seconds, 3),
        "images_per_second": round(done.images / done.seconds, 2),
        "memory_MB": round(memory_megabytes(run.process.device), 1),
        "skipped_images": sum(run.bad_images.values()),
    }
    is_best = report is not None and improves(metrics[run.exp.best_metric], run.best.value)
    return EpochRecord(epoch, row, report, is_best)
