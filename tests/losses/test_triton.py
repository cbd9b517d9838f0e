"""The Triton kernel against torch's operations, run by Triton's interpreter, so on any machine.

The interpreter has to be chosen before the kernel is defined, so the checks run in a process of their own.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

CHECK = """
import sys
import torch
from yolox_lt.losses import (EQLv2FocalLoss, EqualizedFocalLoss, EqualizedQualityFocalLoss, FocalLoss, QualityFocalLoss,
                             SigmoidLoss)
from yolox_lt.losses import kernel
from yolox_lt.losses.gpu_pass import gpu_pass, largest_difference, usable

LOSSES = {"sigmoid": lambda c: SigmoidLoss(), "focal": lambda c: FocalLoss(), "qfl": lambda c: QualityFocalLoss(),
          "efl": EqualizedFocalLoss, "eqfl": EqualizedQualityFocalLoss, "eqlv2": EQLv2FocalLoss}

def case(n, c, kind, dtype):
    g = torch.Generator().manual_seed(n + c)
    logits = torch.randn(n, c, generator=g) * 3 - 3
    if n:
        logits[0, 0], logits[n - 1, c - 1] = 100.0, -100.0
        logits[n // 2] = 1e4
    labels = torch.randint(-2, c, (n,), generator=g)
    if kind == "all background":
        labels[:] = -1
    elif kind == "no background":
        labels = labels.clamp(min=0)
    elif kind == "one category everywhere":
        labels[:] = c - 1
    quality = torch.rand(n, generator=g) * (labels >= 0)
    return logits.to(dtype), labels, quality

def run(make, c, arguments, dense_pass, factor):
    kernel.block_pass, kept = dense_pass, kernel.block_pass
    loss = make(c)
    if hasattr(loss, "balance"):
        loss.balance.ratio.copy_(torch.linspace(0, 1, c))
    logits = arguments[0].clone().requires_grad_()
    value = loss(logits, arguments[1], arguments[2], 7.0)
    (value * factor).backward()
    kernel.block_pass = kept
    sums = [loss.balance.pos_grad, loss.balance.neg_grad] if hasattr(loss, "balance") else []
    return [value.detach(), logits.grad, *sums]

def close(ours, reference, rtol, atol):
    for a, b in zip(ours, reference):
        assert a.dtype == b.dtype
        torch.testing.assert_close(a, b, rtol=rtol, atol=atol)

def losses():
    for make in LOSSES.values():
        for n, c, factor in [(1, 1, 1.0), (300, 1, 3.0), (17, 5, 1.0), (17, 5, 3.0), (20, 150, 1.0), (0, 4, 1.0)]:
            arguments = case(n, c, "mixed", torch.float32)
            close(*(run(make, c, arguments, f, factor) for f in (gpu_pass, kernel.block_pass)), 1e-5, 1e-7)
        for kind in ("all background", "no background", "one category everywhere"):
            arguments = case(40, 6, kind, torch.float32)
            ours, reference = (run(make, 6, arguments, f, 1.0) for f in (gpu_pass, kernel.block_pass))
            close(ours, reference, 1e-5, 1e-7)
            if kind == "one category everywhere" and len(ours) == 4:
                assert ours[3][5] == 0  # no negative gradient at all

def many_categories():
    arguments = case(40, 1203, "mixed", torch.float32)
    for make in (EqualizedFocalLoss, EqualizedQualityFocalLoss):
        close(*(run(make, 1203, arguments, f, 1.0) for f in (gpu_pass, kernel.block_pass)), 1e-5, 1e-7)

def half_precision():
    for dtype, rounding in ((torch.bfloat16, 2**-8), (torch.float16, 2**-11)):
        arguments = case(60, 9, "mixed", dtype)
        arguments[0].clamp_(-50, 50)
        ours, reference = (run(EqualizedQualityFocalLoss, 9, arguments, f, 1.0) for f in (gpu_pass, kernel.block_pass))
        close([ours[0], *ours[2:]], [reference[0], *reference[2:]], 1e-5, 1e-7)
        close([ours[1]], [reference[1]], 2 * rounding, 1e-7)

def layout():
    logits, labels, quality = case(40, 6, "mixed", torch.float32)
    same = run(EqualizedFocalLoss, 6, (logits, labels, quality), gpu_pass, 1.0)
    other = run(EqualizedFocalLoss, 6, (logits.T.contiguous().T, labels, quality), gpu_pass, 1.0)
    close(same, other, 0, 0)

def second_backward():
    kernel.block_pass = gpu_pass
    logits = torch.zeros(3, 2, requires_grad=True)
    value = FocalLoss()(logits, torch.tensor([0, 1, -1]))
    value.backward(retain_graph=True)
    try:
        value.backward()
    except RuntimeError as error:
        assert "second time" in str(error)
    else:
        raise AssertionError("a second backward must be refused")

def self_check():
    assert largest_difference(torch.device("cpu")) < 1e-5
    assert usable(torch.device("cpu"))

for name in sys.argv[1:]:
    globals()[name]()
    print(name)
"""


@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed")
def test_triton__equals_torch():
    checks = ["losses", "many_categories", "half_precision", "layout", "second_backward", "self_check"]
    done = subprocess.run(
        [sys.executable, "-c", CHECK, *checks],
        cwd=ROOT,
        env={**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.stdout.split() == checks, done.stderr[-3000:]
