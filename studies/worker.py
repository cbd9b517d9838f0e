"""What a process of the study does: jobs by plain arguments, rows as results."""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import torch
from loguru import logger

from studies.grid import Case, Settings
from studies.measure import make_start, run
from studies.records import Row


def prepare(device: str) -> None:
    """One core for each process; warnings alone on the console."""
    if device == "cpu":
        torch.set_num_threads(1)
    cv2.setNumThreads(0)
    logger.remove()
    logger.add(sys.stderr, level="WARNING")


def start_job(key: str, folder: Path, device: str) -> Row:
    return {"set": "start", "case": key, **make_start(key, folder, torch.device(device))}


def run_name(set_name: str, case: str, seed: int) -> str:
    """Folder of a run below the study's runs/."""
    return "_".join(f"{set_name} {case} {seed}".replace(",", "").split())


def train_job(
    set_name: str, case: Case, seed: int, common: Settings, folder: Path, device: str
) -> tuple[Row, list[Row]]:
    """The row of one run and those of its course."""
    name, start = run_name(set_name, case.name, seed), None
    if case.start is not None:
        start = folder / f"start_{case.start}.pth"
    elif case.after is not None:
        start = folder / "runs" / run_name(set_name, case.after, seed) / "latest.pth"
    _, row, course = run(case, seed, common, folder, torch.device(device), name, start)
    known = {"set": set_name, "case": case.name, "seed": seed}
    more = {"start": case.start or case.after or "random", "amp": case.amp or "float32"}
    return known | more | row, [known | r for r in course]
