"""The classification loss that an experiment names."""

from __future__ import annotations

from typing import Any, Protocol

from yolox_lt.errors import UserError
from yolox_lt.losses import (
    ClassificationLoss,
    EQLv2FocalLoss,
    EqualizedFocalLoss,
    EqualizedQualityFocalLoss,
    EqualizedVarifocalLoss,
    FocalLoss,
    QualityFocalLoss,
    SigmoidLoss,
)
from yolox_lt.losses.equalized import FOCUS
from yolox_lt.losses.ratios import RULES

EQUALIZED = ("efl", "eqfl", "evfl")
NAMES = ("sigmoid", "focal", "qfl", "efl", "eqfl", "evfl", "eqlv2_focal")


class LossSettings(Protocol):
    """The settings of an experiment that say what its classification loss is."""

    num_classes: int
    cls_loss: str
    loss_alpha: float
    loss_gamma: float
    loss_scale: float
    loss_focusing: bool
    loss_weighting: bool
    loss_alpha_in_statistic: bool
    loss_focus: str
    loss_ratio: str
    loss_horizon: int


def named_loss(exp: LossSettings) -> ClassificationLoss:
    """The loss `exp.cls_loss` with the settings beside it.

    Raises:
        UserError: an unknown `cls_loss`, `loss_focus` or `loss_ratio`, or one of the latter for a loss without.
    """
    classes, gamma, scale = exp.num_classes, exp.loss_gamma, exp.loss_scale
    factors: dict[str, Any] = {"focusing": exp.loss_focusing, "weighting": exp.loss_weighting}
    factors |= {"ratio": exp.loss_ratio, "horizon": exp.loss_horizon}
    for name, value, known in (("loss_focus", exp.loss_focus, FOCUS), ("loss_ratio", exp.loss_ratio, tuple(RULES))):
        if value not in known:
            raise UserError(f"{name} {value!r} is unknown; choose one of {', '.join(known)}")
    if exp.loss_horizon < 0:
        raise UserError(f"loss_horizon {exp.loss_horizon} is negative; give steps, or 0 for sums that never forget")
    for name, given in (("loss_ratio", exp.loss_ratio != "gradients"), ("loss_horizon", exp.loss_horizon > 0)):
        if given and exp.cls_loss not in EQUALIZED:
            raise UserError(
                f"{name} is for cls_loss {', '.join(EQUALIZED)}, not {exp.cls_loss}; leave it out, or set one of them"
            )
    if exp.loss_focus != "both" and exp.cls_loss != "eqfl":
        raise UserError(
            f"loss_focus {exp.loss_focus} is for cls_loss eqfl, not {exp.cls_loss}; leave it out, or set eqfl"
        )
    match exp.cls_loss:
        case "sigmoid":
            return SigmoidLoss()
        case "focal":
            return FocalLoss(exp.loss_alpha, gamma)
        case "qfl":
            return QualityFocalLoss(gamma)
        case "efl":
            factors["alpha_in_statistic"] = exp.loss_alpha_in_statistic
            return EqualizedFocalLoss(classes, exp.loss_alpha, gamma, scale, **factors)
        case "eqfl":
            return EqualizedQualityFocalLoss(classes, gamma, scale, **factors, focus=exp.loss_focus)
        case "evfl":
            return EqualizedVarifocalLoss(classes, gamma=gamma, scale=scale, **factors)
        case "eqlv2_focal":
            return EQLv2FocalLoss(classes, exp.loss_alpha, gamma)
    raise UserError(f"cls_loss {exp.cls_loss!r} is unknown; choose one of {', '.join(NAMES)}")
