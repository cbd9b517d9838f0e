"""What a checkpoint holds beside its model: a calibrator, and a threshold for every category; plain tensors.

Training, resuming and the average never see either: both belong to inference.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from yolox_lt.calibrate.calibrators import (
    Calibrator,
    LogitNormalization,
    NorCal,
    PriorAdjustment,
    TauNormalization,
)
from yolox_lt.calibrate.fractal import FRACAL
from yolox_lt.errors import UserError

KINDS: dict[str, Any] = {
    "prior": PriorAdjustment,
    "norcal": NorCal,
    "fracal": FRACAL,
    "logn": LogitNormalization,
    "tau": TauNormalization,
}
"""Name in a checkpoint -> class; its fields are tensors [C] or plain settings."""


@dataclass(frozen=True)
class Thresholds:
    """Lowest score of every category that is reported, and what it gave on the data it was chosen on.

    rule: how it was chosen, "best F1" or "precision 0.9". conf: float32 [C], NaN for a category of which nothing is
    reported. precision, recall: float32 [C] at `conf`, NaN where there is nothing to divide by.
    """

    rule: str
    conf: Tensor
    precision: Tensor
    recall: Tensor

    def state(self, names: Sequence[str]) -> dict[str, Any]:
        """The part "thresholds" of a checkpoint; names: of the categories."""
        return {"names": list(names), **dataclasses.asdict(self)}


def calibrator_state(calibrator: Calibrator, names: Sequence[str]) -> dict[str, Any]:
    """The part "calibrator" of a checkpoint; names: of the categories."""
    name = next(name for name, kind in KINDS.items() if type(calibrator) is kind)
    values = {f.name: getattr(calibrator, f.name) for f in dataclasses.fields(calibrator)}  # type: ignore[arg-type]
    tensors = {key: value for key, value in values.items() if isinstance(value, Tensor)}
    settings = {key: value for key, value in values.items() if key not in tensors}
    return {"name": name, "settings": settings, "tensors": tensors, "names": list(names)}


def calibrator_of(content: dict[str, Any], path: str | Path) -> Calibrator | None:
    """The calibrator of a checkpoint, None without one.

    Raises:
        UserError: it was made for other categories, or is not what this project writes.
    """
    state = content.get("calibrator")
    if state is None:
        return None
    check_names(state, "calibrator", content, path)
    try:
        tensors = state["tensors"]
        lengths = {len(values) for values in tensors.values()}
        if not lengths <= {len(content["names"])}:
            raise ValueError(f"its statistics have {sorted(lengths)} entries for {len(content['names'])} categories")
        calibrator: Calibrator = KINDS[state["name"]](**tensors, **state["settings"])
    except (KeyError, TypeError, ValueError, AttributeError, UserError) as error:
        raise UserError(f"{path}: its calibrator is not readable ({error}); calibrate it again") from error
    return calibrator


def thresholds_of(content: dict[str, Any], path: str | Path) -> Thresholds | None:
    """The thresholds of a checkpoint, None without any.

    Raises:
        UserError: they were made for other categories, or are not what this project writes.
    """
    state = content.get("thresholds")
    if state is None:
        return None
    check_names(state, "thresholds", content, path)
    try:
        columns = [torch.as_tensor(state[name], dtype=torch.float32) for name in ("conf", "precision", "recall")]
        made = Thresholds(str(state["rule"]), *columns)
        if {tuple(values.shape) for values in columns} != {(len(content["names"]),)}:
            raise ValueError(f"shapes {[tuple(v.shape) for v in columns]} for {len(content['names'])} categories")
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise UserError(
            f"{path}: its thresholds are not readable ({error}); evaluate it again with tools/eval.py --thresholds"
        ) from error
    return made


def check_names(state: Any, part: str, content: dict[str, Any], path: str | Path) -> None:
    """Refuse a part of a checkpoint that was made for another list of categories.

    Raises:
        UserError: with the first category that differs.
    """
    theirs = state.get("names") if isinstance(state, dict) else None
    own = list(content.get("names", []))
    if not isinstance(theirs, list) or theirs != own:
        theirs = theirs if isinstance(theirs, list) else []
        first = next((i for i, (a, b) in enumerate(zip(own, theirs)) if a != b), min(len(own), len(theirs)))
        ours, other = (names[first] if first < len(names) else "none" for names in (own, theirs))
        raise UserError(
            f"{path}: its {part} was made for other categories: number {first + 1} is {other!r} there and {ours!r} in "
            "the model; make it again with tools/calibrate.py or tools/eval.py --thresholds"
        )
