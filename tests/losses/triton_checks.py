"""What test_triton runs in a process with Triton's interpreter: each function named on the command line, in turn."""

import sys

import pytest
import torch
from loguru import logger

from yolox_lt.losses import (
    EQLv2FocalLoss,
    EqualizedFocalLoss,
    EqualizedQualityFocalLoss,
    FocalLoss,
    QualityFocalLoss,
    SigmoidLoss,
    kernel,
    triton_kernel,
)
from yolox_lt.losses import gpu_pass as gpu
from yolox_lt.losses.gpu_pass import differences, gpu_pass, usable

LOSSES = {
    "sigmoid": lambda c: SigmoidLoss(),
    "focal": lambda c: FocalLoss(),
    "qfl": lambda c: QualityFocalLoss(),
    "efl": EqualizedFocalLoss,
    "eqfl": EqualizedQualityFocalLoss,
    "eqlv2": EQLv2FocalLoss,
}


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
    arguments = case(9, 1203, "mixed", torch.float32)
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
    with pytest.raises(RuntimeError, match="second time"):
        value.backward()


CPU = torch.device("cpu")
DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def self_check():
    for dtype in DTYPES:
        found = differences(CPU, dtype)
        assert len(found) == 5
        for value, allowed in found.values():
            assert value < allowed, (dtype, found)
    gpu.CHECK_SIZE = (40, 150)  # the same comparison again, which takes the interpreter seconds
    assert all(usable(CPU, dtype) for dtype in DTYPES)
    gpu.CHECK_SIZE = (300, 150)


def told(function, *arguments):
    """What the call says, line by line, and what it gives."""
    lines = []
    handler = logger.add(lambda line: lines.append(str(line)), level="INFO")
    try:
        return lines, function(*arguments)
    finally:
        logger.remove(handler)


def self_check_finds_what_is_wrong():
    real_pass, real_scale, real_late = triton_kernel.negative_pass, triton_kernel.scale, triton_kernel.scaled_gradient

    def spoilt(position, value):
        def negative_pass(*arguments):
            results = real_pass(*arguments)
            if results[position] is not None:
                last = results[position][..., -1]
                last.copy_(last * 1.5 if value is None else torch.full_like(last, value))
            return results

        return negative_pass

    def spoilt_scale(gradient, factor):
        result = real_scale(gradient, factor)
        return result * float("nan") if factor != 1 else result

    def spoilt_late(*arguments):
        result = real_late(*arguments)
        return result * float("nan") if arguments[-1] != 1 else result

    def no_kernel(*arguments):
        raise RuntimeError("PTX")

    gpu.CHECK_SIZE = (12, 150)
    names = {0: "gradient x 1 by inf", 1: "loss by", 2: "negative sums by", 3: "positive sums by"}
    for dtype in DTYPES:
        for position, name in names.items():
            if (position == 0) == (dtype == torch.float16):
                continue  # its gradient is made late; sums are tried once
            triton_kernel.negative_pass = spoilt(position, float("nan"))
            usable.cache_clear()
            lines, works = told(usable, CPU, dtype)
            assert (works, name in lines[0], str(dtype)[6:] in lines[0]) == (False, True, True), lines
        triton_kernel.negative_pass = spoilt(2, None)  # finite, but wrong
        usable.cache_clear()
        assert not told(usable, CPU, dtype)[1]
        triton_kernel.negative_pass = real_pass
        triton_kernel.scale, triton_kernel.scaled_gradient = spoilt_scale, spoilt_late
        usable.cache_clear()
        lines, works = told(usable, CPU, dtype)
        assert (works, "gradient x 0.25 by inf" in lines[0]) == (False, True), lines
        triton_kernel.scale, triton_kernel.scaled_gradient = real_scale, real_late
    kept, triton_kernel._launch = triton_kernel._launch, no_kernel
    for dtype in DTYPES:
        usable.cache_clear()
        lines, works = told(usable, CPU, dtype)
        assert (works, "RuntimeError: PTX" in lines[0]) == (False, True), lines
    triton_kernel._launch = kept
    gpu.CHECK_SIZE = (300, 150)


def failing_kernels():
    backward = {torch.float16: ("scaled_gradient", "gradient of this step is made")}
    for dtype, rounding in ((torch.float32, 1e-6), (torch.bfloat16, 2**-7), (torch.float16, 2**-10)):
        forward = ("negative_pass", "the loss of this step")
        for broken, sign in (forward, backward.get(dtype, ("scale", "gradient of this step is scaled"))):

            def raises(*arguments):
                raise RuntimeError("no kernel image")

            kept = getattr(triton_kernel, broken)
            setattr(triton_kernel, broken, raises)
            arguments = case(40, 6, "mixed", dtype)
            for _ in range(2):  # told every time
                lines, ours = told(run, EqualizedQualityFocalLoss, 6, arguments, gpu_pass, 0.25)
                assert (len(lines), sign in lines[0], "no kernel image" in lines[0]) == (1, True, True), lines
                close(ours, run(EqualizedQualityFocalLoss, 6, arguments, kernel.block_pass, 0.25), rounding, 1e-7)
            setattr(triton_kernel, broken, kept)


def padded_rows():
    """Rows further apart than they are long, at multiples of eight entries and elsewhere, with and without memory
    behind the last one; what lies between them counts nowhere."""
    for dtype in DTYPES:
        for n, c, between, behind in (
            (1, 1, 5, 5),
            (1, 5, 5, 5),
            (40, 6, 5, 5),
            (40, 203, 5, 5),
            (40, 203, 5, 0),
            (300, 3, 5, 1),  # two stretches of rows
            (5, 251, 5, 5),
        ):
            logits, labels, quality = case(n, c, "mixed", dtype)
            memory = torch.full((n * (c + between) - between + behind,), float("nan"), dtype=dtype)
            apart = memory.as_strided((n, c), (c + between, 1))
            apart.copy_(logits)
            same = run(EqualizedQualityFocalLoss, c, (logits, labels, quality), gpu_pass, 3.0)
            result = kernel_gradient(apart, labels, quality)
            assert result.stride() == (c + between if n > 1 else c, 1)
            close([result], [same[1]], 0, 0)


def kernel_gradient(logits, labels, quality):
    """The gradient of 3 x EQFL as the kernel leaves it; autograd would copy it for a leaf."""
    made = []

    def kept_pass(*arguments):
        result = gpu_pass(*arguments)
        real = result.backward
        result.backward = lambda *a: made.append(real(*a)) or made[0]
        return result

    kernel.block_pass, block = kept_pass, kernel.block_pass
    loss = EqualizedQualityFocalLoss(logits.shape[1])
    loss.balance.ratio.copy_(torch.linspace(0, 1, logits.shape[1]))
    (3.0 * loss(logits.detach().requires_grad_(), labels, quality, 7.0)).backward()
    kernel.block_pass = block
    return made[0]


def background_is_added_nowhere():
    loss = EqualizedFocalLoss(3)
    kernel.block_pass, kept = gpu_pass, kernel.block_pass
    loss(torch.zeros(50, 3, requires_grad=True), torch.tensor([-1] * 48 + [-2, 2]), None, 7.0)
    kernel.block_pass = kept
    assert (loss.balance.pos_grad > 0).tolist() == [False, False, True]


if __name__ == "__main__":
    for name in sys.argv[1:]:
        globals()[name]()
        print(name)
