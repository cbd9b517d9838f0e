"""Memory of this process: what becomes of blocks that a training step frees on the CPU, and the peak."""

from __future__ import annotations

import ctypes
import platform
import resource
import sys

import torch

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
KEPT_BYTES = 1 << 30


def keep_large_blocks() -> None:
    """Let glibc keep blocks of up to a GiB that this process frees, and up to a GiB at the end of its heap.

    By itself glibc gives every block above 32 MiB back to the system, so a step on the CPU fetches its logits and their
    gradients again, page by page: with 1203 categories a matrix for two images of 320 pixels has 39 MiB. Other C
    libraries are left as they are.
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(M_MMAP_THRESHOLD, KEPT_BYTES)
        libc.mallopt(M_TRIM_THRESHOLD, KEPT_BYTES)


def memory_megabytes(device: torch.device) -> float:
    """Peak memory of this process: allocated on the GPU, or resident on a CPU machine."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10
