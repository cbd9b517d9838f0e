"""Which parameters decay, and the optimiser."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

CLASSIFIER_BIAS = ".cls_preds."
"""Part of the name of a classifier's parameters in the YOLOX heads."""


def param_groups(model: nn.Module, weight_decay: float, cls_bias_decay: float | None = None) -> list[dict[str, Any]]:
    """SGD groups in official YOLOX's order: normalisation weights, other weights, biases; only the second decays.

    With `cls_bias_decay` the biases of the classifier's last layer form a fourth group with that decay: 5e-4 in the
    released EFL models, 1e-4 in the paper, which calls it vital for EFL. Parameters without gradient are left out.
    """
    norm_weights: list[nn.Parameter] = []
    weights: list[nn.Parameter] = []
    biases: list[nn.Parameter] = []
    classifier_biases: list[nn.Parameter] = []
    for module_name, module in model.named_modules():
        for name, parameter in module.named_parameters(recurse=False):
            if not parameter.requires_grad:
                continue
            if name == "bias":
                is_classifier = cls_bias_decay is not None and CLASSIFIER_BIAS in f".{module_name}."
                (classifier_biases if is_classifier else biases).append(parameter)
            elif isinstance(module, (_BatchNorm, nn.GroupNorm)):
                norm_weights.append(parameter)
            else:
                weights.append(parameter)
    groups: list[dict[str, Any]] = [
        {"params": norm_weights, "weight_decay": 0.0},
        {"params": weights, "weight_decay": weight_decay},
        {"params": biases, "weight_decay": 0.0},
    ]
    if cls_bias_decay is not None:
        groups.append({"params": classifier_biases, "weight_decay": cls_bias_decay})
    return groups


def one_group(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """All trainable tensors with the same decay, norms and biases too, as in the released ResNet models."""
    return [{"params": [p for p in model.parameters() if p.requires_grad], "weight_decay": weight_decay}]


def build_adamw(groups: list[dict[str, Any]], lr: float) -> torch.optim.AdamW:
    """AdamW over the groups, for small data from scratch, where SGD can rest on a plateau for long."""
    return torch.optim.AdamW(groups, lr=lr)


def build_sgd(groups: list[dict[str, Any]], lr: float, momentum: float, nesterov: bool = True) -> torch.optim.SGD:
    """SGD over the groups; fused on a GPU is torch's own choice (foreach)."""
    return torch.optim.SGD(groups, lr=lr, momentum=momentum, nesterov=nesterov)
