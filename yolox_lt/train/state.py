"""The whole state of a run: into a checkpoint and back."""

from __future__ import annotations

from typing import Any

from loguru import logger

from yolox_lt.train.build import TrainerParts
from yolox_lt.train.checkpoint import load_checkpoint, plain, random_states, restore_random_states
from yolox_lt.train.restore import restore_parts, start_from


class TrainerState(TrainerParts):
    """Reading and restoring a checkpoint, and what one holds."""

    def read_checkpoint(self) -> dict[str, Any] | None:
        path = self.options.checkpoint
        if self.options.resume and path is None:
            path = str(self.folder / "latest.pth")
        return None if path is None else load_checkpoint(path)

    def restore(self, checkpoint: dict[str, Any]) -> None:
        """Continue a run, or start from another one's weights."""
        path = self.options.checkpoint or self.folder / "latest.pth"
        if not self.options.resume:
            start_from(self.model, self.ema, checkpoint, self.train_index.category_names, path)
            return
        restore_parts(self.model, self.ema, self.criterion, self.optimizer, self.scaler, checkpoint, path)
        # Checkpoints are written at the end of epochs; with another batch size an epoch has other iterations.
        self.iteration = checkpoint["epoch"] * self.epoch_iterations
        self.best = checkpoint["best"]
        restore_random_states(checkpoint["random"])
        if checkpoint["world"] != self.place.world or checkpoint["batch_size"] != self.options.batch_size:
            logger.warning(
                f"resuming a run of {checkpoint['world']} ranks and batch {checkpoint['batch_size']} with "
                f"{self.place.world} and {self.options.batch_size}: the images of the current pass are dealt anew"
            )
        logger.info(f"{path}: resumed after iteration {self.iteration} of {self.total}")

    def checkpoint(self, metrics: dict[str, float]) -> dict[str, Any]:
        """Everything needed to go on exactly, or to use the model without its exp file; plain numbers and tensors
        only.
        """
        index = self.train_index
        return {
            "model": self.model.state_dict(),
            "ema": {"model": self.ema.model.state_dict(), "next": self.ema.next} if self.ema is not None else None,
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "criterion": self.criterion.state_dict(),
            "epoch": self.iteration // self.epoch_iterations,
            "iteration": self.iteration,
            "sampler_position": self.iteration * self.exp.accumulate * self.micro_batch,
            "seed": self.seed,
            "world": self.place.world,
            "batch_size": self.options.batch_size,
            "random": random_states(),
            "best": float(self.best),
            "metrics": {name: float(value) for name, value in metrics.items()},
            "names": list(index.category_names),
            "category_ids": index.category_ids.tolist(),
            "family": self.exp.family,
            "exp": plain(self.exp.attributes()),
        }
