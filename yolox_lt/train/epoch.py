"""The end of an epoch: evaluation, the row of metrics.csv, checkpoints."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from loguru import logger

from yolox_lt.distributed.processes import average_batchnorm, gather_to_main
from yolox_lt.distributed.signals import StopSignals
from yolox_lt.train.callbacks import call
from yolox_lt.train.log import memory_megabytes
from yolox_lt.train.progress import EpochMeter
from yolox_lt.train.step import TrainerStep

if TYPE_CHECKING:
    from yolox_lt.evaluate.metrics import Report

METRIC_COLUMNS = ("AP", "AP50", "AP75", "APs", "APm", "APl", "APr", "APc", "APf", "AR")


class TrainerEpoch(TrainerStep):
    """What happens between two epochs. stop: signals that end the run."""

    stop: StopSignals

    def end_epoch(self) -> None:
        """Evaluate if it is time, write the epoch's row and the checkpoints.

        latest.pth is written last: a run that is killed before continues from the end of the epoch's steps, or from an
        earlier step, and everything that was written here is written again.
        """
        epoch = self.progress.epochs + 1
        closing = self.iteration > self.no_aug_start and self.exp.no_aug_epochs > 0
        evaluate = epoch % self.exp.eval_interval == 0 or closing or epoch == self.exp.max_epoch
        if evaluate and not self.saved:
            self.save()
        self.merge_ranks()
        report = None
        if evaluate:
            with self.stop.saved():
                report = self.evaluate()
            call(self.exp, "on_evaluation_end", self, report)
        self.metrics = report.metrics if report is not None else {}
        done = self.progress.open
        self.progress.end_epoch()
        copies = self.record_epoch(epoch, done, report) if self.process.is_main else []
        # The other ranks wait here, without a pending collective of the training group, while rank 0 scores and saves.
        self.save(copies)
        call(self.exp, "on_epoch_end", self, epoch)

    def merge_ranks(self) -> None:
        """Bring together what the ranks hold apart: BatchNorm statistics, unreadable images."""
        average_batchnorm(self.model)
        if self.ema is not None:
            average_batchnorm(self.ema.model)
        own = self.bad_images
        parts = gather_to_main(own, self.objects) or []
        self.bad_images = {}
        for part in parts:
            for name, count in part.items():
                if name not in own:
                    logger.warning(f"{name}: unreadable image skipped on another rank")
                self.bad_images[name] = self.bad_images.get(name, 0) + count

    def record_epoch(self, epoch: int, done: EpochMeter, report: Report | None) -> list[str]:
        """Rank 0: the row of metrics.csv, the warnings, and what belongs to an evaluation.

        Returns the names under which the checkpoint is to be kept beside latest.pth.
        """
        skipped = sum(int(balance.skipped) for balance in self.criterion.balances())
        if skipped:
            logger.warning(f"{skipped} contributions to the loss's statistic were not finite and left out so far")
        row: dict[str, float] = {"epoch": epoch, **done.means(), "lr": self.schedule(self.iteration - 1)}
        row |= {name: self.metrics.get(name, math.nan) for name in METRIC_COLUMNS}
        row |= {
            "seconds": round(done.seconds, 3),
            "images_per_second": round(done.images / done.seconds, 2),
            "memory_MB": round(memory_megabytes(self.device), 1),
            "skipped_images": sum(self.bad_images.values()),
        }
        is_best = report is not None and not self.best >= nan_to_zero(report.metrics["AP"])
        if is_best and report is not None:
            self.best = nan_to_zero(report.metrics["AP"])
        self.log.epoch(row)
        if report is not None:
            logger.info(f"epoch {epoch}/{self.exp.max_epoch}\n{report.table()}")
        self.follower.epoch(epoch, self.iteration, row, report, is_best)
        kept = report is not None and self.exp.save_history_ckpt
        return [*(["best.pth"] if is_best else []), *([f"epoch_{epoch}.pth"] if kept else [])]

    def evaluate(self) -> Report | None:
        """Score the averaged weights if there are any; the report is on rank 0."""
        model = self.ema.model if self.ema is not None else self.model
        report = self.exp.eval(model, self.evaluator, self.device, autocast=self.options.amp, group=self.objects)
        self.model.train()
        return report


def nan_to_zero(value: float) -> float:
    return 0.0 if math.isnan(value) else float(value)
