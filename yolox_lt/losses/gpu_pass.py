"""The dense pass on a CUDA GPU: positive entries as vectors, everything else in one Triton kernel.

`dense.dense_pass` comes here by itself. Before the first use on a GPU, and for each dtype, a small case is computed
both ways; where Triton is missing, cannot compile or differs, the loss says so once and stays with torch's operations.
Where a kernel fails later, torch's operations take its place, and that is said every time.
"""

from __future__ import annotations

import functools
import importlib.util

import torch
from loguru import logger
from torch import Tensor

from yolox_lt.losses.kernel import DenseResult, PositiveTerm, block_pass, softplus
from yolox_lt.types import IGNORED

CHECK_SIZE = (300, 150)
"""Rows and categories of the check: more than one program's of both."""


def gpu_pass(
    logits: Tensor,
    labels: Tensor,
    quality: Tensor | None,
    positive: PositiveTerm,
    exponent: Tensor | None,
    weight: Tensor,
    normalizer: Tensor,
) -> DenseResult:
    """`dense.dense_pass` of float32, bfloat16 or float16 logits, without the host waiting for the device."""
    arguments = (logits, labels, quality, positive, exponent, weight, normalizer)
    try:
        return kernel_pass(*arguments)
    except torch.OutOfMemoryError:
        raise  # torch's operations need more
    except Exception as error:  # a compiler's and a driver's errors are of any type
        logger.warning(f"the loss of this step runs with torch's operations: {failure(error)}")
        return block_pass(*arguments)


def kernel_pass(
    logits: Tensor,
    labels: Tensor,
    quality: Tensor | None,
    positive: PositiveTerm,
    exponent: Tensor | None,
    weight: Tensor,
    normalizer: Tensor,
) -> DenseResult:
    """`gpu_pass` by the kernel alone; its errors are told."""
    from yolox_lt.losses.triton_kernel import negative_pass

    n, categories = logits.shape
    if logits.stride(1) != 1 or (n > 1 and logits.stride(0) < categories):
        logits = logits.contiguous()
    has_object = labels >= 0
    own = labels.clamp(min=0)
    own_logits = logits.gather(1, own[:, None]).squeeze(1).float()  # [N, C] -> [N]
    pos_loss, pos_grad = positive(own_logits, own, None if quality is None else quality.float())
    pos_loss, pos_grad = (torch.where(has_object, term / normalizer.float(), 0.0) for term in (pos_loss, pos_grad))
    exponent = torch.zeros(categories, device=logits.device) if exponent is None else exponent.float()
    inputs = (logits.detach(), labels, pos_grad, exponent, (weight / normalizer).float())
    at_once = logits.dtype != torch.float16  # whose small values must survive until the loss scale is known
    gradient, loss, neg_sum, pos_sum = negative_pass(*inputs, at_once)
    total = (loss.sum() + pos_loss.double().sum()).float()
    if gradient is None:
        return DenseResult(total, pos_sum, neg_sum, inputs, made_late)
    return DenseResult(total, pos_sum, neg_sum, (gradient,), scaled, in_place=True)


def scaled(gradient: Tensor, factor: Tensor) -> Tensor:
    """`triton_kernel.scale`; with torch's operations, which is said, where the kernel fails."""
    from yolox_lt.losses.triton_kernel import scale

    try:
        return scale(gradient, factor)
    except Exception as error:  # as above; a kernel that was not launched has changed nothing
        logger.warning(f"the loss's gradient of this step is scaled with torch's operations: {failure(error)}")
        return (gradient * factor).to(gradient.dtype)


def made_late(logits: Tensor, *others: Tensor) -> Tensor:
    """`triton_kernel.scaled_gradient`; with torch's operations, which is said, where the kernel fails."""
    from yolox_lt.losses.triton_kernel import scaled_gradient

    try:
        return scaled_gradient(logits, *others)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # as above
        logger.warning(f"the loss's gradient of this step is made with torch's operations: {failure(error)}")
    labels, positive_gradient, exponent, weight, factor = others

    def positive(x: Tensor, own: Tensor, quality: Tensor | None) -> tuple[Tensor, Tensor]:
        return torch.zeros_like(x), positive_gradient[labels >= 0]

    result = block_pass(logits, labels, None, positive, exponent, weight, torch.ones((), device=logits.device))
    return result.backward(*result.saved, factor)


def failure(error: Exception) -> str:
    """What is said of an error of the kernels."""
    return f"the Triton kernel failed ({type(error).__name__}: {error}); update triton to have it"


@functools.cache
def usable(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether the kernels work for this device and dtype and agree with torch's operations; decided once.

    Where they do not, it is said.
    """
    where = f"the loss of {str(dtype).removeprefix('torch.')} logits runs on {device} with torch's operations"
    if importlib.util.find_spec("triton") is None:
        logger.info(f"{where}: triton is not installed")
        return False
    try:
        found = differences(device, dtype)
    except Exception as error:  # a compiler's errors are of any type, and training must not depend on it
        logger.warning(f"{where}: {failure(error)}")
        return False
    wrong = {name: value for name, (value, allowed) in found.items() if not value <= allowed}
    if wrong:
        listed = ", ".join(f"{name} by {value:.1e}" for name, value in wrong.items())
        logger.warning(f"{where}: the Triton kernel's results differ: {listed}")
    return not wrong


def differences(device: torch.device, dtype: torch.dtype) -> dict[str, tuple[float, float]]:
    """Difference between the kernels and torch's operations on a made-up case, and what is allowed, by name.

    Of loss, gradient, both sums, and the gradient as backward gives it with factors 1 and 0.25; relative to the largest
    value, inf where a value is not finite. Rows lie further apart than they are long, as the classifiers give them.
    """
    generator = torch.Generator().manual_seed(0)
    n, c = CHECK_SIZE
    logits = (torch.randn(n, c + 2, generator=generator) * 3 - 3).to(device, dtype)[:, :c]
    labels = torch.randint(IGNORED, c, (n,), generator=generator).to(device)
    exponent, weight = torch.linspace(2, 8, c, device=device), torch.linspace(0.5, 3, c, device=device)

    def positive(x: Tensor, labels: Tensor, quality: Tensor | None) -> tuple[Tensor, Tensor]:
        return softplus(-x), torch.sigmoid(x) - 1

    arguments = (logits, labels, None, positive, exponent, weight.double(), torch.tensor(7.0, device=device).double())
    exact, rounded = 1e-4, max(1e-4, torch.finfo(dtype).eps)
    reference, found = block_pass(*arguments), {}
    for number in (1.0, 0.25):
        ours, factor = kernel_pass(*arguments), torch.tensor(number, device=device)
        gradients = [result.backward(*result.saved, factor) for result in (ours, reference)]
        found[f"gradient x {number:g}"] = (largest(*gradients), rounded)
    return found | {
        "loss": (largest(ours.loss, reference.loss), exact),
        "positive sums": (largest(ours.pos_grad, reference.pos_grad), exact),
        "negative sums": (largest(ours.neg_grad, reference.neg_grad), exact),
    }


def largest(a: Tensor, b: Tensor) -> float:
    """Largest difference as a share of the largest value of `b`; inf where one of them is not finite."""
    difference = float((a.double() - b.double()).abs().max() / b.double().abs().max())
    return difference if torch.isfinite(a).all() and torch.isfinite(b).all() else float("inf")
