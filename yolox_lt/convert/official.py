"""Official YOLOX weights: the names are ours, the size is read from the shapes."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from yolox_lt.convert.mapped import Mapped, count_blocks, shape_of

KIND = "official YOLOX"

MARK = "backbone.backbone.stem.conv.conv.weight"

CHANNELS_AT_WIDTH_1 = 64
"""Of the stem."""

SIZES = {
    (0.33, 0.25, True): "nano",
    (0.33, 0.375, False): "tiny",
    (0.33, 0.50, False): "s",
    (0.67, 0.75, False): "m",
    (1.0, 1.0, False): "l",
    (1.33, 1.25, False): "x",
}
"""(depth, width, depthwise) of the official models."""


def map_official(state: dict[str, Tensor]) -> Mapped:
    """An official state dict; nothing is renamed or reordered.

    Raises:
        UserError: a tensor that tells the size is missing.
    """
    settings = yolox_settings(state, num_anchors=1)
    settings |= {"anchor_scales": (1,), "neck_shortcut": False, "quality": "obj"}
    return Mapped(KIND, "yolox", settings, dict(state))


def yolox_settings(state: dict[str, Tensor], num_anchors: int) -> dict[str, Any]:
    """Depth, width, depthwise and number of categories of a YOLOX state dict under our names.

    Width is the stem's output channels over 64; depth the number of bottlenecks in the first stage over 3, to two
    places as official files write it.

    Raises:
        UserError: a tensor that tells the size is missing.
    """
    repeats = count_blocks(state, "backbone.backbone.dark2.1.m.")
    return {
        "depth": round(repeats / 3, 2),
        "width": shape_of(state, MARK)[0] / CHANNELS_AT_WIDTH_1,
        "depthwise": "backbone.backbone.dark2.0.dconv.conv.weight" in state,
        "num_classes": shape_of(state, "head.cls_preds.0.weight")[0] // num_anchors,
    }


def size_name(settings: dict[str, Any]) -> str | None:
    """nano, tiny, s, m, l or x; None for another size."""
    return SIZES.get((settings["depth"], settings["width"], settings["depthwise"]))
