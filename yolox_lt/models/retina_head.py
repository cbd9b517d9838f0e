"""The head of RetinaNet (Lin et al., Focal Loss, arXiv 1708.02002) with a quality branch, shared by all levels."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn

from yolox_lt.errors import UserError
from yolox_lt.models.heads import concat_levels
from yolox_lt.models.init import fill_bias, init_convs, prior_bias
from yolox_lt.types import Predictions

NORM_GROUPS = 32
"""Groups of every GroupNorm, as in the released models."""

INIT_STD = 0.01
"""Standard deviation of all start weights (Lin et al., section 4.1, and the released models)."""


class _GroupNorm(nn.GroupNorm):
    """GroupNorm that also takes one value per group and image, which the framework refuses for a batch of one.

    The result is well defined (the bias), and a 1x1 map of 32 channels is what the coarsest level has in a small model.
    """

    def forward(self, x: Tensor) -> Tensor:
        return torch.group_norm(x, self.num_groups, self.weight, self.bias, self.eps)


def _tower(channels: int, num_convs: int) -> nn.Sequential:
    """Convolution 3i, norm 3i + 1 and activation 3i + 2 for i < num_convs."""
    layers: list[nn.Module] = []
    for _ in range(num_convs):
        layers += [
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            _GroupNorm(NORM_GROUPS, channels),
            nn.ReLU(inplace=True),
        ]
    return nn.Sequential(*layers)


class RetinaHead(nn.Module):
    """Two towers of 3x3 convolutions with GroupNorm, then 3x3 predictions; the same weights on every level.

    `cls_pred` (A*C channels) follows `cls_tower`; `box_pred` (A*4) and `quality_pred` (A) follow `box_tower`, as in the
    released models. There is no scale per level. Weights start as Normal(0, 0.01), biases at zero, also that of the
    quality; only the category scores start at `prior_prob`.

    Args:
        num_classes: C, without background.
        num_anchors: A, anchors per cell.
        channels: channels of the features and of the towers, a multiple of 32.
        num_convs: convolutions in each tower.
        quality: with the quality branch (IoU or centerness); without it `quality_pred` is None.
        prior_prob: start value in (0, 1) of all category scores.

    Raises:
        UserError: a value outside its range.
    """

    def __init__(
        self,
        num_classes: int,
        num_anchors: int,
        channels: int = 256,
        num_convs: int = 4,
        quality: bool = True,
        prior_prob: float = 0.001,
    ) -> None:
        super().__init__()
        if num_classes < 1:
            raise UserError(f"num_classes is {num_classes}: give the number of categories, at least 1.")
        if num_anchors < 1:
            raise UserError(f"num_anchors is {num_anchors}: give the number of anchors per cell, at least 1.")
        if channels < NORM_GROUPS or channels % NORM_GROUPS:
            raise UserError(f"the head has channels {channels}: give a multiple of {NORM_GROUPS}, for example 256.")
        if num_convs < 1:
            raise UserError(f"num_convs is {num_convs}: give the number of convolutions per tower, at least 1.")
        self.num_classes = num_classes
        self.num_anchors = num_anchors
        self.cls_tower = _tower(channels, num_convs)
        self.box_tower = _tower(channels, num_convs)
        self.cls_pred = nn.Conv2d(channels, num_anchors * num_classes, 3, padding=1)
        self.box_pred = nn.Conv2d(channels, num_anchors * 4, 3, padding=1)
        self.quality_pred = nn.Conv2d(channels, num_anchors, 3, padding=1) if quality else None
        init_convs(self, partial(nn.init.normal_, std=INIT_STD))
        fill_bias([self.cls_pred], prior_bias(prior_prob))

    def forward(self, features: Sequence[Tensor]) -> Predictions:
        """Features [B, channels, H, W] per level, finest first -> Predictions without decoded boxes.

        Logits keep the dtype of the convolutions (half precision under autocast); no sigmoid is applied.
        `quality_logits` is None without the quality branch.
        """
        cls_maps, box_maps, quality_maps = [], [], []
        for feature in features:
            cls_maps.append(self.cls_pred(self.cls_tower(feature)))
            box_feature = self.box_tower(feature)
            box_maps.append(self.box_pred(box_feature))
            if self.quality_pred is not None:
                quality_maps.append(self.quality_pred(box_feature))
        return Predictions(
            cls_logits=concat_levels(cls_maps, self.num_classes),
            box_deltas=concat_levels(box_maps, 4),
            quality_logits=concat_levels(quality_maps, 1).flatten(1) if quality_maps else None,  # [B, P, 1] -> [B, P]
        )
