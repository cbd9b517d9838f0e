"""What a run is made of: data, model, criterion, optimiser, schedule, average."""

from __future__ import annotations

import random
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from yolox_lt.data.sampling.sampler import SamplerSegment
from yolox_lt.distributed.processes import broadcast, use_deterministic_algorithms
from yolox_lt.errors import UserError
from yolox_lt.optim.ema import ModelEMA
from yolox_lt.train.options import TrainOptions
from yolox_lt.train.progress import Progress

if TYPE_CHECKING:
    from yolox_lt.exp.detection import DetectorExp


class TrainerParts:
    """The parts of one run of one experiment, built in the order of the methods.

    objects: the ranks' group for Python objects, None for a single process. control: the same with the time-out of a
    step, for what the ranks decide together.
    resuming: whether the run continues from a checkpoint.
    progress: position in the run. metrics: of the evaluation at the end of the last epoch, empty without one.
    bad_images: how often each unreadable image was met, on this rank since the last end of an epoch, on rank 0 before
    too.
    """

    objects: dist.ProcessGroup | None
    control: dist.ProcessGroup | None

    def __init__(self, exp: DetectorExp, options: TrainOptions) -> None:
        self.exp = exp
        self.options = options
        self.process = options.process
        self.device = options.process.device
        self.folder = Path(exp.output_dir) / exp.exp_name
        self.resuming = options.resume
        self.best = -1.0
        self.metrics: dict[str, float] = {}
        self.bad_images: dict[str, int] = {}
        share = self.process.world_size * exp.accumulate
        if options.batch_size % share or options.batch_size < share:
            raise UserError(
                f"-b {options.batch_size}: not a multiple of {self.process.world_size} devices x accumulate "
                f"{exp.accumulate}; use -b {max(options.batch_size // share, 1) * share}"
            )
        self.micro_batch = options.batch_size // share
        self.progress = Progress(SamplerSegment(self.process.world_size, self.micro_batch, 0))

    @property
    def iteration(self) -> int:
        """Optimiser steps done."""
        return self.progress.iteration

    def choose_seed(self, checkpoint: dict[str, Any] | None) -> None:
        """The seed of the run: the experiment's, the resumed run's, or a fresh one, equal on all ranks."""
        if self.resuming and checkpoint is not None:
            self.exp.seed = checkpoint["seed"]
        elif self.exp.seed is None:
            self.exp.seed = broadcast(int(np.random.SeedSequence().generate_state(1)[0]), self.objects)
        self.seed: int = self.exp.seed
        torch.manual_seed(self.seed)
        # Nothing here draws from these two; callbacks of an experiment may.
        random.seed(self.seed)
        np.random.seed(self.seed % 2**32)
        if self.exp.deterministic:
            use_deterministic_algorithms()

    def build_data(self) -> None:
        exp, process = self.exp, self.process
        dataset = exp.get_dataset(self.options.cache, self.seed)
        self.train_index = dataset.store.index
        self.evaluator = exp.get_evaluator(
            max(self.micro_batch, 1), process.rank, process.world_size, self.device.type == "cuda"
        )
        if not np.array_equal(self.evaluator.index.category_ids, self.train_index.category_ids):
            raise UserError(
                f"{self.evaluator.index.path}: its category ids are not those of {self.train_index.path}; "
                "both files must list the same categories"
            )
        self.factors = exp.get_factors(self.train_index, dataset.images)
        self.groups = exp.batch_groups(self.train_index, dataset.images)
        self.epoch_iterations = exp.iterations_per_epoch(self.factors, self.options.batch_size, process.world_size)
        self.total = self.epoch_iterations * exp.max_epoch
        self.no_aug_start = self.epoch_iterations * max(exp.max_epoch - exp.no_aug_epochs, 0)
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
        self.network: nn.Module = torch.compile(self.model) if exp.compile else self.model  # type: ignore[assignment]
        if self.process.world_size > 1:
            # Each rank keeps its own BatchNorm statistics in between evaluations, as in the reference.
            ids = [self.device.index] if self.device.type == "cuda" else None
            self.network = DistributedDataParallel(self.network, device_ids=ids, broadcast_buffers=False)
        if self.process.world_size > 2:
            settle_buckets(self.network, self.device)

    def load_pretrained(self) -> None:
        """The weights that a new run starts from, if the experiment has any."""
        self.exp.load_pretrained(self.model)
        if self.ema is not None:
            self.ema.model.load_state_dict(self.model.state_dict())


def settle_buckets(network: nn.Module, device: torch.device) -> None:
    """Let DDP decide now, by one backward pass over a blank image, in which pieces gradients cross the ranks.

    It decides after the first backward pass of a process, and the order in which three or more ranks add up a gradient
    depends on the pieces: the first step after a resume would be rounded in another way than in an unbroken run.
    """
    network.eval()  # BatchNorm statistics stay
    predictions, _ = network(torch.zeros(1, 3, 64, 64, device=device).to(memory_format=torch.channels_last))
    outputs = (predictions.cls_logits, predictions.box_deltas, predictions.quality_logits)
    torch.stack([output.float().sum() for output in outputs if output is not None]).sum().backward()
    network.zero_grad(set_to_none=True)
    network.train()
