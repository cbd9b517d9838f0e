"""Freed blocks are kept: a step does not fetch its matrices again, page by page."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="mallopt is glibc's")

MATRICES = """
import resource, sys, torch
from yolox_lt.train.memory import keep_large_blocks
if sys.argv[1] == "keep":
    keep_large_blocks()
def work():
    for _ in range(10):
        torch.ones(10 << 20)  # 40 MiB
work()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
work()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(mode: str) -> int:
    done = subprocess.run([sys.executable, "-c", MATRICES, mode], capture_output=True, text=True, check=True)
    return int(done.stdout)


def test_keep_large_blocks__pages_are_not_fetched_again():
    assert faults("keep") < 0.05 * faults("leave")
