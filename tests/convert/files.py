"""Files as others write them, with a different number in every tensor so that a mix-up of names shows."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from tests.models import released_names, released_resnet_names


def numbered(entries: Iterable[tuple[str, list[int]]]) -> dict[str, Tensor]:
    """Tensors that hold 0.001, 0.002, ... throughout, counters 1, 2, ...; a tensor takes the memory of one number."""
    state = {}
    for number, (name, shape) in zip(itertools.count(1), entries):
        value = torch.tensor(number) if name.endswith("num_batches_tracked") else torch.tensor(number / 1000)
        state[name] = value.expand(shape)
    return state


def official(golden: Any, size: str) -> dict[str, Tensor]:
    """The state dict of an official model: nano, tiny, s, m, l or x."""
    return numbered(map(tuple, golden("yolox_checkpoint_keys.json")[f"yolox-{size}"]))


def released(golden: Any, size: str) -> dict[str, Tensor]:
    """The state dict of a released model, loss statistic included: yolox_s, yolox_m, r50 or r101."""
    entries = golden(f"eod_checkpoint_keys_{size}.json")["entries"]
    return numbered((entry["key"], entry["shape"]) for entry in entries)


def expected(golden: Any, size: str) -> dict[str, Tensor]:
    """What `released` becomes, by the key maps that the model tests use; constant tensors have no order."""
    names = released_names if size.startswith("yolox") else released_resnet_names
    return names.convert(released(golden, size))


def doubled_stem(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The stem under a second name, as release 0.1.0 writes it."""
    copies = {"backbone.layer0.0.": "backbone.conv1.", "backbone.layer0.1.": "backbone.bn1."}
    return state | {
        again + name.removeprefix(first): tensor
        for name, tensor in state.items()
        for first, again in copies.items()
        if name.startswith(first)
    }


def category_major(tensor: Tensor, num_anchors: int = 2) -> Tensor:
    """Rows a * K + k -> k * A + a, by an explicit loop."""
    values = len(tensor) // num_anchors
    moved = torch.empty_like(tensor)
    for a in range(num_anchors):
        for k in range(values):
            moved[k * num_anchors + a] = tensor[a * values + k]
    return moved


def equal_states(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)
