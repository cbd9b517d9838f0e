"""Names and layout of released EFL/EQFL YOLOX files in terms of ours (which are official YOLOX's)."""

from __future__ import annotations

from torch import Tensor

STEM = "backbone.backbone.stem.conv.conv.weight"
PREFIXES = (("backbone.", "backbone.backbone."), ("neck.", "backbone."), ("roi_head.", "head."))
PARTS = (
    (".stem.conv_block.", ".stem.conv."),
    (".dark5.1.conv_block1.", ".dark5.1.conv1."),
    (".dark5.1.conv_block2.", ".dark5.1.conv2."),
    (".bn1.", ".bn."),
)


def our_name(released: str) -> str | None:
    """The state-dict key of a released key; None for the buffers of the loss, which are not part of the model."""
    if released.startswith("post_process."):
        return None
    for theirs, ours in PREFIXES:
        if released.startswith(theirs):
            name = ours + released.removeprefix(theirs)
            break
    else:
        raise AssertionError(f"unknown released name {released}")
    for theirs_part, our_part in PARTS:
        name = name.replace(theirs_part, our_part)
    return name


def our_layout(name: str, tensor: Tensor) -> Tensor:
    """Stem input channels from top-left, top-right, bottom-left, bottom-right to ours (triples 0, 2, 1, 3)."""
    if name != STEM:
        return tensor
    triples = tensor.unflatten(1, (4, 3))  # [O, 12, k, k] -> [O, 4, 3, k, k]
    return triples[:, [0, 2, 1, 3]].flatten(1, 2)  # [O, 4, 3, k, k] -> [O, 12, k, k]


def convert(released: dict[str, Tensor]) -> dict[str, Tensor]:
    """Parameters, buffers or gradients under released names -> under ours."""
    converted = {}
    for key, tensor in released.items():
        name = our_name(key)
        if name is not None:
            converted[name] = our_layout(name, tensor)
    return converted
