"""From a checkpoint back into the parts of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from loguru import logger
from torch import nn

from yolox_lt.errors import UserError
from yolox_lt.train.checkpoint import load_matching, load_weights
from yolox_lt.train.ema import ModelEMA


def start_from(model: nn.Module, ema: ModelEMA | None, checkpoint: dict[str, Any], path: str | Path) -> None:
    """Fine-tuning: every tensor that fits, averaged weights if the file has them; the rest stays as initialised.

    Raises:
        UserError: no tensor fits.
    """
    state = checkpoint["ema"]["model"] if checkpoint.get("ema") else checkpoint["model"]
    loaded, left = load_matching(model, state)
    rest = f" ({left[0]}, ...)" if left else ""
    logger.info(f"{path}: {len(loaded)} tensors loaded, {len(left)} start anew{rest}")
    if not loaded:
        raise UserError(f"{path}: no tensor fits this model; use the exp file of that checkpoint")
    if ema is not None:
        ema.model.load_state_dict(model.state_dict())


def restore_parts(
    model: nn.Module,
    ema: ModelEMA | None,
    criterion: nn.Module,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    checkpoint: dict[str, Any],
    path: str | Path,
) -> None:
    """Resuming: everything as it was.

    Raises:
        UserError: a checkpoint of another model, loss or averaging, or one without the state of a run.
    """
    if "optimizer" not in checkpoint:
        raise UserError(f"{path}: has no optimiser state to resume from; start a new run from it without --resume")
    if (ema is None) != (checkpoint["ema"] is None):
        raise UserError(f"{path}: the run was not started with ema {ema is not None}; resume with its own setting")
    load_weights(model, checkpoint["model"], path)
    load_weights(criterion, checkpoint["criterion"], path)
    if ema is not None:
        load_weights(ema.model, checkpoint["ema"]["model"], path)
        ema.next = checkpoint["ema"]["next"]
    try:
        optimizer.load_state_dict(checkpoint["optimizer"])
    except ValueError as error:
        raise UserError(f"{path}: the run used another optimiser ({error}); resume with its own settings") from error
    if checkpoint["scaler"] and scaler.is_enabled():
        scaler.load_state_dict(checkpoint["scaler"])
