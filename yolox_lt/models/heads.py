"""The decoupled head of YOLOX, for one or several anchors per cell. It sees features only: no targets, no decoding."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from yolox_lt.errors import UserError
from yolox_lt.models.blocks import ConvBlock, scale_channels, spatial_block
from yolox_lt.models.pointwise import pointwise_rows
from yolox_lt.types import Predictions


def level_map_to_prior_rows(level_map: Tensor, values: int) -> Tensor:
    """[B, A*K, H, W] -> [B, H*W*A, K] with K = `values`.

    Channel a*K + k becomes value k of anchor a: the head's channels are anchor-major, as in the released models, and
    rows come out in the order of the priors: row, column, anchor.
    """
    batch, channels, height, width = level_map.shape
    rows = height * width * (channels // values)
    return level_map.permute(0, 2, 3, 1).reshape(batch, rows, values)  # [B, H, W, A*K] -> [B, H*W*A, K]


def concat_levels(level_maps: Sequence[Tensor], values: int) -> Tensor:
    """Maps [B, A*K, H, W] of all levels, finest first -> [B, P, K] in the order level, row, column, anchor."""
    return torch.cat([level_map_to_prior_rows(level_map, values) for level_map in level_maps], dim=1)


class YOLOXHead(nn.Module):
    """Decoupled head with its own weights on every level; names as in official YOLOX.

    Per level a 1x1 stem, two 3x3 blocks for classification, two for regression, and 1x1 predictions: A*C categories,
    A*4 box offsets, A qualities (the last two from the regression branch). With one anchor it is official YOLOX's head
    and the quality is objectness; with two it is the released EFL head and the quality is the IoU branch.

    Args:
        num_classes: C, without background.
        width: multiplies `in_channels` and the 256 hidden channels; see `scale_channels`.
        strides: stride of each level in pixels, finest first.
        in_channels: channels of each level's features at width 1.
        act: "silu", "relu" or "lrelu".
        depthwise: depthwise instead of plain 3x3 convolutions.
        num_anchors: A, anchors per cell.

    Raises:
        UserError: `num_classes` or `num_anchors` below 1.
    """

    def __init__(
        self,
        num_classes: int,
        width: float = 1.0,
        strides: Sequence[int] = (8, 16, 32),
        in_channels: Sequence[int] = (256, 512, 1024),
        act: str = "silu",
        depthwise: bool = False,
        num_anchors: int = 1,
    ) -> None:
        super().__init__()
        if num_classes < 1:
            raise UserError(f"num_classes is {num_classes}: give the number of categories, at least 1.")
        if num_anchors < 1:
            raise UserError(f"num_anchors is {num_anchors}: give the number of anchors per cell, at least 1.")
        if len(strides) != len(in_channels):
            raise ValueError(f"{len(strides)} strides but in_channels for {len(in_channels)} levels")
        self.num_classes = num_classes
        self.num_anchors = num_anchors
        self.strides = tuple(strides)
        hidden = scale_channels(256, width)

        def tower() -> nn.Sequential:
            return nn.Sequential(*(spatial_block(hidden, hidden, 3, 1, act, depthwise) for _ in range(2)))

        def predictors(values: int) -> nn.ModuleList:
            return nn.ModuleList(nn.Conv2d(hidden, num_anchors * values, 1) for _ in strides)

        # This order is the order of the parameters in official checkpoints.
        self.cls_convs = nn.ModuleList(tower() for _ in strides)
        self.reg_convs = nn.ModuleList(tower() for _ in strides)
        self.cls_preds = predictors(num_classes)
        self.reg_preds = predictors(4)
        self.obj_preds = predictors(1)
        self.stems = nn.ModuleList(
            ConvBlock(scale_channels(channels, width), hidden, 1, act=act) for channels in in_channels
        )

    def forward(self, features: Sequence[Tensor]) -> Predictions:
        """Features [B, in_channels * width, H, W] per level, finest first -> Predictions without decoded boxes.

        Logits keep the dtype of the features (half precision under autocast); no sigmoid is applied.
        """
        if len(features) != len(self.strides):
            raise ValueError(f"the head has {len(self.strides)} levels but got {len(features)} feature maps")
        cls_features, box_maps, quality_maps = [], [], []
        for level, feature in enumerate(features):
            x = self.stems[level](feature)
            cls_features.append(self.cls_convs[level](x))
            box_feature = self.reg_convs[level](x)
            box_maps.append(self.reg_preds[level](box_feature))
            quality_maps.append(self.obj_preds[level](box_feature))
        return Predictions(
            cls_logits=self.cls_logits(cls_features),
            box_deltas=concat_levels(box_maps, 4),
            quality_logits=concat_levels(quality_maps, 1).flatten(1),  # [B, P, 1] -> [B, P]
        )

    def cls_logits(self, features: Sequence[Tensor]) -> Tensor:
        """Classification features [B, K, H, W] per level -> [B, P, C], without a copy of the logits, but in exports."""
        # On a CPU torch multiplies half-precision matrices slowly, and convolves them fast.
        x = features[0]
        if not (torch.jit.is_tracing() or x.is_meta) and (x.is_cuda or x.itemsize >= 4):
            return pointwise_rows(features, list(self.cls_preds), self.num_classes)
        maps = [conv(feature) for conv, feature in zip(self.cls_preds, features)]
        return concat_levels(maps, self.num_classes)
