"""The training loop: one optimiser step after the other, evaluation, checkpoints.

Everything that depends on where in a run one is (batches, learning rate, input size) is a function of the iteration,
so a run continues from a checkpoint exactly as if it had never stopped.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from loguru import logger
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from yolox_lt.data.sampler import DrawSampler
from yolox_lt.errors import UserError
from yolox_lt.train.callbacks import call
from yolox_lt.train.checkpoint import (
    load_checkpoint,
    plain,
    random_states,
    remove_old,
    restore_random_states,
    save_checkpoint,
)
from yolox_lt.train.dist import average_batchnorm, broadcast, gather_to_main, object_group
from yolox_lt.train.ema import ModelEMA
from yolox_lt.train.follow import Follower
from yolox_lt.train.log import RunLog, memory_megabytes
from yolox_lt.train.options import TrainOptions
from yolox_lt.train.record import describe_run, write_config
from yolox_lt.train.restore import restore_parts, start_from
from yolox_lt.types import Batch

if TYPE_CHECKING:
    from yolox_lt.evaluate.report import Report
    from yolox_lt.exp.detection import DetectorExp

METRIC_COLUMNS = ("AP", "AP50", "AP75", "APr", "APc", "APf", "AR")


class Trainer:
    """Trains one experiment. `train()` does everything; the other methods are its steps."""

    def __init__(self, exp: DetectorExp, options: TrainOptions) -> None:
        self.exp = exp
        self.options = options
        self.place = options.place
        self.device = options.place.device
        self.folder = Path(exp.output_dir) / exp.exp_name
        self.iteration = 0
        self.best = -1.0
        share = self.place.world * exp.accumulate
        if options.batch_size % share or options.batch_size < share:
            raise UserError(
                f"-b {options.batch_size}: not a multiple of {self.place.world} devices x accumulate {exp.accumulate}; "
                f"use -b {max(options.batch_size // share, 1) * share}"
            )
        self.micro_batch = options.batch_size // share

    # ------------------------------------------------------------------------------------------- set-up

    def train(self) -> None:
        """Run from the start, or from where the checkpoint stopped, to the end."""
        self.objects = object_group()
        checkpoint = self.read_checkpoint()
        self.choose_seed(checkpoint)
        self.build_data()
        self.build_model()
        if checkpoint is not None:
            self.restore(checkpoint)
        else:
            self.load_pretrained()
        epoch = self.iteration // self.epoch_iterations
        main_folder = self.folder if self.place.is_main else None
        self.log = RunLog(main_folder, epoch, self.iteration, self.total)
        if self.place.is_main:
            describe_run(self.exp, self.model, self.train_index, self.factors, self.epoch_iterations, self.options)
            write_config(self.folder / "config.json", self.exp, self.options)
            self.follower = Follower(
                self.exp, self.folder, self.train_index, self.evaluator, self.criterion.cls_loss, epoch
            )
        try:
            call(self.exp, "on_train_start", self)
            self.run()
            if self.place.is_main:
                self.follower.finish()
            call(self.exp, "on_train_end", self)
        finally:
            self.log.close()

    def read_checkpoint(self) -> dict[str, Any] | None:
        path = self.options.checkpoint
        if self.options.resume and path is None:
            path = str(self.folder / "latest.pth")
        return None if path is None else load_checkpoint(path)

    def choose_seed(self, checkpoint: dict[str, Any] | None) -> None:
        """The seed of the run: the experiment's, the resumed run's, or a fresh one, equal on all ranks."""
        if self.options.resume and checkpoint is not None:
            self.exp.seed = checkpoint["seed"]
        elif self.exp.seed is None:
            self.exp.seed = broadcast(int(np.random.SeedSequence().generate_state(1)[0]), self.objects)
        self.seed: int = self.exp.seed
        torch.manual_seed(self.seed)

    def build_data(self) -> None:
        exp, place = self.exp, self.place
        dataset = exp.get_dataset(self.options.cache, self.seed)
        self.train_index = dataset.store.index
        self.evaluator = exp.get_evaluator(
            max(self.micro_batch, 1), place.rank, place.world, self.device.type == "cuda"
        )
        if not np.array_equal(self.evaluator.index.category_ids, self.train_index.category_ids):
            raise UserError(
                f"{self.evaluator.index.path}: its category ids are not those of {self.train_index.path}; "
                "both files must list the same categories"
            )
        self.factors = exp.get_factors(self.train_index, dataset.images)
        self.groups = exp.batch_groups(self.train_index, dataset.images)
        self.epoch_iterations = exp.iterations_per_epoch(self.factors, self.options.batch_size, place.world)
        self.total = self.epoch_iterations * exp.max_epoch
        self.plain_from = self.epoch_iterations * max(exp.max_epoch - exp.no_aug_epochs, 0)
        self.dataset = dataset

    def build_model(self) -> None:
        exp = self.exp
        self.model = exp.get_model().to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.criterion = exp.get_criterion().to(self.device)
        for balance in self.criterion.balances():
            balance.auto_commit = False
        self.optimizer = exp.get_optimizer(self.options.batch_size, self.model)
        self.schedule = exp.get_lr_scheduler(exp.basic_lr_per_img * self.options.batch_size, self.epoch_iterations)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.options.amp == torch.float16)
        # The released models count updates from 0, so that the first one copies the model; official YOLOX from 1.
        first = 0 if exp.scheduler == "yoloxwarmcos_released" else 1
        self.ema = ModelEMA(self.model, exp.ema_decay, first) if exp.ema else None
        self.network: nn.Module = self.model
        if self.place.world > 1:
            # Each rank keeps its own BatchNorm statistics in between evaluations, as in the reference.
            ids = [self.device.index] if self.device.type == "cuda" else None
            self.network = DistributedDataParallel(self.model, device_ids=ids, broadcast_buffers=False)

    def load_pretrained(self) -> None:
        """The weights that a new run starts from, if the experiment has any."""
        self.exp.load_pretrained(self.model)
        if self.ema is not None:
            self.ema.model.load_state_dict(self.model.state_dict())

    def restore(self, checkpoint: dict[str, Any]) -> None:
        """Continue a run, or start from another one's weights."""
        path = self.options.checkpoint or self.folder / "latest.pth"
        if not self.options.resume:
            start_from(self.model, self.ema, checkpoint, self.train_index.category_names, path)
            return
        restore_parts(self.model, self.ema, self.criterion, self.optimizer, self.scaler, checkpoint, path)
        # Checkpoints are written at the end of epochs; with another batch size an epoch has other iterations.
        self.iteration = checkpoint["epoch"] * self.epoch_iterations
        self.best = checkpoint["best"]
        restore_random_states(checkpoint["random"])
        if checkpoint["world"] != self.place.world or checkpoint["batch_size"] != self.options.batch_size:
            logger.warning(
                f"resuming a run of {checkpoint['world']} ranks and batch {checkpoint['batch_size']} with "
                f"{self.place.world} and {self.options.batch_size}: the images of the current pass are dealt anew"
            )
        logger.info(f"{path}: resumed after iteration {self.iteration} of {self.total}")

    # ------------------------------------------------------------------------------------------- the loop

    def batches(self) -> Iterator[Batch]:
        stream = self.exp.get_sampler(self.factors, self.seed, self.place.rank, self.place.world)
        accumulate = self.exp.accumulate
        sampler = DrawSampler(
            stream,
            self.micro_batch,
            self.iteration * accumulate,
            self.total * accumulate,
            self.plain_from * accumulate,
            self.groups,
        )
        return iter(self.exp.get_data_loader(self.dataset, sampler, self.device.type == "cuda"))

    def run(self) -> None:
        batches = self.batches()
        self.model.train()
        self.sums: dict[str, float] = {}
        self.bad_images: dict[str, int] = {}
        epoch_start = window_start = time.perf_counter()
        steps = 0  # since the last printed line
        while self.iteration < self.total:
            if self.iteration >= self.plain_from and self.exp.l1 == "tail":
                self.criterion.use_l1 = True
            losses, lr = self.step(batches)
            done = self.iteration + 1
            values = None
            steps += 1
            if done % self.exp.print_interval == 0 or done == self.total:
                now = time.perf_counter()
                values = {
                    "epoch": (done - 1) // self.epoch_iterations + 1,
                    **losses,
                    "lr": lr,
                    "images/s": steps * self.options.batch_size / (now - window_start),
                    "memory_MB": memory_megabytes(self.device),
                }
                window_start, steps = now, 0
            self.log.step(self.iteration, values)
            self.iteration = done
            if self.place.is_main:
                self.follower.step(done, values)
            call(self.exp, "on_iteration_end", self, losses)
            if done % self.epoch_iterations == 0:
                self.end_epoch(lr, time.perf_counter() - epoch_start)
                epoch_start = window_start = time.perf_counter()
                steps = 0

    def step(self, batches: Iterator[Batch]) -> tuple[dict[str, float], float]:
        """One optimiser step; returns the losses of this rank by name and the learning rate."""
        lr = self.schedule(self.iteration)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.zero_grad(set_to_none=True)
        sums: dict[str, float] = {}
        for part in range(self.exp.accumulate):
            batch = next(batches)
            if self.place.is_main and part == 0:
                self.follower.batch(batch, self.iteration)
            batch = batch.to(self.device)
            self.note_skipped(batch)
            last = part == self.exp.accumulate - 1
            # Gradients cross the ranks once, with the last part.
            with contextlib.nullcontext() if last else self.no_sync():
                losses = self.forward(batch)
                values = torch.stack(list(losses.values()))
                numbers = dict(zip(losses, values.tolist()))  # the one point of a step where the host waits for a GPU
                self.check_finite(numbers, batch, lr)
                self.scaler.scale(values.sum() / self.exp.accumulate).backward()
            for name, number in (numbers | {"loss": sum(numbers.values())}).items():
                sums[name] = sums.get(name, 0.0) + number / self.exp.accumulate
        self.update()
        for name, number in sums.items():
            self.sums[name] = self.sums.get(name, 0.0) + number
        return sums, lr

    def no_sync(self) -> contextlib.AbstractContextManager[None]:
        """Keep the gradients of a partial batch on this rank."""
        return self.network.no_sync() if isinstance(self.network, DistributedDataParallel) else contextlib.nullcontext()

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Losses of one batch, the network under autocast, the criterion in float32."""
        size = self.exp.random_resize(self.iteration)
        images, boxes = self.exp.preprocess(batch.images, batch.boxes, size, batch.image_sizes)
        with torch.autocast(self.device.type, dtype=self.options.amp, enabled=self.options.amp is not None):
            predictions, priors = self.network(images)
        content = batch.image_sizes.double() * torch.tensor(
            [images.shape[2] / batch.images.shape[2], images.shape[3] / batch.images.shape[3]], dtype=torch.float64
        )
        sizes = [(int(h), int(w)) for h, w in content.round().tolist()]
        return self.criterion(predictions, priors, boxes, batch.labels, sizes)

    def update(self) -> None:
        """Clip, step, average; a step that overflowed in fp16 leaves weights, average and statistics as they were."""
        if self.exp.clip_norm is not None:
            self.scaler.unscale_(self.optimizer)
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.exp.clip_norm)
        scale = self.scaler.get_scale() if self.scaler.is_enabled() else 1.0
        self.scaler.step(self.optimizer)
        self.scaler.update()
        overflowed = self.scaler.is_enabled() and self.scaler.get_scale() < scale
        for balance in self.criterion.balances():
            if overflowed:
                balance.discard()
            else:
                balance.commit()
        if self.ema is not None and not overflowed:
            self.ema.update(self.model)

    def check_finite(self, losses: dict[str, float], batch: Batch, lr: float) -> None:
        if all(map(math.isfinite, losses.values())):
            return
        values = ", ".join(f"{name} {value:.4g}" for name, value in losses.items())
        raise UserError(
            f"the loss is not finite at iteration {self.iteration + 1} ({values}; lr {lr:.4g}, loss scale "
            f"{self.scaler.get_scale():.4g}, images {batch.image_ids.tolist()}); lower basic_lr_per_img, set "
            "clip_norm, or look at these images; the last checkpoint is whole"
        )

    def note_skipped(self, batch: Batch) -> None:
        for name in batch.skipped:
            if name not in self.bad_images:
                logger.warning(f"{name}: unreadable image skipped ({len(self.bad_images) + 1} so far)")
            self.bad_images[name] = self.bad_images.get(name, 0) + 1

    # ------------------------------------------------------------------------------------------- epochs

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

    def checkpoint(self, metrics: dict[str, float]) -> dict[str, Any]:
        """Everything needed to go on exactly, or to use the model without its exp file; plain numbers and tensors
        only.
        """
        index = self.train_index
        return {
            "model": self.model.state_dict(),
            "ema": {"model": self.ema.model.state_dict(), "next": self.ema.next} if self.ema is not None else None,
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "criterion": self.criterion.state_dict(),
            "epoch": self.iteration // self.epoch_iterations,
            "iteration": self.iteration,
            "sampler_position": self.iteration * self.exp.accumulate * self.micro_batch,
            "seed": self.seed,
            "world": self.place.world,
            "batch_size": self.options.batch_size,
            "random": random_states(),
            "best": float(self.best),
            "metrics": {name: float(value) for name, value in metrics.items()},
            "names": list(index.category_names),
            "category_ids": index.category_ids.tolist(),
            "family": self.exp.family,
            "exp": plain(self.exp.attributes()),
        }


def nan_to_zero(value: float) -> float:
    return 0.0 if math.isnan(value) else float(value)
