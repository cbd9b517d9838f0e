"""Training steps on made-up images, on any device and in any precision; it alone knows the package's parts."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from benchmarks.train_step import objects
from yolox_lt.criterion import BaseCriterion
from yolox_lt.exp import DetectorExp, get_exp

ROOT = Path(__file__).resolve().parents[2]


def experiment(file: str, **settings: object) -> DetectorExp:
    """The experiment of a file below exps/ with changed settings."""
    exp = get_exp(ROOT / "exps" / file)
    for name, value in settings.items():
        setattr(exp, name, value)
    return exp


@dataclass
class Steps:
    """A model with everything that a step needs. scaler: None without fp16. skipped: steps that overflowed so far."""

    exp: DetectorExp
    model: nn.Module
    network: nn.Module
    preprocessor: nn.Module
    criterion: BaseCriterion
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler | None
    amp: torch.dtype | None
    images: Tensor
    boxes: Tensor
    labels: Tensor
    skipped: int = 0

    def __call__(self) -> dict[str, Tensor]:
        """One step: preprocess, forward, criterion, backward, clip, update, commit."""
        batch, _, *size = self.images.shape
        device = self.images.device
        network_input = self.preprocessor(self.images)
        with torch.autocast(device.type, dtype=self.amp, enabled=self.amp is not None):
            predictions, priors = self.network(network_input)
        losses = self.criterion(predictions, priors, [self.boxes] * batch, [self.labels] * batch, [tuple(size)] * batch)
        self.optimizer.zero_grad(set_to_none=True)
        total = torch.stack(list(losses.values())).sum()
        if self.scaler is None:
            total.backward()
            self.clip()
            self.optimizer.step()
            return losses
        self.scaler.scale(total).backward()
        self.scaler.unscale_(self.optimizer)
        self.clip()
        scale = self.scaler.get_scale()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.skipped += self.scaler.get_scale() < scale
        return losses

    def clip(self) -> None:
        """As the experiment asks for."""
        if self.exp.clip_norm is not None:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.exp.clip_norm)


def make_steps(
    exp: DetectorExp,
    device: torch.device,
    batch: int,
    size: tuple[int, int],
    amp: torch.dtype | None = None,
    criterion: BaseCriterion | None = None,
    wrap: Callable[[nn.Module], nn.Module] | None = None,
    channels_last: bool = True,
    lr: float = 1e-5,
) -> Steps:
    """Everything from seed 0, made on the CPU, so that devices start from the same numbers.

    criterion: in place of the experiment's. wrap: for example torch.compile. lr: of all groups.
    """
    torch.manual_seed(0)
    model = exp.get_model().train()
    layout = torch.channels_last if channels_last else torch.contiguous_format
    model = model.to(device, memory_format=layout)  # type: ignore[call-overload]
    criterion = (exp.get_criterion() if criterion is None else criterion).to(device)
    optimizer = exp.get_optimizer(batch, model)
    for group in optimizer.param_groups:
        group["lr"] = lr
    images = torch.randint(0, 255, (batch, 3, *size), dtype=torch.uint8).to(device)
    boxes, labels = objects(12, *size, exp.num_classes, device)
    scaler = torch.amp.GradScaler(device.type) if amp == torch.float16 else None
    network = model if wrap is None else wrap(model)
    return Steps(
        exp, model, network, exp.get_preprocessor().to(device), criterion, optimizer, scaler, amp, images, boxes, labels
    )


def wait(device: torch.device) -> None:
    """Until the device has done everything."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds_of(call: Callable[[], object], device: torch.device, warmup: int, repeats: int) -> float:
    """Mean seconds of a call, device included, over `repeats` calls after `warmup`."""
    for _ in range(warmup):
        call()
    wait(device)
    start = time.perf_counter()
    for _ in range(repeats):
        call()
    wait(device)
    return (time.perf_counter() - start) / repeats


def peak_gib(device: torch.device) -> float:
    """Peak memory allocated on the GPU since it was reset, nan on a CPU."""
    return torch.cuda.max_memory_allocated(device) / 2**30 if device.type == "cuda" else float("nan")


def reset_peak(device: torch.device) -> None:
    """Begin to look for the peak again, with an empty cache."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
