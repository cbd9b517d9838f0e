"""Batches from worker processes."""

from __future__ import annotations

import signal
from types import FrameType
from typing import Any

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Subset

from yolox_lt.data.collate import Collate, Item
from yolox_lt.data.dataset import EvalDataset, TrainDataset
from yolox_lt.data.sampler import DrawSampler

Batches = DataLoader[Any]
"""Yields Batch; torch's own type names the data set's items instead."""


def init_worker(worker: int) -> None:
    """One thread per worker: the processes are the parallelism."""
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    ignore_first_sigterm()
    keep_freed_memory()


def ignore_first_sigterm() -> None:
    """SLURM and a killed process group signal loader processes too, but the step that goes on still needs batches.

    The second SIGTERM ends the process: multiprocessing sends one to what is left when the parent ends.
    """

    def handle(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)

    signal.signal(signal.SIGTERM, handle)
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def keep_freed_memory() -> None:
    """Let glibc keep blocks of some megabytes for the next sample instead of fetching them anew, page by page.

    A sample allocates and frees about ten megabytes, which costs a quarter of its time, until one larger block has been
    freed: that raises glibc's limit for giving memory back.
    """
    np.empty(24 << 20, dtype=np.uint8)


def own_generator() -> torch.Generator:
    """Keeps torch's loader from drawing its workers' seeds, which nothing here uses, from the global generator."""
    return torch.Generator().manual_seed(0)


def train_loader(
    dataset: TrainDataset, sampler: DrawSampler, collate: Collate, num_workers: int, pin_memory: bool
) -> Batches:
    """Batches of the sampler's draws, the same for any number of workers."""
    return DataLoader(
        dataset,
        batch_sampler=sampler,
        num_workers=num_workers,
        collate_fn=collate,
        pin_memory=pin_memory,
        worker_init_fn=init_worker,
        prefetch_factor=4 if num_workers else None,
        generator=own_generator(),
    )


def eval_loader(
    dataset: EvalDataset,
    collate: Collate,
    batch_size: int,
    num_workers: int,
    pin_memory: bool,
    rank: int = 0,
    world: int = 1,
) -> Batches:
    """Every image once over all ranks, rank r taking r, r + world, ...: no padding, hence no duplicates."""
    shard: Dataset[Item] = dataset
    if world > 1:
        shard = Subset(dataset, np.arange(rank, len(dataset), world).tolist())
    return DataLoader(
        shard,
        batch_size=batch_size,
        num_workers=num_workers,
        collate_fn=collate,
        pin_memory=pin_memory,
        worker_init_fn=init_worker,
        generator=own_generator(),
    )
