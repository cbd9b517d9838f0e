"""Affine calibrators inside the classifier: a new last layer, so that inference needs no operation more."""

from __future__ import annotations

import copy
from typing import TypeVar

import torch
from torch import Tensor, nn

from yolox_lt.calibrate.calibrators import Calibrator, TauNormalization
from yolox_lt.errors import UserError

Layer = TypeVar("Layer", bound=nn.Module)


def fold(convolution: Layer, calibrator: Calibrator) -> Layer:
    """A new classifier layer that gives calibrated logits; the given one is not changed.

    Rows are a * C + c for anchor a and category c; 1x1 and 3x3 convolutions and linear layers alike. W' = scale W,
    b' = scale b + shift; `TauNormalization`: W' = W / |W|^tau with the norm of the whole row, b' = b.

    Raises:
        UserError: a calibrator that is not affine, or of another number of categories.
    """
    made = copy.deepcopy(convolution)
    given = convolution.get_parameter("weight")
    weight = given.detach().double()
    rows = len(weight)
    own = dict(convolution.named_parameters()).get("bias")
    bias = weight.new_zeros(rows) if own is None else own.detach().double()
    shape = (rows, *[1] * (weight.ndim - 1))
    if isinstance(calibrator, TauNormalization):
        norm = weight.flatten(1).norm(dim=1) ** calibrator.tau  # [rows, K, k, k] -> [rows, K*k*k]
        weight = weight / norm.where(norm > 0, 1.0).view(shape)  # [rows] -> [rows, 1, 1, 1]
    else:
        parts = calibrator.affine()
        if parts is None:
            raise UserError(f"calibrator {type(calibrator).__name__} is not affine and cannot be folded into a layer")
        scale, shift = (anchors(values.to(weight), rows) for values in parts)
        weight, bias = weight * scale.view(shape), bias * scale + shift  # [rows] -> [rows, 1, 1, 1]
    made.weight = nn.Parameter(weight.to(given), requires_grad=given.requires_grad)
    made.bias = nn.Parameter(bias.to(given), requires_grad=given.requires_grad)
    return made


def anchors(values: Tensor, rows: int) -> Tensor:
    """A column [C] for every anchor: [A * C].

    Raises:
        UserError: `rows` is no multiple of C.
    """
    if rows % len(values):
        raise UserError(f"calibrator of {len(values)} categories for a classifier of {rows} rows; calibrate it again")
    return values.repeat(rows // len(values))


def classifier_names(model: nn.Module) -> list[str]:
    """Names of the layers that give the category logits; none where a calibrator cannot be folded into them."""
    head = getattr(model, "head", None)
    last = getattr(head, "cls_preds", None) or getattr(head, "cls_pred", None)
    layers = list(last) if isinstance(last, nn.ModuleList) else [last]
    if not all(type(layer) in (nn.Conv2d, nn.Linear) for layer in layers):
        return []
    return [name for name, module in model.named_modules() if any(module is layer for layer in layers)]


def fold_into(model: nn.Module, calibrator: Calibrator, own_scores: bool) -> tuple[nn.Module, Calibrator | None]:
    """(model, calibrator) to predict with: a copy of the model with the calibrator inside and None, or both as given.

    Args:
        model: a detector. own_scores: the outputs are not one sigmoid a category: nothing is folded.

    Raises:
        UserError: `TauNormalization` where it cannot be folded.
    """
    names = [] if own_scores else classifier_names(model)
    foldable = isinstance(calibrator, TauNormalization) or calibrator.affine() is not None
    if not names or not foldable:
        if isinstance(calibrator, TauNormalization):
            raise UserError("calibrator tau: the classifier is no plain layer with a sigmoid; choose another one")
        return model, calibrator
    folded = copy.deepcopy(model)
    for name in names:
        parent, _, last = name.rpartition(".")
        setattr(folded.get_submodule(parent), last, fold(folded.get_submodule(name), calibrator))
    return folded, None


def weight_norms(model: nn.Module, num_classes: int) -> Tensor | None:
    """Mean norm of every category's classifier rows, float64 [C]; None where there is no plain classifier."""
    weights = [model.get_parameter(f"{name}.weight") for name in classifier_names(model)]
    norms = [weight.detach().double().flatten(1).norm(dim=1) for weight in weights]
    if not norms:
        return None
    return torch.cat([n.view(-1, num_classes) for n in norms]).mean(dim=0)  # [A*C] -> [A, C]
