"""Names of released EFL ResNet files in terms of ours."""

from __future__ import annotations

import re

from torch import Tensor

STEM = {"backbone.layer0.0.": "backbone.resnet.conv1.", "backbone.layer0.1.": "backbone.resnet.bn1."}
NECK = re.compile(r"neck\.(?:c(?P<lateral>\d)_lateral|p(?P<output>\d)_conv)\.")
HEAD = {
    "roi_head.cls_subnet.": "head.cls_tower.",
    "roi_head.box_subnet.": "head.box_tower.",
    "roi_head.cls_subnet_pred.": "head.cls_pred.",
    "roi_head.box_subnet_pred.": "head.box_pred.",
    "roi_head.iou_pred.": "head.quality_pred.",
}


def our_name(released: str) -> str | None:
    """The state-dict key of a released key; None for what is not part of the model.

    That is the buffers of the loss and the second names under which release 0.1.0 repeats the stem.
    """
    if released.startswith(("post_process.", "backbone.conv1.", "backbone.bn1.")):
        return None
    for theirs, ours in (STEM | HEAD).items():
        if released.startswith(theirs):
            return ours + released.removeprefix(theirs)
    if released.startswith("backbone.layer"):
        return released.replace("backbone.", "backbone.resnet.", 1)
    match = NECK.match(released)
    if match is None:
        raise AssertionError(f"unknown released name {released}")
    rest = released[match.end() :]
    if match["lateral"]:
        return f"backbone.fpn.lateral.{int(match['lateral']) - 3}.{rest}"
    level = int(match["output"])
    return f"backbone.fpn.output.{level - 3}.{rest}" if level < 6 else f"backbone.fpn.extra.{level - 6}.{rest}"


def convert(released: dict[str, Tensor]) -> dict[str, Tensor]:
    """Parameters and buffers under released names -> under ours; the layout of all tensors is the same."""
    names = {key: our_name(key) for key in released}
    return {name: released[key] for key, name in names.items() if name is not None}
