"""torchvision's ResNet weights: checked against the network they belong to, written as a backbone file."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from yolox_lt.convert.mapped import Mapped, count_blocks
from yolox_lt.errors import UserError

MARK = "layer1.0.conv1.weight"

BLOCKS = {
    18: ((2, 2, 2, 2), False),
    34: ((3, 4, 6, 3), False),
    50: ((3, 4, 6, 3), True),
    101: ((3, 4, 23, 3), True),
    152: ((3, 8, 36, 3), True),
}
"""Depth -> (blocks of the four stages, whether they are bottlenecks of three convolutions)."""


def resnet_depth(names: Iterable[str]) -> int:
    """Depth of a ResNet from torchvision's names.

    Raises:
        UserError: block counts of no ResNet-18, 34, 50, 101 or 152.
    """
    names = list(names)
    counts = tuple(count_blocks(names, f"layer{stage}.") for stage in (1, 2, 3, 4))
    found = (counts, "layer1.0.conv3.weight" in names)
    for depth, blocks in BLOCKS.items():
        if blocks == found:
            return depth
    raise UserError(f"the ResNet has {counts} blocks in its four stages, which is no ResNet-18, 34, 50, 101 or 152")


def map_torchvision(state: dict[str, Tensor]) -> Mapped:
    """A torchvision ResNet state dict without its classifier.

    Files older than 2018 lack BatchNorm's counters `num_batches_tracked`; they start at 0.

    Raises:
        UserError: a ResNet of no known depth.
    """
    depth = resnet_depth(state)
    mapped = Mapped("torchvision ResNet", "backbone", {"resnet_depth": depth})
    own = backbone_state(depth)
    for name, tensor in state.items():
        if name in ("fc.weight", "fc.bias"):
            mapped.dropped[name] = "classifier of the pre-training"
        elif name in own:
            mapped.state[name] = tensor
        else:
            mapped.unexpected.append(name)
    counters = [name for name in own if name.endswith(".num_batches_tracked") and name not in state]
    mapped.state |= {name: torch.zeros((), dtype=torch.int64) for name in counters}
    if counters:
        mapped.notes.append(f"{len(counters)} counters num_batches_tracked are not in the file and start at 0")
    return mapped


def backbone_state(depth: int) -> dict[str, Tensor]:
    """Names and shapes of torchvision's ResNet of that depth, without memory and without the classifier."""
    import torchvision  # slow to load, and most files are of other kinds

    with torch.device("meta"):
        state = getattr(torchvision.models, f"resnet{depth}")(weights=None).state_dict()
    return {name: tensor for name, tensor in state.items() if not name.startswith("fc.")}
