"""Released EFL/EQFL files of United-Perception: YOLOX-S/M and ResNet-50/101, renamed and reordered into ours.

The neck's shortcuts of the YOLOX files have no weights; the settings switch them on. The statistic of the loss is saved
with the weights there and is no part of the model here.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import torch
from torch import Tensor

from yolox_lt.convert.backbone import resnet_depth
from yolox_lt.convert.channels import NUM_ANCHORS, decide_order, to_anchor_major
from yolox_lt.convert.mapped import Mapped, shape_of
from yolox_lt.convert.official import MARK as STEM
from yolox_lt.convert.official import yolox_settings
from yolox_lt.errors import UserError

YOLOX_KIND = "released EFL/EQFL YOLOX"
RESNET_KIND = "released EFL ResNet"

YOLOX_MARK = "backbone.stem.conv_block.conv.weight"
RESNET_MARK = "roi_head.cls_subnet_pred.weight"

STATISTIC = tuple(f"post_process.cls_loss.{name}" for name in ("pos_grad", "neg_grad", "pos_neg"))

YOLOX_PREFIXES = {"backbone.": "backbone.backbone.", "neck.": "backbone.", "roi_head.": "head."}
YOLOX_PARTS = {
    ".stem.conv_block.": ".stem.conv.",
    ".dark5.1.conv_block1.": ".dark5.1.conv1.",
    ".dark5.1.conv_block2.": ".dark5.1.conv2.",
    ".bn1.": ".bn.",
}
RESNET_PREFIXES = {
    "backbone.layer0.0.": "backbone.resnet.conv1.",
    "backbone.layer0.1.": "backbone.resnet.bn1.",
    "backbone.": "backbone.resnet.",
    "neck.c3_lateral.": "backbone.fpn.lateral.0.",
    "neck.c4_lateral.": "backbone.fpn.lateral.1.",
    "neck.c5_lateral.": "backbone.fpn.lateral.2.",
    "neck.p3_conv.": "backbone.fpn.output.0.",
    "neck.p4_conv.": "backbone.fpn.output.1.",
    "neck.p5_conv.": "backbone.fpn.output.2.",
    "neck.p6_conv.": "backbone.fpn.extra.0.",
    "neck.p7_conv.": "backbone.fpn.extra.1.",
    "roi_head.cls_subnet.": "head.cls_tower.",
    "roi_head.box_subnet.": "head.box_tower.",
    "roi_head.cls_subnet_pred.": "head.cls_pred.",
    "roi_head.box_subnet_pred.": "head.box_pred.",
    "roi_head.iou_pred.": "head.quality_pred.",
}

CLS_PREDICTIONS = re.compile(r"head\.cls_preds?\.")
BOX_PREDICTIONS = re.compile(r"head\.(reg_preds|box_pred)\.")


def yolox_name(released: str) -> str | None:
    """Our name of a tensor of a released YOLOX file, None if it has none."""
    for theirs, ours in YOLOX_PREFIXES.items():
        if released.startswith(theirs):
            name = ours + released.removeprefix(theirs)
            for part, our_part in YOLOX_PARTS.items():
                name = name.replace(part, our_part)
            return name
    return None


def resnet_name(released: str) -> str | None:
    """Our name of a tensor of a released ResNet file, None if it has none. The stem has two names there."""
    for theirs, ours in RESNET_PREFIXES.items():
        if released.startswith(theirs):
            return ours + released.removeprefix(theirs)
    return None


def our_stem(weight: Tensor) -> Tensor:
    """Input channels [O, 12, k, k] from top-left, top-right, bottom-left, bottom-right to ours: triples 0, 2, 1, 3.

    Raises:
        UserError: another number of input channels.
    """
    if weight.ndim != 4 or weight.shape[1] != 12:
        raise UserError(f"the stem's weight is {tuple(weight.shape)} instead of (channels, 12, 3, 3)")
    triples = weight.unflatten(1, (4, 3))  # [O, 12, k, k] -> [O, 4, 3, k, k]
    return triples[:, [0, 2, 1, 3]].flatten(1, 2)  # [O, 4, 3, k, k] -> [O, 12, k, k]


def map_yolox(state: dict[str, Tensor], channels: str = "auto") -> Mapped:
    """A released YOLOX state dict under our names and in our order; see `decide_order` for `channels`.

    Raises:
        UserError: a tensor that tells the size is missing, or there are not two anchors.
    """
    mapped = Mapped(YOLOX_KIND, "yolox")
    rename(state, yolox_name, mapped)
    check_anchors(mapped.state, "head.obj_preds.0.weight")
    mapped.state[STEM] = our_stem(mapped.state[STEM])
    mapped.reordered[STEM] = "input-channel triples 0, 2, 1, 3"
    order_channels(mapped, channels)
    mapped.settings = yolox_settings(mapped.state, NUM_ANCHORS)
    mapped.settings |= {"anchor_scales": (3, 4), "neck_shortcut": True, "quality": "iou"}
    mapped.notes.append(
        "EFL and EQFL cannot be distinguished by the weights; detections do not depend on it, further training does"
    )
    return mapped


def map_resnet(state: dict[str, Tensor], channels: str = "auto") -> Mapped:
    """A released ResNet state dict under our names and in our order; see `decide_order` for `channels`.

    Raises:
        UserError: a ResNet of no known depth, not two anchors, or two copies of the stem that differ.
    """
    mapped = Mapped(RESNET_KIND, "resnet")
    rename(state, resnet_name, mapped)
    check_anchors(mapped.state, "head.quality_pred.weight")
    order_channels(mapped, channels)
    start = "backbone.resnet."
    resnet = [name.removeprefix(start) for name in mapped.state if name.startswith(start)]
    mapped.settings = {
        "resnet_depth": resnet_depth(resnet),
        "num_classes": shape_of(mapped.state, "head.cls_pred.weight")[0] // NUM_ANCHORS,
        "fpn_channels": shape_of(mapped.state, "backbone.fpn.lateral.0.weight")[0],
        "anchor_scales": (6, 8),
        "anchor_ratios": (1.0,),
        "quality": "iou",
        "legacy": True,
        "box_code": "deltas",
    }
    return mapped


def rename(state: dict[str, Tensor], our_name: Callable[[str], str | None], mapped: Mapped) -> None:
    """Fill `mapped.state`, `dropped` and `unexpected` from a released state dict.

    Raises:
        UserError: two tensors of one place that differ.
    """
    sources: dict[str, str] = {}
    for name, tensor in state.items():
        ours = our_name(name)
        if name in STATISTIC:
            mapped.dropped[name] = "gradient statistic of the loss"
        elif ours is None:
            mapped.unexpected.append(name)
        elif ours not in mapped.state:
            mapped.state[ours] = tensor
            sources[ours] = name
        elif torch.equal(mapped.state[ours], tensor):
            mapped.dropped[name] = f"copy of {sources[ours]}"
        else:
            raise UserError(f"{name} and {sources[ours]} must be copies of each other but differ; the file is damaged")


def check_anchors(state: dict[str, Tensor], quality: str) -> None:
    """Refuse a head that is not the released one with two anchors a cell."""
    found = shape_of(state, quality)[0]
    if found != NUM_ANCHORS:
        raise UserError(
            f"the head has {found} anchor(s) a cell instead of {NUM_ANCHORS}; only the EFL paper's models are converted"
        )


def order_channels(mapped: Mapped, channels: str) -> None:
    """Bring classification and box predictions into anchor-major order. IoU has A channels, the same either way.

    Raises:
        UserError: predictions that are not those of two anchors.
    """
    predictions = {n: t for n, t in mapped.state.items() if CLS_PREDICTIONS.match(n) or BOX_PREDICTIONS.match(n)}
    for name, tensor in predictions.items():
        if tensor.ndim < 1 or len(tensor) == 0 or len(tensor) % NUM_ANCHORS:
            raise UserError(f"{name} is {tuple(tensor.shape)}, which is no prediction of {NUM_ANCHORS} anchors a cell")
    weights = [t for n, t in predictions.items() if CLS_PREDICTIONS.match(n) and t.ndim == 4]
    if not weights:
        raise UserError("the weights have no classification layer; the file is incomplete")
    order, reason = decide_order(weights, channels)
    mapped.notes.append(f"channels: {reason}")
    if order == "anchor-major":
        return
    for name, tensor in predictions.items():
        mapped.state[name] = to_anchor_major(tensor)
        mapped.reordered[name] = "category-major to anchor-major"
