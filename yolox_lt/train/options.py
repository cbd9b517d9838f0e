"""What the command line decides about a run."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from yolox_lt.distributed.processes import ProcessInfo


@dataclass(frozen=True)
class TrainOptions:
    """What the command line decides.

    batch_size: images of one optimiser step over all ranks and accumulated batches.
    process: this process. amp: None, torch.float16 or torch.bfloat16.
    checkpoint: to fine-tune from, or with `resume` to continue (None: the run folder's latest.pth).
    given: settings that the command line sets, "batch_size" and "amp" among them; a resumed run keeps the others as it
    began. None: everything here and in the experiment is on purpose (a run started from Python).
    """

    batch_size: int
    process: ProcessInfo = field(default_factory=lambda: ProcessInfo(0, 1, torch.device("cpu")))
    amp: torch.dtype | None = None
    checkpoint: str | None = None
    resume: bool = False
    cache: bool = False
    given: tuple[str, ...] | None = None
