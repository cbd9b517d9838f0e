"""What is said and written once when a run starts."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from loguru import logger
from torch import nn

import yolox_lt
from yolox_lt.data.index import AnnotationIndex
from yolox_lt.models.complexity import model_info

if TYPE_CHECKING:
    from yolox_lt.exp.detection import DetectorExp
    from yolox_lt.train.options import TrainOptions


def describe_run(
    exp: DetectorExp,
    model: nn.Module,
    index: AnnotationIndex,
    factors: np.ndarray,
    iterations: int,
    options: TrainOptions,
) -> None:
    """The first lines of every training: model, data, schedule, device."""
    info = model_info(model, exp.test_size)
    logger.info(f"{exp.exp_name}: {info} on {options.place.device}, {options.place.world} rank(s)")
    groups = index.groups()
    counts = "" if groups is None else " (" + ", ".join(f"{(groups == g).sum()} {g}" for g in "rcf") + ")"
    logger.info(
        f"{index.path}: {len(factors):,} of {len(index):,} images used, {int(index.usable.sum()):,} boxes, "
        f"{len(index.category_ids):,} categories{counts}"
    )
    found = {k: v for k, v in index.problems.items() if v}
    if found:
        logger.info("in the annotations: " + ", ".join(f"{v:,} {k}" for k, v in found.items()))
    images = iterations * options.batch_size
    logger.info(
        f"{exp.max_epoch} epochs x {iterations:,} iterations x {options.batch_size} images; one pass over the sampled "
        f"list is {int(np.ceil(factors.sum())):,} images, so the run makes "
        f"{exp.max_epoch * images / factors.sum():.1f} passes; seed {exp.seed}"
    )


def write_config(path: Path, exp: DetectorExp, options: TrainOptions) -> None:
    """config.json: every attribute, versions, command line and git state."""
    content: dict[str, Any] = {
        "exp": exp.attributes(),
        "batch_size": options.batch_size,
        "world": options.place.world,
        "device": device_name(options.place.device),
        "amp": str(options.amp).removeprefix("torch.") if options.amp else None,
        "checkpoint": options.checkpoint,
        "resume": options.resume,
        "command": sys.argv,
        "versions": versions(),
        "git": git_state(),
    }
    path.write_text(json.dumps(content, indent=2, default=str) + "\n", encoding="utf-8")


def device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"cpu ({platform.machine()})"


def versions() -> dict[str, str]:
    names = ("torch", "torchvision", "numpy", "opencv-python", "opencv-python-headless")
    found = {"yolox_lt": yolox_lt.__version__, "python": platform.python_version()}
    installed = {d.metadata["Name"] for d in metadata.distributions()}
    return found | {name: metadata.version(name) for name in names if name in installed}


def git_state() -> str:
    """Commit of the source tree, with "+" if it has changes; empty outside a checkout or without git."""
    root = Path(__file__).resolve().parents[2]
    try:
        commit = subprocess.run(["git", "-C", root, "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
        status = subprocess.run(
            ["git", "-C", root, "status", "--porcelain"], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return ""
    return commit.stdout.strip() + ("+" if status.stdout.strip() else "")
