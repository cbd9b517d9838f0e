"""Where in a run one is: epochs done, what the row of the current epoch is made from, which images were drawn."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any

from yolox_lt.data.sampling.sampler import SamplerSegment


@dataclass
class EpochMeter:
    """What the row of an epoch that has not ended is made from.

    sums: of the losses of this rank by name, over the steps that counted. steps: optimiser steps, `dropped` of them
    left out for a loss that was not finite. images: over all ranks. seconds: of training.
    """

    sums: dict[str, float] = field(default_factory=dict)
    steps: int = 0
    dropped: int = 0
    images: int = 0
    seconds: float = 0.0

    def add(self, losses: dict[str, float], images: int, dropped: bool) -> None:
        """One step done."""
        self.steps += 1
        self.dropped += dropped
        self.images += images
        for name, value in losses.items():
            self.sums[name] = self.sums.get(name, 0.0) + (0.0 if dropped else value)

    def means(self) -> dict[str, float]:
        """Mean of each loss over the steps that counted, NaN without any."""
        counted = self.steps - self.dropped
        return {name: value / counted if counted else math.nan for name, value in self.sums.items()}


@dataclass
class Progress:
    """The position of a run.

    iteration: optimiser steps done. epochs: epochs ended, with evaluation and row. open: the epoch after them.
    segments: stretches of the run with other ranks or batch sizes than now. segment: the stretch that continues.
    """

    segment: SamplerSegment
    iteration: int = 0
    epochs: int = 0
    open: EpochMeter = field(default_factory=EpochMeter)
    segments: list[SamplerSegment] = field(default_factory=list)

    def step(self, losses: dict[str, float], images: int, batches: int, dropped: bool) -> None:
        """One optimiser step over `batches` batches of every rank, `images` images in all."""
        self.iteration += 1
        self.open.add(losses, images, dropped)
        self.segment = self.segment._replace(batches=self.segment.batches + batches)

    def end_epoch(self) -> None:
        """The open epoch has its evaluation and its row."""
        self.epochs += 1
        self.open = EpochMeter()

    def drawn(self) -> int:
        """Images drawn over all ranks."""
        return sum(world * batch_size * batches for world, batch_size, batches in [*self.segments, self.segment])

    def state(self, epoch_iterations: int) -> dict[str, Any]:
        """For a checkpoint."""
        return {
            "epoch": self.epochs,
            "iteration": self.iteration,
            "epoch_iterations": epoch_iterations,
            "open_epoch": asdict(self.open),
            "sampler_position": self.drawn(),
            "deals": [list(segment) for segment in [*self.segments, self.segment]],
        }


def resumed_progress(state: dict[str, Any], now: SamplerSegment, batch_size: int, epoch_iterations: int) -> Progress:
    """Inverse of `Progress.state`, for a run that may continue with other ranks, batches and epochs.

    An epoch that was begun is finished with as many steps as its remaining images need, rounded up.

    Args:
        state: of the checkpoint. now: ranks and batch of a rank, no batches yet.
        batch_size: images of a step from now on. epoch_iterations: steps of a whole epoch from now on.
    """
    segments = [SamplerSegment(*segment) for segment in state["deals"]]
    opened = EpochMeter(**state["open_epoch"])
    steps = state["iteration"] - state["epoch"] * state["epoch_iterations"]
    ended = opened.steps > 0 and steps >= state["epoch_iterations"]  # all steps done, evaluation and row missing
    if ended:
        steps = epoch_iterations
    elif (state["batch_size"], state["epoch_iterations"]) != (batch_size, epoch_iterations):
        steps = min(steps * state["batch_size"] // batch_size, epoch_iterations - 1)
    same = segments[-1][:2] == now[:2]
    return Progress(
        segment=segments[-1] if same else now,
        iteration=state["epoch"] * epoch_iterations + steps,
        epochs=state["epoch"],
        open=opened,
        segments=segments[:-1] if same else segments,
    )
