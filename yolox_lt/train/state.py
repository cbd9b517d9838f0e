"""The whole state of a run: into a checkpoint and back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from loguru import logger

from yolox_lt.checkpoint import (
    load_checkpoint,
    plain,
    random_states,
    remove_old,
    restore_random_states,
    save_checkpoint,
)
from yolox_lt.data.sampling.sampler import SamplerSegment
from yolox_lt.distributed.processes import batchnorm_statistics, broadcast, gather_to_main
from yolox_lt.errors import UserError
from yolox_lt.train.build import TrainerParts
from yolox_lt.train.log import RunLog
from yolox_lt.train.progress import resumed_progress
from yolox_lt.train.restore import restore_parts, start_from


class TrainerState(TrainerParts):
    """Reading and restoring a checkpoint, and what one holds.

    log: the files of the run's folder; on other ranks than 0 it writes nothing.
    saved: whether latest.pth holds all that was done.
    """

    log: RunLog
    saved = False

    def read_checkpoint(self) -> dict[str, Any] | None:
        """What the run starts or continues from; None for a new run from nothing."""
        latest = self.folder / "latest.pth"
        if self.exp.auto_resume and not self.options.resume:
            self.resuming = broadcast(latest.is_file(), self.objects)
            self.checkpoint_path = latest if self.resuming else self.options.checkpoint
        else:
            self.checkpoint_path = self.options.checkpoint or (latest if self.resuming else None)
        return None if self.checkpoint_path is None else load_checkpoint(self.checkpoint_path)

    def restore(self, checkpoint: dict[str, Any]) -> None:
        """Continue a run, or start from another one's weights."""
        path = self.checkpoint_path
        assert path is not None  # the checkpoint was read from it
        if not self.resuming:
            start_from(self.model, self.ema, checkpoint, self.train_index.category_names, path)
            return
        restore_parts(self.model, self.ema, self.criterion, self.optimizer, self.scaler, checkpoint, path)
        if "open_epoch" not in checkpoint:
            raise UserError(
                f"{path}: written by an earlier version, which resumed at the ends of epochs alone; finish the run "
                "with that version, or start a new one from it without --resume"
            )
        now = SamplerSegment(self.process.world_size, self.micro_batch, 0)
        self.progress = resumed_progress(checkpoint, now, self.options.batch_size, self.epoch_iterations)
        self.best = checkpoint["best"]
        self.metrics = checkpoint["metrics"]
        self.restore_rank(checkpoint["ranks"])
        self.saved = True
        if checkpoint["world"] != self.process.world_size or checkpoint["batch_size"] != self.options.batch_size:
            logger.warning(
                f"resuming a run of {checkpoint['world']} ranks and batch {checkpoint['batch_size']} with "
                f"{self.process.world_size} and {self.options.batch_size}: the images left of the current pass are "
                "dealt again"
            )
        logger.info(f"{path}: resumed after iteration {self.iteration} of {self.total}")

    def rank_state(self) -> dict[str, Any]:
        """What this rank holds and the others do not. buffers: BatchNorm statistics, None where all ranks have the
        same.
        """
        buffers = None
        if self.progress.open.steps and self.process.world_size > 1:
            models = [self.model, *([] if self.ema is None else [self.ema.model])]
            buffers = [t.cpu() for model in models for t in batchnorm_statistics(model)]
        return {"random": random_states(), "bad_images": dict(self.bad_images), "buffers": buffers}

    def restore_rank(self, ranks: list[dict[str, Any]]) -> None:
        """This rank's share of what the ranks of a checkpoint held apart; other ranks than then share it evenly."""
        rank, world = self.process.rank, self.process.world_size
        restore_random_states(ranks[rank % len(ranks)]["random"])
        if len(ranks) == world:
            self.bad_images, buffers = ranks[rank]["bad_images"], ranks[rank]["buffers"]
        else:
            counts = [item for state in ranks for item in state["bad_images"].items()] if rank == 0 else []
            for name, count in counts:
                self.bad_images[name] = self.bad_images.get(name, 0) + count
            parts = [state["buffers"] for state in ranks if state["buffers"] is not None]
            buffers = [torch.stack(same).mean(dim=0) for same in zip(*parts)] or None
        if buffers is not None:
            models = [self.model, *([] if self.ema is None else [self.ema.model])]
            for own, value in zip((t for model in models for t in batchnorm_statistics(model)), buffers):
                own.copy_(value)

    def save(self, copies: Sequence[str] = ()) -> None:
        """Write latest.pth, on rank 0 also under the names `copies`, and first: what latest.pth tells of is there.

        All ranks call it together, and none continues before the files are there.
        """
        content = self.checkpoint()
        if content is not None:
            for name in copies:
                save_checkpoint(self.folder / name, content)
            if copies:
                remove_old(self.folder, self.progress.epochs, self.exp.keep_checkpoints)
            save_checkpoint(self.folder / "latest.pth", content)
        broadcast(None, self.objects)
        self.saved = True

    def checkpoint(self) -> dict[str, Any] | None:
        """Everything needed to continue exactly, or to use the model without its exp file; plain numbers and tensors
        only. All ranks call it together; None on others than 0.
        """
        ranks = gather_to_main(self.rank_state(), self.objects)
        if ranks is None:
            return None
        index = self.train_index
        return {
            "model": self.model.state_dict(),
            "ema": {"model": self.ema.model.state_dict(), "next": self.ema.next} if self.ema is not None else None,
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "criterion": self.criterion.state_dict(),
            **self.progress.state(self.epoch_iterations),
            "log_rows": self.log.rows,
            "seed": self.seed,
            "world": self.process.world_size,
            "batch_size": self.options.batch_size,
            "random": ranks[0]["random"],
            "ranks": ranks,
            "best": float(self.best),
            "metrics": {name: float(value) for name, value in self.metrics.items()},
            "names": list(index.category_names),
            "category_ids": index.category_ids.tolist(),
            "family": self.exp.family,
            "exp": plain(self.exp.attributes()),
        }
