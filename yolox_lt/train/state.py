"""The state of a run: its parts, its position, and how both go into a checkpoint and come back."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from loguru import logger
from torch import Tensor, nn

from yolox_lt.calibrate.calibrator_state import Thresholds
from yolox_lt.checkpoint import plain, portable, random_states, restore_random_states
from yolox_lt.criterion import TrainingCriterion
from yolox_lt.data.annotations.fingerprint import fingerprint
from yolox_lt.data.annotations.index import AnnotationIndex
from yolox_lt.data.dataset import TrainDataset
from yolox_lt.data.sampling.sampler import SamplerSegment
from yolox_lt.distributed.collectives import RankGroups, average_batchnorm, batchnorm_statistics, gather_to_main
from yolox_lt.distributed.processes import ProcessInfo
from yolox_lt.errors import UserError
from yolox_lt.evaluate.evaluator import Evaluator
from yolox_lt.exp.agreement import check_categories, overridden_methods
from yolox_lt.exp.detection import DetectorExp
from yolox_lt.models import Detector
from yolox_lt.optim.ema import ModelEMA
from yolox_lt.optim.schedule import Schedule
from yolox_lt.train.options import TrainOptions
from yolox_lt.train.progress import Progress, resumed_progress
from yolox_lt.train.restore import restore_parts
from yolox_lt.train.selection import Selection
from yolox_lt.types import Batch


@dataclass(frozen=True)
class TrainData:
    """What a run is trained and scored on.

    evaluator: None where nothing is scored. factors: repeat factors of the images of `dataset`. groups: int64 of
    these images, None where batches are not grouped. epoch_iterations, total: optimiser steps. no_aug_start: the
    first iteration of the closing epochs.
    """

    dataset: TrainDataset
    evaluator: Evaluator | None
    factors: np.ndarray
    groups: np.ndarray | None
    epoch_iterations: int
    total: int
    no_aug_start: int

    @property
    def index(self) -> AnnotationIndex:
        """The training annotations."""
        return self.dataset.store.index

    @functools.cached_property
    def fingerprints(self) -> dict[str, str]:
        """Of the annotations of training and validation, "" for none."""
        val = "" if self.evaluator is None else fingerprint(self.evaluator.index)
        return {"train": fingerprint(self.index), "val": val}


@dataclass
class RunState:
    """Everything of a run; callbacks get it.

    network: the model as it is trained (compiled, distributed). preprocessor: from a batch's pixels to its input.
    ema: None without an average. progress: position in the run. best: the best evaluation so far.
    metrics: of the evaluation at the end of the last epoch, empty without one. bad_images: how often each unreadable
    image was met, on this rank since the last end of an epoch, on rank 0 before too. log_rows: of metrics.jsonl.
    saved: whether latest.pth holds all that was done. given: settings that a command line has set since the run began.
    """

    exp: DetectorExp
    options: TrainOptions
    seed: int
    ranks: RankGroups
    data: TrainData
    model: Detector
    network: nn.Module
    preprocessor: nn.Module
    criterion: TrainingCriterion
    optimizer: torch.optim.Optimizer
    schedule: Schedule
    scaler: torch.amp.GradScaler
    ema: ModelEMA | None
    progress: Progress
    best: Selection = field(default_factory=Selection)
    metrics: dict[str, float] = field(default_factory=dict)
    bad_images: dict[str, int] = field(default_factory=dict)
    log_rows: int = 0
    saved: bool = False
    given: tuple[str, ...] = ()
    thresholds: Thresholds | None = None
    """Rank 0: of the categories, by the evaluation of the weights as they are; None without one."""

    @property
    def process(self) -> ProcessInfo:
        """Rank, world size and device of this process."""
        return self.options.process

    @property
    def folder(self) -> Path:
        """Where the run writes."""
        return Path(self.exp.output_dir) / self.exp.exp_name

    @property
    def iteration(self) -> int:
        """Optimiser steps done."""
        return self.progress.iteration

    @property
    def epoch_iterations(self) -> int:
        """Optimiser steps of an epoch."""
        return self.data.epoch_iterations

    @property
    def total(self) -> int:
        """Optimiser steps of the whole run."""
        return self.data.total

    @property
    def evaluator(self) -> Evaluator:
        """Holds the validation annotations and, after an evaluation, its detections; for runs that are scored."""
        assert self.data.evaluator is not None
        return self.data.evaluator

    @property
    def lr(self) -> float:
        """Learning rate of the last step."""
        return self.schedule(self.iteration - 1)

    # ---------------------------------------------------------------------------------------------- what ranks hold

    def note_bad_images(self, batch: Batch) -> None:
        """Count the images of a batch that could not be read; each is named once."""
        for name in batch.skipped:
            if name not in self.bad_images:
                logger.warning(f"{name}: unreadable image skipped ({len(self.bad_images) + 1} so far)")
            self.bad_images[name] = self.bad_images.get(name, 0) + 1

    def merge_ranks(self) -> None:
        """Bring together what the ranks hold apart: BatchNorm statistics, unreadable images."""
        average_batchnorm(self.model)
        if self.ema is not None:
            average_batchnorm(self.ema.model)
        own = self.bad_images
        parts = gather_to_main(own, self.ranks.objects) or []
        self.bad_images = {}
        for part in parts:
            for name, count in part.items():
                if name not in own:
                    logger.warning(f"{name}: unreadable image skipped on another rank")
                self.bad_images[name] = self.bad_images.get(name, 0) + count

    def statistics(self) -> list[Tensor]:
        """BatchNorm statistics of the model and of its average."""
        models = [self.model, *([] if self.ema is None else [self.ema.model])]
        return [t for model in models for t in batchnorm_statistics(model)]

    # ------------------------------------------------------------------------------------------------- checkpoints

    def rank_state(self) -> dict[str, Any]:
        """What this rank holds and the others do not. buffers: BatchNorm statistics, None where all ranks have the
        same.
        """
        apart = self.progress.open.steps and self.process.world_size > 1
        buffers = [t.cpu() for t in self.statistics()] if apart else None
        return {"random": random_states(), "bad_images": dict(self.bad_images), "buffers": buffers}

    def load_rank_state(self, ranks: list[dict[str, Any]]) -> None:
        """This rank's share of what the ranks of a checkpoint held apart; other ranks than then share it evenly."""
        rank, world_size = self.process.rank, self.process.world_size
        restore_random_states(ranks[rank % len(ranks)]["random"])
        if len(ranks) == world_size:
            self.bad_images, buffers = ranks[rank]["bad_images"], ranks[rank]["buffers"]
        else:
            counts = [item for state in ranks for item in state["bad_images"].items()] if rank == 0 else []
            for name, count in counts:
                self.bad_images[name] = self.bad_images.get(name, 0) + count
            parts = [state["buffers"] for state in ranks if state["buffers"] is not None]
            buffers = [torch.stack(same).mean(dim=0) for same in zip(*parts)] or None
        if buffers is not None:
            for own, value in zip(self.statistics(), buffers):
                own.copy_(value)

    def state_dict(self) -> dict[str, Any] | None:
        """Everything needed to resume exactly, or to use the model without its exp file; plain numbers and tensors
        only. All ranks call it together; None on others than 0.
        """
        ranks = gather_to_main(self.rank_state(), self.ranks.objects)
        if ranks is None:
            return None
        index = self.data.index
        return {
            "model": self.model.state_dict(),
            "ema": {"model": self.ema.model.state_dict(), "next": self.ema.next} if self.ema is not None else None,
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "criterion": self.criterion.state_dict(),
            **self.progress.state(self.epoch_iterations),
            "log_rows": self.log_rows,
            "seed": self.seed,
            "launch": self.process.launch,
            "world": self.process.world_size,
            "batch_size": self.options.batch_size,
            "random": ranks[0]["random"],
            "ranks": ranks,
            "best": float(self.best.value),
            "stale": self.best.stale,
            "metrics": {name: float(value) for name, value in self.metrics.items()},
            "names": list(index.category_names),
            "category_ids": index.category_ids.tolist(),
            "annotations": self.data.fingerprints,
            "family": self.exp.family,
            "exp": portable(plain(self.exp.attributes())),
            "exp_file": self.exp._file,
            "overrides": overridden_methods(self.exp),
            "given": list(self.given),
            **({} if self.thresholds is None else {"thresholds": self.thresholds.state(index.category_names)}),
            "amp": None if self.options.amp is None else str(self.options.amp).removeprefix("torch."),
        }

    def check_annotations(self, theirs: dict[str, str] | None, path: Path | str) -> bool:
        """Refuse other training annotations than those of the checkpoint at `path`; whether those of validation are
        the same, which is said if not.

        Args:
            theirs: fingerprints, None in a checkpoint of an earlier version.
        """
        own = self.data.fingerprints
        if theirs is None or own == theirs:
            return True
        if own["train"] != theirs["train"]:
            raise UserError(
                f"{path}: {self.data.index.path} holds other images or boxes than those the run began with; resume "
                "with the same annotations, or start a new run from these weights with -c and without --resume"
            )
        if self.data.evaluator is None:
            return False
        logger.warning(
            f"{self.evaluator.index.path}: other images or boxes than before {path} was written; scores from now on do "
            "not compare with those until here, and best.pth is chosen again"
        )
        return False

    def load_state_dict(self, content: dict[str, Any], path: Path | str) -> None:
        """Inverse of `state_dict`, also for other ranks, batches and epochs than those of the run that was saved.

        Args:
            content: a checkpoint. path: where it comes from, for messages.

        Raises:
            UserError: a checkpoint of another model, loss or averaging, of other training annotations, or one without
                the state of a run.
        """
        index = self.data.index
        check_categories(index.category_names, content, path, index.path or "the training annotations")
        same_scores = self.check_annotations(content.get("annotations"), path)
        restore_parts(self.model, self.ema, self.criterion, self.optimizer, self.scaler, content, path)
        if "open_epoch" not in content:
            raise UserError(
                f"{path}: written by an earlier version, which resumed at the ends of epochs alone; finish the run "
                "with that version, or start a new one from it without --resume"
            )
        self.given = tuple(dict.fromkeys([*content.get("given", ()), *self.given]))
        world_size, batch_size = self.process.world_size, self.options.batch_size
        now = SamplerSegment(world_size, self.progress.segment.batch_size, 0)
        self.progress = resumed_progress(content, now, batch_size, self.epoch_iterations)
        same_metric = content["exp"].get("best_metric", "AP") == self.exp.best_metric
        if same_scores and same_metric:
            self.best = Selection(content["best"], content.get("stale", 0))
        self.metrics = content["metrics"]
        self.log_rows = content["log_rows"]
        self.load_rank_state(content["ranks"])
        self.saved = True
        if (content["world"], content["batch_size"]) != (world_size, batch_size):
            logger.warning(
                f"resuming a run of {content['world']} ranks and batch {content['batch_size']} with {world_size} and "
                f"{batch_size}: the images left of the epoch permutation are divided again"
            )
        logger.info(f"{path}: resumed after iteration {self.iteration} of {self.total}")
