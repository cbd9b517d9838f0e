"""The dense pass on a CUDA GPU: positive entries as vectors, everything else in one Triton kernel.

`kernel.dense_pass` comes here by itself. Before the first use on a GPU a small case is computed both ways; where Triton
is missing, cannot compile or differs, the loss says so once and stays with torch's operations.
"""

from __future__ import annotations

import functools
import importlib.util

import torch
from loguru import logger
from torch import Tensor

from yolox_lt.losses.kernel import DenseResult, PositiveTerm, block_pass, softplus
from yolox_lt.types import IGNORED


def gpu_pass(
    logits: Tensor,
    labels: Tensor,
    quality: Tensor | None,
    positive: PositiveTerm,
    exponent: Tensor | None,
    weight: Tensor,
    normalizer: Tensor,
) -> DenseResult:
    """`kernel.dense_pass` of float32, bfloat16 or float16 logits, without the host waiting for the device.

    The gradient has the dtype of the logits, or float32 for float16: small values must survive until they are
    multiplied by the loss scale.
    """
    from yolox_lt.losses.triton_kernel import negative_pass, scale_in_place

    categories = logits.shape[1]
    has_object = labels >= 0
    own = labels.clamp(min=0)
    own_logits = logits.gather(1, own[:, None]).squeeze(1).float()  # [N, C] -> [N]
    pos_loss, pos_grad = positive(own_logits, own, None if quality is None else quality.float())
    pos_loss, pos_grad = (torch.where(has_object, term / normalizer.float(), 0.0) for term in (pos_loss, pos_grad))
    exponent = torch.zeros(categories, device=logits.device) if exponent is None else exponent.float()
    dtype = torch.float32 if logits.dtype == torch.float16 else logits.dtype
    gradient, loss, negative = negative_pass(
        logits.contiguous(), labels, pos_grad, exponent, (weight / normalizer).float(), dtype
    )
    pos_sum = torch.zeros(categories, dtype=torch.float64, device=logits.device)
    pos_sum.index_add_(0, own, pos_grad.abs().double())
    total = loss.sum() + pos_loss.double().sum()
    scale = scale_in_place if dtype == logits.dtype else None
    return DenseResult(total.float(), gradient, pos_sum, negative, scale)


@functools.cache
def usable(device: torch.device) -> bool:
    """Whether `gpu_pass` works on this device and agrees with torch's operations; decided once, and said if not."""
    if importlib.util.find_spec("triton") is None:
        logger.info(f"the loss runs on {device} with torch's operations: triton is not installed")
        return False
    try:
        difference = largest_difference(device)
    except Exception as error:  # a compiler's errors are of any type, and training must not depend on it
        logger.warning(
            f"the loss runs on {device} with torch's operations: the Triton kernel failed ({type(error).__name__}: "
            f"{error}); update triton to have it"
        )
        return False
    if not difference < 1e-4:
        logger.warning(
            f"the loss runs on {device} with torch's operations: the Triton kernel's results differ by {difference:.1e}"
        )
        return False
    return True


def largest_difference(device: torch.device) -> float:
    """Largest relative difference between both passes on a made-up case: loss, gradient and sums."""
    generator = torch.Generator().manual_seed(0)
    n, c = 300, 150
    logits = (torch.randn(n, c, generator=generator) * 3 - 3).to(device)
    labels = torch.randint(IGNORED, c, (n,), generator=generator).to(device)
    exponent, weight = torch.linspace(2, 8, c, device=device), torch.linspace(0.5, 3, c, device=device)

    def positive(x: Tensor, labels: Tensor, quality: Tensor | None) -> tuple[Tensor, Tensor]:
        return softplus(-x), torch.sigmoid(x) - 1

    arguments = (logits, labels, None, positive, exponent, weight.double(), torch.tensor(7.0, device=device).double())
    ours, reference = gpu_pass(*arguments), block_pass(*arguments)
    pairs = [(getattr(ours, name), getattr(reference, name)) for name in ("loss", "gradient", "pos_grad", "neg_grad")]
    return max(float((a - b).abs().max() / b.abs().max()) for a, b in pairs)
