"""Two-stage checkpoints of mmdetection 2 (EQL, EQLv2, Seesaw, BAGS, cRT and their baselines): the box part, by name.

Their Mask R-CNN files give a Faster R-CNN: masks are a branch of their own beside it.
"""

from __future__ import annotations

import re

import torch
from torch import Tensor

from yolox_lt.convert.backbone import resnet_depth
from yolox_lt.convert.mapped import Mapped, shape_of
from yolox_lt.errors import UserError

KIND = "two-stage model of mmdetection"
MARK = "roi_head.bbox_head.fc_cls.weight"

RULES = (
    (r"backbone\.(.+)", r"backbone.resnet.\1"),
    (r"neck\.lateral_convs\.(\d)\.conv\.(weight|bias)", r"backbone.fpn.lateral.\1.\2"),
    (r"neck\.fpn_convs\.(\d)\.conv\.(weight|bias)", r"backbone.fpn.output.\1.\2"),
    (r"rpn_head\.rpn_conv\.(weight|bias)", r"rpn.conv.\1"),
    (r"rpn_head\.rpn_cls\.(weight|bias)", r"rpn.objectness.\1"),
    (r"rpn_head\.rpn_reg\.(weight|bias)", r"rpn.box.\1"),
    (r"roi_head\.bbox_head\.shared_fcs\.(\d)\.(weight|bias)", r"head.shared.\1.\2"),
    (r"roi_head\.bbox_head\.fc_cls\.(weight|bias)", r"head.cls_pred.\1"),
    (r"roi_head\.bbox_head\.fc_reg\.(weight|bias)", r"head.box_pred.\1"),
)
"""Their name, all of it -> ours."""

LOSS_STATE = "roi_head.bbox_head.loss_cls."
GROUP_OUTPUTS = 6
"""Outputs that BAGS has beside the categories, with its four groups."""


def map_mmdetection(state: dict[str, Tensor]) -> Mapped:
    """A state dict of mmdetection's two-stage models under our names.

    Which loss the classifier's columns belong to is told by their number and by the state that EQLv2 keeps; EQLv2's
    files from before April 2022 do not have it and pass for softmax: give the experiment then.

    Raises:
        UserError: a ResNet of no known depth, or columns of no known loss.
    """
    mapped = Mapped(KIND, "two_stage")
    for name, tensor in state.items():
        ours = our_name(name)
        if ours is not None:
            mapped.state[ours] = tensor
        elif name.startswith("roi_head.mask_head."):
            mapped.dropped[name] = "mask branch"
        elif name.startswith(LOSS_STATE):
            mapped.dropped[name] = "state of the loss"
        else:
            mapped.unexpected.append(name)
    start = "backbone.resnet."
    body = [name.removeprefix(start) for name in mapped.state if name.startswith(start)]
    counters = [name.replace("running_mean", "num_batches_tracked") for name in body if name.endswith("running_mean")]
    mapped.state |= {start + name: torch.zeros((), dtype=torch.int64) for name in counters if name not in body}
    boxes, outputs = (shape_of(mapped.state, f"head.{name}.weight")[0] for name in ("box_pred", "cls_pred"))
    width = shape_of(mapped.state, "head.shared.1.weight")[0]
    num_classes = boxes // 4
    cls_loss = loss_of(outputs - num_classes, f"{LOSS_STATE}pos_grad" in state)
    if cls_loss is None:
        raise UserError(
            f"the classifier has {outputs} outputs for {num_classes} categories with boxes of their own, which is none "
            "of softmax, EQL, EQLv2, Seesaw and BAGS"
        )
    mapped.settings = {
        "resnet_depth": resnet_depth(body),
        "num_classes": num_classes,
        "fpn_channels": shape_of(mapped.state, "backbone.fpn.lateral.0.weight")[0],
        "head_width": width,
        "class_agnostic_boxes": False,
        "cls_loss": cls_loss,
        "normed_classifier": cls_loss == "seesaw",
    }
    mapped.notes.append(f"classifier: {outputs} outputs for {num_classes} categories, taken for {cls_loss}")
    return mapped


def our_name(name: str) -> str | None:
    """Our name of one of their tensors, None for what has no place."""
    for theirs, ours in RULES:
        found = re.fullmatch(theirs, name)
        if found is not None:
            return found.expand(ours)
    return None


def loss_of(extra: int, has_ratio: bool) -> str | None:
    """The loss with so many outputs beside the categories; None for no known one."""
    if extra == 1:
        return "eqlv2" if has_ratio else "softmax"
    return {0: "eql", 2: "seesaw", GROUP_OUTPUTS: "bags"}.get(extra)
