"""Start values that differ from the framework's defaults.

In the YOLOX models these are the prior biases of the head; everything else (convolutions, box biases) keeps the
framework's default, as in official YOLOX and the released models; BatchNorm's eps and momentum are set where it is
built, in `blocks.ConvBlock`. In the ResNet models FPN and head also draw their weights here, as released.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

from torch import Tensor, nn

from yolox_lt.errors import UserError
from yolox_lt.models.heads import YOLOXHead

PREDICTIONS = (
    *("head.cls_preds.", "head.reg_preds.", "head.obj_preds."),  # YOLOX
    *("head.cls_pred", "head.box_pred", "head.quality_pred"),  # RetinaHead
)
"""Beginnings of the names of the layers that predict scores, boxes and qualities of cells."""

FINE_TUNE_STD = 0.001
"""Deviation of new prediction weights on trained features, see docs/losses.md for what others do."""


def prior_bias(prior_prob: float) -> float:
    """The bias -ln((1 - p) / p) with which a sigmoid starts at `prior_prob` (Lin et al., Focal Loss, section 4.1).

    Raises:
        UserError: a probability outside (0, 1).
    """
    if not 0.0 < prior_prob < 1.0:
        raise UserError(f"the prior probability is {prior_prob}: give a number between 0 and 1, for example 0.01.")
    return -math.log((1.0 - prior_prob) / prior_prob)


def fill_bias(convs: Iterable[nn.Module], value: float) -> None:
    """Set every bias of the given prediction convolutions to `value`."""
    for conv in convs:
        if not isinstance(conv, nn.Conv2d) or conv.bias is None:
            raise TypeError(f"expected a convolution with a bias, got {conv}")
        nn.init.constant_(conv.bias, value)


def init_convs(module: nn.Module, draw: Callable[[Tensor], Tensor]) -> None:
    """Fill the weight of every convolution in `module` in place by `draw`, and its bias, if any, with zeros."""
    for conv in module.modules():
        if isinstance(conv, nn.Conv2d):
            draw(conv.weight)
            if conv.bias is not None:
                nn.init.zeros_(conv.bias)


def init_prior_bias(head: YOLOXHead, prior_prob: float, quality_prior_prob: float) -> None:
    """Start classification at `prior_prob` and quality at `quality_prior_prob` (both in (0, 1)) on every level.

    Official YOLOX: 0.01 and 0.01. Released models: 0.001 and 0.001, biases -6.906755.
    """
    fill_bias(head.cls_preds, prior_bias(prior_prob))
    fill_bias(head.obj_preds, prior_bias(quality_prior_prob))


def redraw_predictions(model: nn.Module, std: float) -> None:
    """Draw the weights of a dense detector's prediction layers as Normal(0, std), in place; biases stay.

    So every score starts at what its bias says, whatever the size of the features, and boxes start near their anchors.
    Heads on regions predict by linear layers, which stay as released: their softmax has no prior to keep.

    Args:
        model: a Detector with its first weights. std: 0 or more.

    Raises:
        UserError: a negative deviation.
    """
    if std < 0:
        raise UserError(f"fresh_std is {std}: give a deviation of 0 or more, for example {FINE_TUNE_STD}.")
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d) and name.startswith(PREDICTIONS):
            nn.init.normal_(module.weight, std=std)
