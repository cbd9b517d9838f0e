"""Batches from worker processes."""

from __future__ import annotations

import functools
import multiprocessing
import multiprocessing.util
import re
import signal
from collections.abc import Iterator
from types import FrameType
from typing import Any

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader

from yolox_lt.data.collate import Collate
from yolox_lt.data.dataset import EvalDataset, TrainDataset
from yolox_lt.data.sampling.sampler import SampleSampler
from yolox_lt.errors import UserError

WORKER_FAILURE = re.compile(r"(?:^|RuntimeError: )(DataLoader (?:timed out|worker \(pid)[^\n]*)")
"""How torch tells that a worker process died or gave nothing in time; it has no type for these errors."""

Batches = DataLoader[Any]
"""Yields Batch; torch's own type names the data set's items instead."""


class Loader(DataLoader[Any]):
    """A DataLoader that says in one sentence that a worker died or hangs."""

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        batches = super().__iter__()  # the processes start now, not with the first batch
        return watched(batches) if self.num_workers else batches


def watched(batches: Iterator[Any]) -> Iterator[Any]:
    """The same, with a UserError for a worker that died or hangs. After any other error the processes end at once.

    torch's frames refer to the error that they raise. In such a cycle the queues are finalized before the iterator:
    its processes never hear that they may end, and are waited for, ten seconds. So those frames are dropped. They tell
    nothing; what happened in a worker is in the error's text.
    """
    while True:
        try:
            batch = next(batches)
        except StopIteration:
            return
        except Exception as error:
            failure = worker_failure(str(error)) if isinstance(error, RuntimeError) else None
            if failure is not None:
                raise UserError(failure) from error
            failed = error.with_traceback(None)
            break
        yield batch
    del batches
    raise failed


def worker_failure(text: str) -> str | None:
    """What to tell the user if the text of an error says that a worker process died or hangs, else None."""
    found = WORKER_FAILURE.search(text)
    if found is None:
        return None
    if found[1].startswith("DataLoader timed out"):
        return (
            f"no batch came from the data workers ({found[1]}): a disk or a decoder hangs; check the disk, set "
            "data_num_workers 0 to see where it stops, or raise worker_timeout"
        )
    return (
        f"a data worker died ({found[1].rstrip('. ')}): most often the machine's memory was full; lower "
        "data_num_workers or -b, or set data_num_workers 0 to see the reason"
    )


def init_worker(worker: int) -> None:
    """One thread per worker: the processes are the parallelism."""
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    ignore_first_sigterm()
    keep_freed_memory()


def ignore_first_sigterm() -> None:
    """SLURM and a killed process group signal loader processes too, but the step that continues still needs batches.

    The second SIGTERM ends the process.
    """

    def handle(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)

    signal.signal(signal.SIGTERM, handle)
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def keep_freed_memory() -> None:
    """Let glibc keep blocks of some megabytes for the next sample instead of fetching them again, page by page.

    A sample allocates and frees about ten megabytes, which costs a quarter of its time, until one larger block has been
    freed: that raises glibc's limit for giving memory back.
    """
    np.empty(24 << 20, dtype=np.uint8)


@functools.cache
def end_workers_at_exit() -> None:
    """Let this process end its loader processes when it exits, whatever else still holds their iterators.

    They do not heed the first SIGTERM, by which multiprocessing would end them, and it would wait for them for ever.
    """
    multiprocessing.util.Finalize(None, kill_workers, exitpriority=100)


def kill_workers() -> None:
    """End the loader processes of this process."""
    for process in multiprocessing.active_children():
        if process.daemon:
            process.kill()


def own_generator() -> torch.Generator:
    """Keeps torch's loader from drawing its workers' seeds, which nothing here uses, from the global generator."""
    return torch.Generator().manual_seed(0)


def train_loader(
    dataset: TrainDataset,
    sampler: SampleSampler,
    collate: Collate,
    num_workers: int,
    pin_memory: bool,
    timeout: float = 0,
) -> Batches:
    """Batches of the sampler's draws, the same for any number of workers.

    timeout: seconds to wait for a batch of the workers before the run ends with a UserError, 0 for ever.
    """
    end_workers_at_exit()
    return Loader(
        dataset,
        batch_sampler=sampler,
        num_workers=num_workers,
        collate_fn=collate,
        pin_memory=pin_memory,
        worker_init_fn=init_worker,
        prefetch_factor=4 if num_workers else None,
        timeout=timeout if num_workers else 0,
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
    timeout: float = 0,
) -> Batches:
    """Every image once over all ranks, rank r taking r, r + world, ...: no padding, hence no duplicates.

    A batch holds images of one padded size, so that no image's detections depend on its neighbours.

    timeout: as for `train_loader`.
    """
    positions = np.arange(rank, len(dataset), world)
    batches = same_size_batches(positions, padded_sizes(dataset, collate.multiple), batch_size)
    end_workers_at_exit()
    return Loader(
        dataset,
        batch_sampler=batches,
        num_workers=num_workers,
        collate_fn=collate,
        pin_memory=pin_memory,
        worker_init_fn=init_worker,
        timeout=timeout if num_workers else 0,
        generator=own_generator(),
    )


def padded_sizes(dataset: EvalDataset, multiple: int) -> np.ndarray:
    """int64 [I, 2], (height, width) of every image at the network's input, up to a multiple; zeros where the transform
    does not tell: its images are taken to be of one size.
    """
    input_size = getattr(dataset.transform, "input_size", None)
    sizes = dataset.store.index.sizes
    if input_size is None:
        return np.zeros_like(sizes)
    made = np.array([input_size(height, width) for height, width in sizes.tolist()], np.int64).reshape(-1, 2)
    return -(-made // multiple) * multiple


def same_size_batches(positions: np.ndarray, sizes: np.ndarray, batch_size: int) -> list[list[int]]:
    """The positions [n] in batches of at most `batch_size` with equal `sizes` [I, 2], each size in the given order."""
    _, group = np.unique(sizes[positions], axis=0, return_inverse=True)
    group = group.reshape(-1)
    batches = []
    for number in range(int(group.max(initial=-1)) + 1):
        own = positions[group == number]
        batches += [own[i : i + batch_size].tolist() for i in range(0, len(own), batch_size)]
    return batches
