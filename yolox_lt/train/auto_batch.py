"""`-b auto`: the largest batch that a GPU's memory takes, by trying."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from loguru import logger

from yolox_lt.distributed.processes import ProcessInfo
from yolox_lt.errors import UserError
from yolox_lt.exp.detection import DetectorExp, preprocessor_of

MOST_MEMORY = 0.9
"""Share of the GPU's memory that a step may take: the rest is for evaluation, fragments and other processes."""

OBJECTS = 30
"""Objects of each image that is tried. Our choice: more than most images have."""


def largest_batch(try_step: Callable[[int], float], most: int) -> int:
    """The largest power of two of images, up to `most`, that can be trained with; 0 if not even one can.

    Args:
        try_step: trains with this many images -> the share of the memory that this took; raises torch.OutOfMemoryError.
    """
    found, size = 0, 1
    while size <= most:
        try:
            used = try_step(size)
        except torch.OutOfMemoryError:
            break
        if used > MOST_MEMORY:
            break
        found, size = size, 2 * size
    return found


def auto_batch(exp: DetectorExp, process: ProcessInfo, amp: torch.dtype | None) -> int:
    """Images of one step over all ranks and accumulated batches; the largest that this rank's GPU takes.

    Raises:
        UserError: no GPU, or one that is too small for a single image.
    """
    if process.device.type != "cuda":
        raise UserError("-b auto tries what a GPU's memory takes, and there is none; give a number, for example -b 8")
    share = process.world_size * exp.accumulate
    images = len(exp.train_positions(exp.get_index("train")))
    if process.world_size > 1:
        raise UserError("-b auto is for one GPU; try it with -d 1 and give -b its number times the GPUs")
    size = largest_batch(lambda count: share_of_memory(exp, process.device, amp, count), max(images // share, 1))
    torch.cuda.empty_cache()
    if size == 0:
        raise UserError("-b auto: not even one image fits into the GPU's memory; use --fp16 or a smaller model")
    if process.is_main:
        logger.info(f"-b auto: {size} images a GPU and pass, -b {size * share}; the learning rate follows")
    return size * share


def share_of_memory(exp: DetectorExp, device: torch.device, amp: torch.dtype | None, count: int) -> float:
    """Train two steps with `count` made-up images of the largest size; the share of the GPU's memory that they took."""
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    for _ in made_up_steps(exp, device, amp, count, 2):  # the optimiser's memory is there from the second on
        pass
    return torch.cuda.max_memory_reserved(device) / torch.cuda.get_device_properties(device).total_memory


def made_up_steps(
    exp: DetectorExp, device: torch.device, amp: torch.dtype | None, count: int, steps: int
) -> Iterator[None]:
    """Optimiser steps with `count` made-up images of the largest input; control comes back after each."""
    height, width = exp.largest_input()
    model = exp.get_model().to(device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    criterion, preprocessor = exp.get_criterion().to(device), preprocessor_of(exp).to(device)
    optimizer = exp.get_optimizer(count, model)
    images = torch.randint(0, 256, (count, 3, height, width), dtype=torch.uint8, device=device)
    corner = torch.rand(OBJECTS, 2, device=device) * torch.tensor([width / 2, height / 2], device=device)
    boxes = [torch.cat([corner, corner + min(height, width) / 8], dim=1)] * count
    labels = [torch.arange(OBJECTS, device=device) % exp.num_classes] * count
    sizes = [(height, width)] * count
    for _ in range(steps):
        optimizer.zero_grad(set_to_none=True)
        inputs = preprocessor(images, torch.tensor(sizes), None)
        with torch.autocast(device.type, dtype=amp, enabled=amp is not None):
            predictions, priors = model(inputs)
        losses = criterion(predictions, priors, boxes, labels, sizes)
        torch.stack(list(losses.values())).sum().backward()
        optimizer.step()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        yield
