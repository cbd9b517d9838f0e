"""What every reader of a foreign format returns."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from yolox_lt.errors import UserError


@dataclass
class Mapped:
    """A foreign state dict under our names, with everything that happened to it.

    Attributes:
        kind: what the file is, for people.
        family: "yolox", "resnet", or "backbone" for weights without a head.
        settings: what the weights say about the model, as attributes of the experiment.
        state: tensors under our names.
        reordered: our name -> what was reordered in that tensor.
        dropped: source name -> why it is no part of the model.
        unexpected: source names without a place in the model.
        notes: sentences for the report.
    """

    kind: str
    family: str
    settings: dict[str, Any] = field(default_factory=dict)
    state: dict[str, Tensor] = field(default_factory=dict)
    reordered: dict[str, str] = field(default_factory=dict)
    dropped: dict[str, str] = field(default_factory=dict)
    unexpected: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def shape_of(state: dict[str, Tensor], name: str) -> list[int]:
    """Shape of a tensor that the size of the model is read from.

    Raises:
        UserError: it is not there, or is a single number.
    """
    if name not in state or state[name].ndim == 0:
        raise UserError(f"the weights have no {name}; the file is incomplete")
    return list(state[name].shape)


def count_blocks(names: Iterable[str], prefix: str) -> int:
    """1 + the largest N of the names `prefix`N.…, 0 without any."""
    pattern = re.compile(re.escape(prefix) + r"(\d+)\.")
    return 1 + max((int(found[1]) for name in names if (found := pattern.match(name))), default=-1)
