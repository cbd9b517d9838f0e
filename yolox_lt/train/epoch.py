"""The end of an epoch: evaluation, the row of metrics.csv, checkpoints."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from loguru import logger

from yolox_lt.train.callbacks import call
from yolox_lt.train.checkpoint import remove_old, save_checkpoint
from yolox_lt.train.dist import average_batchnorm, broadcast, gather_to_main
from yolox_lt.train.log import RunLog, memory_megabytes
from yolox_lt.train.step import TrainerStep

if TYPE_CHECKING:
    from yolox_lt.evaluate.report import Report

METRIC_COLUMNS = ("AP", "AP50", "AP75", "APr", "APc", "APf", "AR")


class TrainerEpoch(TrainerStep):
    """What happens between two epochs. log: the files of the run's folder; on other ranks than 0 it writes nothing."""

    log: RunLog

    def end_epoch(self, lr: float, seconds: float) -> None:
        """Evaluate if it is time, write the epoch's row and the checkpoints."""
        epoch = self.iteration // self.epoch_iterations
        closing = self.iteration > self.plain_from and self.exp.no_aug_epochs > 0
        evaluate = epoch % self.exp.eval_interval == 0 or closing or epoch == self.exp.max_epoch
        self.merge_ranks()
        report = self.evaluate() if evaluate else None
        if evaluate:
            call(self.exp, "on_evaluation_end", self, report)
        if self.place.is_main:
            self.record_epoch(epoch, lr, seconds, report)
        self.sums = {}
        # The other ranks wait here, without a pending collective of the training group, while rank 0 scores and saves.
        broadcast(None, self.objects)
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

    def record_epoch(self, epoch: int, lr: float, seconds: float, report: Report | None) -> None:
        """Rank 0: the row of metrics.csv, the checkpoints, the warnings."""
        skipped = sum(int(balance.skipped) for balance in self.criterion.balances())
        if skipped:
            logger.warning(f"{skipped} contributions to the loss's statistic were not finite and left out so far")
        means = {name: value / self.epoch_iterations for name, value in self.sums.items()}
        metrics = report.metrics if report is not None else {}
        row: dict[str, float] = {"epoch": epoch, **means, "lr": lr}
        row |= {name: metrics.get(name, math.nan) for name in METRIC_COLUMNS}
        row |= {
            "seconds": round(seconds, 3),
            "images_per_second": round(self.epoch_iterations * self.options.batch_size / seconds, 2),
            "memory_MB": round(memory_megabytes(self.device), 1),
            "skipped_images": sum(self.bad_images.values()),
        }
        is_best = report is not None and not self.best >= nan_to_zero(metrics["AP"])
        if is_best:
            self.best = nan_to_zero(metrics["AP"])
        self.log.epoch(row)
        content = self.checkpoint(metrics)
        save_checkpoint(self.folder / "latest.pth", content)
        if report is not None:
            report.write_csv(self.folder / "per_category.csv")
            logger.info(f"epoch {epoch}/{self.exp.max_epoch}\n{report.table()}")
            if is_best:
                save_checkpoint(self.folder / "best.pth", content)
            if self.exp.save_history_ckpt:
                save_checkpoint(self.folder / f"epoch_{epoch}.pth", content)
                remove_old(self.folder, epoch, self.exp.keep_checkpoints)
        self.follower.epoch(epoch, self.iteration, row, report, is_best)

    def evaluate(self) -> Report | None:
        """Score the averaged weights if there are any; the report is on rank 0."""
        model = self.ema.model if self.ema is not None else self.model
        report = self.exp.eval(model, self.evaluator, self.device, autocast=self.options.amp, group=self.objects)
        self.model.train()
        return report


def nan_to_zero(value: float) -> float:
    return 0.0 if math.isnan(value) else float(value)
