"""What a run is made of: seed, data, model, criterion, optimiser, schedule, average."""

from __future__ import annotations

import random
from collections.abc import Iterator

import numpy as np
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from yolox_lt.data.sampling.sampler import SampleSampler, resume_stream
from yolox_lt.distributed.collectives import RankGroups, broadcast
from yolox_lt.distributed.processes import ProcessInfo, use_deterministic_algorithms, use_fast_products
from yolox_lt.errors import UserError
from yolox_lt.exp.detection import DetectorExp, preprocessor_of
from yolox_lt.models.freezing import freeze, matching
from yolox_lt.optim.ema import ModelEMA
from yolox_lt.train.options import TrainOptions
from yolox_lt.train.progress import Progress
from yolox_lt.train.shared_images import share_images
from yolox_lt.train.state import RunState, TrainData
from yolox_lt.types import Batch


def micro_batch_size(exp: DetectorExp, options: TrainOptions) -> int:
    """Images of one forward pass on one rank.

    Raises:
        UserError: -b is not a multiple of ranks x accumulate.
    """
    world_size = options.process.world_size
    share = world_size * exp.accumulate
    if options.batch_size % share or options.batch_size < share:
        raise UserError(
            f"-b {options.batch_size}: not a multiple of {world_size} devices x accumulate {exp.accumulate}; "
            f"use -b {max(options.batch_size // share, 1) * share}"
        )
    return options.batch_size // share


def choose_seed(exp: DetectorExp, resumed: int | None, ranks: RankGroups) -> int:
    """The seed of the run: the resumed run's, the experiment's, or a fresh one, equal on all ranks; it is set."""
    if resumed is not None:
        exp.seed = resumed
    elif exp.seed is None:
        exp.seed = broadcast(int(np.random.SeedSequence().generate_state(1)[0]), ranks.objects)
    seed: int = exp.seed
    torch.manual_seed(seed)
    # Nothing here draws from these two; callbacks of an experiment may.
    random.seed(seed)
    np.random.seed(seed % 2**32)
    if exp.deterministic:
        use_deterministic_algorithms()
    return seed


def build_data(exp: DetectorExp, options: TrainOptions, seed: int, micro_batch: int, ranks: RankGroups) -> TrainData:
    """Training set with its sampling, and the evaluator if there is anything to score.

    Raises:
        UserError: the validation annotations list categories that the training annotations do not.
    """
    process = options.process
    alone = process.world_size == 1
    dataset = exp.get_dataset(options.cache and alone, seed)
    if options.cache and not alone:
        share_images(dataset.store, ranks)
    index = dataset.store.index
    pinned = process.device.type == "cuda"
    share = max(micro_batch, 1)
    evaluator = None
    if "val" in exp.splits():
        evaluator = exp.get_evaluator(share, process.rank, process.world_size, pinned, index.category_names)
    factors = exp.get_factors(index, dataset.images)
    epoch_iterations = exp.iterations_per_epoch(factors, options.batch_size, process.world_size)
    return TrainData(
        dataset,
        evaluator,
        factors,
        exp.batch_groups(index, dataset.images),
        epoch_iterations,
        total=epoch_iterations * exp.max_epoch,
        no_aug_start=epoch_iterations * max(exp.max_epoch - exp.no_aug_epochs, 0),
    )


def build_batches(
    exp: DetectorExp, data: TrainData, progress: Progress, seed: int, process: ProcessInfo
) -> Iterator[Batch]:
    """This rank's batches from the position `progress` to the end of the run; its loader processes start now."""
    stream = exp.get_sampler(data.factors, seed, process.rank, process.world_size)
    sampler = SampleSampler(
        resume_stream(stream, progress.segments, data.groups),
        progress.segment.batch_size,
        progress.iteration * exp.accumulate,
        data.total * exp.accumulate,
        data.no_aug_start * exp.accumulate,
        data.groups,
        progress.segment.batches,
    )
    return iter(exp.get_data_loader(data.dataset, sampler, process.device.type == "cuda"))


def build_run(
    exp: DetectorExp, options: TrainOptions, data: TrainData, seed: int, ranks: RankGroups, progress: Progress
) -> RunState:
    """A run at its start, the model with its first weights."""
    device = options.process.device
    use_fast_products(device, exp.tf32, exp.has_fixed_size())
    model = exp.get_model().to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    if exp.freeze:
        freeze(model, matching((name for name, _ in model.named_parameters()), exp.freeze))
    criterion = exp.get_criterion().to(device)
    if exp.class_weights:
        weights = exp.weights_of(data.index.category_names)
        criterion.cls_loss.set_class_weights(torch.tensor(weights, device=device))
    for state in criterion.step_states():
        state.auto_commit = False
    # The released models count updates from 0, so that the first one copies the model; official YOLOX from 1.
    first = 0 if exp.scheduler == "yoloxwarmcos_released" else 1
    return RunState(
        exp,
        options,
        seed,
        ranks,
        data,
        model,
        training_network(model, exp, options.process),
        preprocessor_of(exp).to(device),
        criterion,
        exp.get_optimizer(options.batch_size, model),
        exp.get_lr_scheduler(exp.basic_lr_per_img * options.batch_size, data.epoch_iterations),
        torch.amp.GradScaler(device.type, enabled=options.amp == torch.float16),
        ModelEMA(model, exp.ema_decay, first, exp.ema_ramp) if exp.ema else None,
        progress,
        given=options.given or (),
    )


def training_network(model: nn.Module, exp: DetectorExp, process: ProcessInfo) -> nn.Module:
    """The model as it is trained: compiled if the experiment says so, distributed if there are several ranks."""
    network: nn.Module = torch.compile(model) if exp.compile else model  # type: ignore[assignment]
    if process.world_size > 1:
        # Each rank keeps its own BatchNorm statistics between evaluations, as in the released models.
        ids = [process.device.index] if process.device.type == "cuda" else None
        network = DistributedDataParallel(network, device_ids=ids, broadcast_buffers=False)
    if process.world_size > 2:
        settle_buckets(network, process.device)
    return network


def settle_buckets(network: nn.Module, device: torch.device) -> None:
    """Let DDP decide now, by one backward pass over a blank image, in which pieces gradients cross the ranks.

    It decides after the first backward pass of a process, and the order in which three or more ranks add up a gradient
    depends on the pieces: the first step after a resume would be rounded in another way than in an uninterrupted run.
    """
    network.eval()  # BatchNorm statistics stay
    predictions, _ = network(torch.zeros(1, 3, 64, 64, device=device).to(memory_format=torch.channels_last))
    torch.stack([output.float().sum() for output in predictions.outputs()]).sum().backward()
    network.zero_grad(set_to_none=True)
    network.train()
