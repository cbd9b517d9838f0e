"""Part 1: the loss's kernel against torch's operations, against float64, and against the bandwidth of a copy."""

from __future__ import annotations

import functools
from unittest.mock import patch

import torch
from torch import Tensor

from benchmarks import loss as textbooks
from benchmarks.gpu.report import Report, Setup
from benchmarks.gpu.steps import device_seconds_of, reset_peak, seconds_of
from yolox_lt.models.pointwise import aligned

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
TOLERANCE = {torch.float32: 2e-5, torch.bfloat16: 2**-7, torch.float16: 2**-10}
FACTORS = (1.0, 0.25)
"""By which the gradient is multiplied in backward, as weights and loss scales do."""


def run(setup: Setup, report: Report) -> None:
    device = torch.device(setup.device)
    batch, categories = (1, 41) if setup.tiny else (16, textbooks.CATEGORIES)
    bandwidth = copy_bandwidth(device, 2**20 if setup.tiny else 2**29)
    report.figure("copy bandwidth", bandwidth / 1e9, "GB/s")
    for name, dtype in DTYPES.items():
        logits, labels, quality = textbooks.case(batch, categories, device, dtype)
        logits = as_from_network(logits)
        matrix = logits.numel() * logits.itemsize
        report.say(f"{name}: N = {len(logits):,}, C = {categories}, one logits matrix {matrix / 2**20:.0f} MiB")
        for title, loss, formula in textbooks.formulations(categories, device):
            for factor in FACTORS:
                compare(report, f"{title} {name} factor {factor}", loss, (logits, labels, quality), factor)
            call = functools.partial(value_and_gradient, loss, logits, labels, quality, 1.0)
            reset_peak(device)
            before = torch.cuda.memory_allocated(device) if device.type == "cuda" else 0
            call()
            if device.type == "cuda":
                peak = (torch.cuda.max_memory_allocated(device) - before) / matrix
                report.reach(f"{title} {name} peak in logits matrices", peak, 1.3, at_least=False)
            repeats = 3 if setup.tiny else 15
            seconds = device_seconds_of(call, device, 3, repeats)
            report.figure(f"{title} {name} time of the device", 1e3 * seconds, "ms")
            report.figure(f"{title} {name} time with the host", 1e3 * seconds_of(call, device, 1, repeats), "ms")
            if device.type == "cuda":
                # Read once and written once; float16 is read a second time when the loss scale is known.
                moved = (3 if dtype == torch.float16 else 2) * logits.numel() * logits.itemsize
                report.reach(f"{title} {name} share of the copy bandwidth", moved / seconds / bandwidth, 0.7)
            if dtype == torch.float32:
                beside(setup, report, f"{title} {name}", formula, (logits, labels, quality), seconds)


def as_from_network(logits: Tensor) -> Tensor:
    """The same values in rows as far apart as the network's classifier makes them."""
    n, categories = logits.shape
    rows = logits.detach().new_zeros(n, aligned(categories, logits))[:, :categories]
    rows.copy_(logits.detach())
    return rows.requires_grad_()


def value_and_gradient(
    loss: torch.nn.Module, logits: Tensor, labels: Tensor, quality: Tensor, factor: float
) -> list[Tensor]:
    """Loss and the gradient of factor x loss; the balance continues from where it is."""
    value = loss(logits, labels, quality, 100.0)
    (gradient,) = torch.autograd.grad(value * factor, logits)
    return [value.detach(), gradient]


def compare(
    report: Report, name: str, loss: torch.nn.Module, case: tuple[Tensor, Tensor, Tensor], factor: float
) -> None:
    """Kernel against torch's operations on all rows, and against float64 on the first 4096."""
    logits, labels, quality = case
    tolerance = TOLERANCE[logits.dtype]

    def result(x: Tensor, rows: int, dtype: torch.dtype) -> list[Tensor]:
        balance = loss.balance
        balance.ratio.copy_(textbooks.ratios(len(balance.ratio), x.device))
        balance.pos_grad.zero_()
        balance.neg_grad.zero_()
        x = x[:rows].detach().to(dtype).requires_grad_()
        found = value_and_gradient(
            loss, x, labels[:rows], quality[:rows].to(torch.promote_types(dtype, torch.float32)), factor
        )
        return [*found, balance.pos_grad.clone(), balance.neg_grad.clone()]

    ours = result(logits, len(logits), logits.dtype)
    with patch("yolox_lt.losses.gpu_pass.usable", lambda device, dtype: False):
        reference = result(logits, len(logits), logits.dtype)
    difference = max(relative(a, b) for a, b in zip(ours, reference))
    report.figure(f"{name}: largest relative difference to torch's operations", difference)
    report.check(f"{name} equals torch's operations to {tolerance:.1e}", difference < tolerance)
    first, exact = result(logits, 4096, logits.dtype), result(logits, 4096, torch.float64)
    difference = max(relative(a, b) for a, b in zip(first, exact))
    report.figure(f"{name}: largest relative difference to float64, 4096 rows", difference)
    report.check(f"{name} equals float64 to {tolerance:.1e}", difference < tolerance)


def relative(a: Tensor, b: Tensor) -> float:
    """Largest difference, as a share of the largest value; inf where one of them is not finite."""
    if not (torch.isfinite(a).all() and torch.isfinite(b).all()):
        return float("inf")
    return float((a.double() - b.double()).abs().max() / b.double().abs().max().clamp(min=1e-30))


def beside(setup: Setup, report: Report, name: str, formula: object, case: tuple[Tensor, ...], seconds: float) -> None:
    """The textbook's formulation, and torch.compile of it."""
    device = case[0].device
    forms = {"textbook": formula}
    if device.type == "cuda":
        forms["compiled textbook"] = torch.compile(formula)
    for title, function in forms.items():
        try:
            call = functools.partial(textbooks.textbook, function, 4.0, *case, 100.0)
            other = seconds_of(call, device, 2, 2 if setup.tiny else 5)
        except Exception as error:  # a comparison that cannot be made is told, and the others continue
            report.say(f"{name}, {title}: not run ({type(error).__name__}: {str(error)[:200]})")
            continue
        report.figure(f"{name}: {title} over ours", other / seconds, "times")


def copy_bandwidth(device: torch.device, size: int) -> float:
    """Bytes a second, read and written, of copying float32 values."""
    source = torch.zeros(size, device=device)
    target = torch.empty_like(source)
    return 2 * 4 * size / seconds_of(lambda: target.copy_(source), device, 3, 10)
