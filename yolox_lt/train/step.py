"""One optimiser step: forward, backward, clip, update, average, statistic."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import torch
from loguru import logger
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from yolox_lt.distributed.processes import any_rank, batchnorm_statistics
from yolox_lt.errors import UserError
from yolox_lt.train.state import TrainerState
from yolox_lt.types import Batch

if TYPE_CHECKING:
    from yolox_lt.train.follow import ReportCallback


class TrainerStep(TrainerState):
    """The steps of a run, one after the other.

    follower: on rank 0 alone. dropped_in_a_row: steps just now whose loss was not finite.
    """

    follower: ReportCallback
    dropped_in_a_row = 0

    def step(self, batches: Iterator[Batch]) -> tuple[dict[str, float], float]:
        """One optimiser step; returns the losses of this rank by name and the learning rate."""
        lr = self.schedule(self.iteration)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.zero_grad(set_to_none=True)
        sums: dict[str, float] = {}
        dropped = False
        kept = self.keep_batchnorm()
        for part in range(self.exp.accumulate):
            batch = next(batches)
            if self.process.is_main and part == 0:
                self.follower.batch(batch, self.iteration)
            batch = batch.to(self.device)
            self.note_skipped(batch)
            if dropped:
                continue  # the batch is used up all the same
            last = part == self.exp.accumulate - 1
            # Gradients cross the ranks once, with the last part.
            with contextlib.nullcontext() if last else self.no_sync():
                losses = self.forward(batch)
                values = torch.stack(list(losses.values()))
                numbers = dict(zip(losses, values.tolist()))  # the one point of a step where the host waits for a GPU
                dropped = self.not_finite(numbers, batch, lr)
                if not dropped:
                    self.scaler.scale(values.sum() / self.exp.accumulate).backward()
            for name, number in (numbers | {"loss": sum(numbers.values())}).items():
                sums[name] = sums.get(name, 0.0) + number / self.exp.accumulate
        if dropped:
            self.drop(kept)
        else:
            self.update()
            self.dropped_in_a_row = 0
        self.saved = False
        self.progress.step(sums, self.options.batch_size, self.exp.accumulate, dropped)
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
        if self.scaler.is_enabled() and self.scaler.get_scale() < scale:
            self.discard()
            return
        for balance in self.criterion.balances():
            balance.commit()
        if self.ema is not None:
            self.ema.update(self.model)

    def not_finite(self, losses: dict[str, float], batch: Batch, lr: float) -> bool:
        """Whether the step has to be dropped, the same answer on every rank.

        Raises:
            UserError: a loss is not finite, and `nonfinite` is "stop", or `nonfinite_limit` steps in a row were
                dropped.
        """
        finite = all(map(math.isfinite, losses.values()))
        if self.exp.nonfinite == "skip":
            anywhere = any_rank(not finite, self.control)
            if anywhere and self.dropped_in_a_row < self.exp.nonfinite_limit:
                if not finite:
                    logger.warning(f"step left out: {self.not_finite_message(losses, batch, lr)}")
                return True
            if anywhere and finite:
                raise UserError("the loss of another rank is not finite; the last checkpoint is whole")
        if finite:
            return False
        self.discard()
        after = f"after {self.dropped_in_a_row} steps left out in a row, " if self.dropped_in_a_row else ""
        raise UserError(
            f"{after}{self.not_finite_message(losses, batch, lr)}; lower basic_lr_per_img, set clip_norm, look at "
            "these images, or set nonfinite skip; the last checkpoint is whole"
        )

    def not_finite_message(self, losses: dict[str, float], batch: Batch, lr: float) -> str:
        values = ", ".join(f"{name} {value:.4g}" for name, value in losses.items())
        index = self.train_index
        rows = [np.flatnonzero(index.image_ids == i)[0] for i in batch.image_ids.tolist()]
        names = ", ".join(f"{index.file_name(int(row))} (id {index.image_ids[row]})" for row in rows)
        return (
            f"the loss is not finite at iteration {self.iteration + 1} ({values}; lr {lr:.4g}, loss scale "
            f"{self.scaler.get_scale():.4g}; images {names})"
        )

    def keep_batchnorm(self) -> list[Tensor]:
        """Copies of the BatchNorm statistics, where a step may be dropped: the forward pass has moved them by then."""
        return [t.clone() for t in batchnorm_statistics(self.model)] if self.exp.nonfinite == "skip" else []

    def drop(self, kept: list[Tensor]) -> None:
        """Leave everything as it was before the step."""
        self.dropped_in_a_row += 1
        self.optimizer.zero_grad(set_to_none=True)
        self.discard()
        for own, value in zip(batchnorm_statistics(self.model), kept):
            own.copy_(value)

    def discard(self) -> None:
        for balance in self.criterion.balances():
            balance.discard()

    def note_skipped(self, batch: Batch) -> None:
        for name in batch.skipped:
            if name not in self.bad_images:
                logger.warning(f"{name}: unreadable image skipped ({len(self.bad_images) + 1} so far)")
            self.bad_images[name] = self.bad_images.get(name, 0) + 1
