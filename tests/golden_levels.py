"""Head outputs as the golden files store them -> Predictions."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from yolox_lt.models.heads import concat_levels
from yolox_lt.models.priors import AnchorGrid
from yolox_lt.types import Predictions, Priors


def level_maps(data: dict[str, Any], prefix: str, kind: str, levels: int = 3) -> list[Tensor]:
    return [torch.from_numpy(data[f"{prefix}{kind}_lvl{i}"]).clone() for i in range(levels)]


def predictions_from(cls: list[Tensor], loc: list[Tensor], iou: list[Tensor], num_classes: int = 30) -> Predictions:
    return Predictions(concat_levels(cls, num_classes), concat_levels(loc, 4), concat_levels(iou, 1).squeeze(-1))


def aligned_priors(data: dict[str, Any]) -> Priors:
    strides = [int(s) for s in data["strides"]]
    return AnchorGrid(strides, (3, 4))([(int(h), int(w)) for h, w in data["feat_hw"]])


def legacy_priors(data: dict[str, Any]) -> Priors:
    strides = [int(s) for s in data["strides"]]
    return AnchorGrid(strides, (6, 8), legacy=True)([(int(h), int(w)) for h, w in data["feat_hw"]])


def objects(rows: np.ndarray) -> tuple[Tensor, Tensor]:
    """Rows x1 y1 x2 y2 label(1..C) -> boxes and 0-based labels."""
    return torch.from_numpy(rows[:, :4]).float(), torch.from_numpy(rows[:, 4]).long() - 1
