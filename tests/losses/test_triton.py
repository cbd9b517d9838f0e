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
import torch

from yolox_lt.losses.gpu_pass import usable
from yolox_lt.types import IGNORED

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed")
def test_triton__equals_torch():
    checks = ["losses", "many_categories", "half_precision", "layout", "second_backward", "self_check"]
    checks += ["self_check_finds_what_is_wrong", "failing_kernels", "padded_rows", "background_is_added_nowhere"]
    done = subprocess.run(
        [sys.executable, "-m", "tests.losses.triton_checks", *checks],
        cwd=ROOT,
        env={**os.environ, "TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
    )
    assert done.stdout.split() == checks, done.stderr[-3000:]


@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed")
@pytest.mark.parametrize("capability", [75, 80, 90, 100])
def test_kernels__compile_for_gpus_that_are_not_here(capability):
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource, compile

    from yolox_lt.losses import triton_kernel as kernels

    def compiled(kernel, types: dict[str, str], **constants: object) -> None:
        types = types | dict.fromkeys(constants, "constexpr")
        compile(ASTSource(kernel, types, constants), target=GPUTarget("cuda", capability, 32))

    for logits, gradient in (("fp32", "fp32"), ("bf16", "bf16"), ("fp16", "fp32")):
        vectors = dict.fromkeys(("positive_gradient", "exponent", "weight"), "*fp32")
        sums = dict.fromkeys(("loss_sums", "negative_sums", "positive_sums"), "*fp32")
        types = {"logits": f"*{logits}", "labels": "*i64", **vectors, "gradient": f"*{gradient}", **sums}
        types |= dict.fromkeys(("n", "c", "row_stride"), "i32")
        tile = {"ROWS": kernels.ROWS, "COLUMNS": kernels.COLUMNS, "TILES": kernels.TILES}
        compiled(kernels._dense_kernel, types, IGNORED_LABEL=IGNORED, **tile)
        types = {"gradient": f"*{gradient}", "factor": "*fp32", "n": "i32"}
        compiled(kernels._scale_kernel, types, BLOCK=4096)
    types = {"gradient": "*fp32", "half": "*fp16", "factor": "*fp32", "c": "i32", "row_stride": "i32"}
    compiled(kernels._halve_kernel, types, BLOCK=2048)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_kernel__logits_on_another_device_than_the_current_one():
    device = torch.device("cuda", 1 - torch.cuda.current_device())
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        assert usable(device, dtype)
