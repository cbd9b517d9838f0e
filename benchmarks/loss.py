"""EFL and EQFL, forward, backward and statistic, against the formula as the paper writes it.

    python -m benchmarks.loss [--device cuda --batch 8] [--bf16] [--compile] [--grow]

The textbook formulation has one-hot targets, sigmoid, power and logarithm, autograd, and a second pass over the
gradient for the statistic. Both start from logits that are there already and end with the gradient of the logits; one
logits matrix is 77 MiB per image in float32. --compile adds torch.compile of the textbook; --grow prints how ours grows
with categories and images instead.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.paired import begin, compare, measure, parser, print_header, table_row
from yolox_lt.losses import EqualizedFocalLoss, EqualizedQualityFocalLoss
from yolox_lt.losses.equalized import EqualizedLoss

PRIORS = 16_800
"""640 x 640 pixels, strides 8, 16, 32, two anchors a cell."""
CATEGORIES = 1203
POSITIVES = 150
"""Of an image."""

Result = tuple[Tensor, Tensor, Tensor, Tensor]
"""Loss, gradient [N, C] of the logits, sums of |gradient| of positive and negative entries [C]."""


def case(batch: int, categories: int, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """Logits [N, C] as early in a training, labels [N] with a few positives, quality [N]."""
    generator = torch.Generator().manual_seed(0)
    n = batch * PRIORS
    logits = torch.randn(n, categories, generator=generator) * 1.5 - 5
    labels = torch.full((n,), -1)
    rows = torch.randperm(n, generator=generator)[: batch * POSITIVES]
    labels[rows] = torch.randint(categories, (len(rows),), generator=generator)
    quality = torch.rand(n, generator=generator) * (labels >= 0)
    return logits.to(device, dtype).requires_grad_(), labels.to(device), quality.to(device)


def ratios(categories: int, device: torch.device) -> Tensor:
    """A balance in the middle of a training [C]: from untouched to settled categories."""
    return torch.linspace(0, 1, categories, device=device)


def ours(loss: EqualizedLoss, logits: Tensor, labels: Tensor, quality: Tensor, normalizer: float) -> Result:
    balance = loss.balance
    balance.ratio.copy_(ratios(len(balance.ratio), logits.device))
    balance.pos_grad.zero_()
    balance.neg_grad.zero_()
    value = loss(logits, labels, quality, normalizer)
    (gradient,) = torch.autograd.grad(value, logits)
    return value.detach(), gradient, balance.pos_grad, balance.neg_grad


def efl(logits: Tensor, target: Tensor, quality: Tensor, exponent: Tensor) -> Tensor:
    """alpha_t w (1 - p_t)^gamma (-ln p_t), summed; target one-hot [N, C]."""
    p = logits.sigmoid()
    p_t = p * target + (1 - p) * (1 - target)
    alpha_t = 0.25 * target + 0.75 * (1 - target)
    return (alpha_t * (exponent / 2) * (1 - p_t) ** exponent * -torch.log(p_t)).sum()


def eqfl(logits: Tensor, target: Tensor, quality: Tensor, exponent: Tensor) -> Tensor:
    """w |q - p|^gamma BCE(p, q), summed; q is the quality at the positive entries and 0 elsewhere."""
    q = quality[:, None] * target
    bce = F.binary_cross_entropy_with_logits(logits, q, reduction="none")
    return ((exponent / 2) * (q - logits.sigmoid()).abs() ** exponent * bce).sum()


def textbook(
    formula: Callable[..., Tensor],
    scale: float,
    logits: Tensor,
    labels: Tensor,
    quality: Tensor,
    normalizer: float,
) -> Result:
    categories = logits.shape[1]
    positive = labels >= 0
    target = torch.zeros(logits.shape, device=logits.device)
    target[positive, labels[positive]] = 1.0
    exponent = 2 + scale * (1 - ratios(categories, logits.device))
    value = formula(logits.float(), target, quality, exponent) / normalizer
    (gradient,) = torch.autograd.grad(value, logits)
    absolute = gradient.float().abs()
    return value.detach(), gradient, (absolute * target).sum(0), (absolute * (1 - target)).sum(0)


def same(a: Result, b: Result, dtype: torch.dtype) -> None:
    """Loss to 1e-6 and gradients to 1e-5, relative; in bfloat16 the gradients to its rounding."""
    rtol = 1e-5 if dtype == torch.float32 else 2**-7
    torch.testing.assert_close(a[0], b[0], rtol=1e-6, atol=0)
    torch.testing.assert_close(a[1], b[1], rtol=rtol, atol=1e-9)
    for x, y in zip(a[2:], b[2:]):
        torch.testing.assert_close(x, y, rtol=rtol, atol=1e-8)


def formulations(categories: int, device: torch.device) -> list[tuple[str, EqualizedLoss, Callable[..., Tensor]]]:
    return [
        ("EFL", EqualizedFocalLoss(categories, scale=4.0).to(device), efl),
        ("EQFL", EqualizedQualityFocalLoss(categories, scale=4.0).to(device), eqfl),
    ]


def grow(device: torch.device, dtype: torch.dtype, repeats: int) -> None:
    print_header("loss", "images", "categories", "seconds", "ns an entry", "peak MiB", "peak in logits matrices")
    for batch, categories in [(1, 80), (1, 300), (1, 1203), (1, 5000), (2, 1203), (4, 1203), (8, 1203)]:
        arguments = case(batch, categories, device, dtype)
        for name, loss, _ in formulations(categories, device):
            result = measure(functools.partial(ours, loss, *arguments, 100.0), repeats, device)
            entries = arguments[0].numel()
            matrix = entries * arguments[0].itemsize / 2**20
            cells = [f"{result.median:.4f}", f"{result.median / entries * 1e9:.1f}", f"{result.peak:.0f}"]
            print(table_row(name, batch, categories, *cells, f"{result.peak / matrix:.2f}"), flush=True)


def main() -> None:
    options = parser(__doc__, device=True)
    options.add_argument("--batch", type=int, default=1, help="images (%(default)s)")
    options.add_argument("--categories", type=int, default=CATEGORIES, help="%(default)s")
    options.add_argument("--bf16", action="store_true", help="logits in bfloat16")
    options.add_argument("--compile", action="store_true", help="compare with torch.compile of the textbook too")
    options.add_argument("--grow", action="store_true", help="print how ours grows instead")
    args = options.parse_args()
    device = begin(args)
    dtype = torch.bfloat16 if args.bf16 else torch.float32
    if args.grow:
        grow(device, dtype, args.repeats)
        return
    arguments = case(args.batch, args.categories, device, dtype)
    matrix = arguments[0].numel() * arguments[0].itemsize / 2**20
    size = f"{args.batch} x {PRIORS:,} priors x {args.categories} categories"
    print(f"{size}, {dtype}: one logits matrix {matrix:.1f} MiB\n")
    print_header()
    for name, loss, formula in formulations(args.categories, device):
        for label, function in [("textbook", formula)] + [("compiled", torch.compile(formula))] * args.compile:
            result = compare(
                f"{name} / {label}",
                functools.partial(ours, loss, *arguments, 100.0),
                functools.partial(textbook, function, 4.0, *arguments, 100.0),
                functools.partial(same, dtype=dtype),
                args.repeats,
                reach=8 if label == "textbook" else None,
                device=device,
            )
            print(f"  peak in logits matrices: {result.ours.peak / matrix:.2f} and {result.other.peak / matrix:.2f}")


if __name__ == "__main__":
    main()
