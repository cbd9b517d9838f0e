"""What is said and written once when a run starts."""

from __future__ import annotations

import contextlib
import json
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from loguru import logger

from yolox_lt.exp.data import DataExp
from yolox_lt.exp.detection import DetectorExp
from yolox_lt.models.complexity import model_info
from yolox_lt.report.data.problems import find_problems
from yolox_lt.report.data.summary import DataSummary, Sampling, partners_of, summarize
from yolox_lt.report.data.text import data_report, problem_line
from yolox_lt.train.options import TrainOptions
from yolox_lt.train.state import RunState
from yolox_lt.version import __version__

CATEGORIES_SHOWN = 10
"""Of the rarest and the most frequent ones, in the first lines of a training."""

FILES_LOOKED_FOR = 2000
"""Image files of each split whose existence is checked when a training starts; tools/inspect_data.py checks all."""


def describe_run(run: RunState) -> DataSummary:
    """The first lines of every training: model, device, data and their problems, schedule. Returns the data's
    figures.
    """
    exp, dataset = run.exp, run.data.dataset
    info = model_info(run.model, exp.test_size)
    logger.info(f"{exp.exp_name}: {info} on {run.process.device}, {run.process.world_size} rank(s)")
    store = dataset.store
    partners = partners_of(dataset.augment)
    same = exp.partner_factors(store.index, dataset.images) is not None
    sampling = Sampling(run.data.factors, run.epoch_iterations, run.options.batch_size, partners, same)
    summary = summarize(store.index, dataset.images, sampling)
    logger.info(f"training data\n{data_report(summary, exp, CATEGORIES_SHOWN, colored=False)}\nseed {exp.seed}")
    val = None if run.data.evaluator is None else exp.get_store("val")
    for problem in find_problems(store, dataset.images, val, most_files=FILES_LOOKED_FOR):
        log = logger.warning if problem.error else logger.info
        log(problem_line(problem))
    if val is None:
        logger.warning(
            "val_ann is None: nothing is scored, so there is no best.pth and no epoch_N.pth; latest.pth holds the last "
            "weights"
        )
    for split, count in (("training", len(dataset.images)), ("validation", 0 if val is None else len(val.index))):
        if count > FILES_LOOKED_FOR:
            logger.info(
                f"looked for {FILES_LOOKED_FOR:,} of {count:,} {split} images; tools/inspect_data.py looks for all"
            )
    return summary


def write_config(path: Path, exp: DetectorExp, options: TrainOptions) -> None:
    """config.json: every attribute, versions, command line and git state."""
    own_root = type(exp).data_root is not DataExp.data_root
    content: dict[str, Any] = {
        "exp": exp.attributes(),
        # where the data is, of an experiment that finds it by a method of its own
        "data_root": str(exp.data_root().absolute()) if own_root else None,
        "batch_size": options.batch_size,
        "world": options.process.world_size,
        "device": device_name(options.process.device),
        "amp": str(options.amp).removeprefix("torch.") if options.amp else None,
        "checkpoint": options.checkpoint,
        "resume": options.resume,
        "command": sys.argv,
        "versions": versions(),
        "git": git_state(),
    }
    path.write_text(json.dumps(content, indent=2, default=str) + "\n", encoding="utf-8")


def device_name(device: torch.device) -> str:
    """Name of the GPU, or cpu with its architecture."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"cpu ({platform.machine()})"


def versions() -> dict[str, str]:
    """Versions of this package, Python and the libraries that decide about results."""
    found = {"yolox_lt": __version__, "python": platform.python_version()}
    for name in ("torch", "torchvision", "numpy", "opencv-python", "opencv-python-headless"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


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
