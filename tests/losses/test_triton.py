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

    tile = {"ROWS": kernels.ROWS, "COLUMNS": kernels.COLUMNS, "TILES": kernels.TILES, "IGNORED_LABEL": IGNORED}
    for dtype, late in (("fp32", False), ("bf16", False), ("fp16", False), ("fp16", True)):
        vectors = dict.fromkeys(("positive_gradient", "exponent", "log2_weight"), "*fp32")
        written = dict.fromkeys(("loss_sums", "negative_sums", "positive_sums"), "*fp32")
        has_gradient = late or dtype != "fp16"
        types = {"logits": f"*{dtype}", "labels": "*i64", **vectors}
        none = {}
        for has, more in (
            (late, {"factor": "*fp32"}),
            (has_gradient, {"gradient": f"*{dtype}"}),
            (not late, written),
        ):
            if has:
                types |= more
            else:
                none |= dict.fromkeys(more)
        types |= dict.fromkeys(("n", "c", "strips", "row_units"), "i32")
        flags = {"HAS_FACTOR": late, "HAS_GRADIENT": has_gradient, "HAS_SUMS": not late}
        for unit in (1, kernels.UNIT):
            compiled(kernels._dense_kernel, types, **none, **flags, UNIT=unit, **tile)
        if not late:
            compiled(kernels._scale_kernel, {"gradient": f"*{dtype}", "factor": "*fp32", "n": "i32"}, BLOCK=4096)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_kernel__logits_on_another_device_than_the_current_one():
    device = torch.device("cuda", 1 - torch.cuda.current_device())
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        assert usable(device, dtype)
