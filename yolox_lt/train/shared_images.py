"""Decoded images in memory (--cache): once a machine, whatever the number of ranks on it."""

from __future__ import annotations

import contextlib
import mmap
import os
import shutil
import socket
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch.distributed as dist
from loguru import logger

from yolox_lt.data.dataset import BadImageError, ImageStore
from yolox_lt.distributed.collectives import RankGroups

SHARED_MEMORY = Path("/dev/shm")  # nosec B108: a file of a random name
"""Where files are memory on Linux; containers may leave it small."""


def share_images(store: ImageStore, ranks: RankGroups) -> None:
    """Keep every readable image of a store: the first rank of a machine decodes, the others map the same memory.

    All ranks call it together.
    """
    group = ranks.objects
    if group is None:
        store.fill_memory()
        return
    everyone: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(everyone, socket.gethostname(), group=group)
    leader = everyone.index(everyone[dist.get_rank()])
    is_leader = leader == dist.get_rank()
    file = None
    filled: tuple[str, list[int]] = ("", [])
    if is_leader:
        file = fill(store)
        filled = file.name, sorted(store.memory)
    dist.all_gather_object(everyone, filled, group=group)
    name, positions = everyone[leader]
    if not is_leader:
        with open(name, "r+b") as shared:
            map_images(store, shared.fileno(), positions)
    dist.barrier(group=group)
    if file is not None:
        file.close()
        os.unlink(name)  # the memory stays until the last rank ends


def fill(store: ImageStore) -> Any:
    """The open file of a store's images, which the store now reads from memory."""
    room = SHARED_MEMORY.is_dir() and shutil.disk_usage(SHARED_MEMORY).free > 1.1 * store.bytes()
    file = tempfile.NamedTemporaryFile(prefix="yolox_lt-", dir=SHARED_MEMORY if room else None, delete=False)  # noqa: SIM115
    try:
        os.posix_fallocate(file.fileno(), 0, max(store.bytes(), 1))
    except OSError:  # too little room: told by the caller
        os.unlink(file.name)
        raise
    map_images(store, file.fileno(), range(len(store.index)))
    views = dict(store.memory)
    store.memory.clear()
    for position, view in views.items():
        with contextlib.suppress(BadImageError):  # stays out, so that reading it later reports it as ever
            view[...] = store.read(position)
            view.setflags(write=False)
            store.memory[position] = view
    logger.info(f"{len(store.memory):,} images are in memory once for all ranks of this machine")
    return file


def map_images(store: ImageStore, descriptor: int, positions: Any) -> None:
    """Let the store read the images at `positions` from a mapped file."""
    ends = np.concatenate([[0], np.cumsum(3 * store.index.sizes.prod(axis=1))])
    whole = np.frombuffer(mmap.mmap(descriptor, max(int(ends[-1]), 1)), np.uint8)
    for position in positions:
        height, width = store.index.sizes[position].tolist()
        # The bytes of one image -> [H, W, 3].
        store.memory[position] = whole[ends[position] : ends[position + 1]].reshape(height, width, 3)
