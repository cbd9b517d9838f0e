"""Host waits of a step, counted on a CPU."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks.host_waits import HostWaits

ROOT = Path(__file__).resolve().parents[2]


def test_waits__what_counts_and_what_does_not():
    x, mask, numbers = torch.arange(4.0), torch.tensor([True, False, True, True]), torch.tensor([1, 2])
    waiting = [lambda: x[mask], mask.nonzero, lambda: float(x[0]), x.tolist, lambda: bool(mask.any())]
    waiting += [lambda: torch.tensor([1.0], device="cpu"), lambda: torch.repeat_interleave(numbers, numbers)]
    waiting += [lambda: torch.bincount(numbers), lambda: x.new_tensor([2.0])]
    at_once = [lambda: x[numbers], lambda: torch.where(mask, x, 0.0), lambda: x.new_full((), 3.0), x.sum]
    at_once += [lambda: torch.tensor([1.0]), lambda: torch.repeat_interleave(numbers, numbers, output_size=3)]
    at_once += [lambda: torch.as_tensor(x, device="cpu"), lambda: torch.arange(3, device="cpu")]
    counts = []
    for call in (*waiting, *at_once):
        with HostWaits() as waits:
            call()
        counts.append(sum(waits.places.values()))
    assert counts == [1] * len(waiting) + [0] * len(at_once)


@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed")
def test_steps__wait_as_seldom_as_is_said():
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.host_waits"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    counts = dict(re.findall(r"^(\S+), two images: (\d+)$", done.stdout, re.MULTILINE))
    assert {name: int(count) for name, count in counts.items()} == {
        "lvis/yolox_m_eqfl.py": 2,  # the pairs of ATSS, the positives of the batch
        "lvis/yolox_m.py": 3,  # the candidates of each image, the positives
        "lvis/efl_r50.py": 2,
        "lvis/retinanet_r50_focal.py": 3,  # the usable objects of each image, the positives
        "lvis/paa_r50_focal.py": 17,
    }, done.stdout
