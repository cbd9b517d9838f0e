"""Detector: from images to raw predictions and their priors, and the builders of the two families."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from yolox_lt.errors import UserError
from yolox_lt.models.freezing import keep_norms_frozen
from yolox_lt.models.heads import YOLOXHead
from yolox_lt.models.init import init_prior_bias
from yolox_lt.models.pafpn import YOLOPAFPN
from yolox_lt.models.priors import AnchorGrid
from yolox_lt.models.retina_head import RetinaHead
from yolox_lt.types import Predictions, Priors


class Detector(nn.Module):
    """Backbone with neck (`backbone`), head (`head`) and anchors. State-dict names are those of official YOLOX.

    Args:
        backbone: images [B, 3, H, W] -> feature maps, finest first.
        head: feature maps -> Predictions.
        anchors: makes the priors from the sizes of the feature maps; holds no parameters or buffers.
        size_divisor: H and W must be multiples of it; 32 for YOLOX.
        channels_last: convert images to that memory format, which makes convolutions faster; results are the same.
            Weights follow with `model.to(memory_format=torch.channels_last)`.
    """

    def __init__(
        self,
        backbone: nn.Module,
        head: nn.Module,
        anchors: AnchorGrid,
        size_divisor: int = 32,
        channels_last: bool = True,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head
        self.anchors = anchors
        self.size_divisor = size_divisor
        self.channels_last = channels_last

    def forward(self, images: Tensor) -> tuple[Predictions, Priors]:
        """Float images [B, 3, H, W] -> predictions [B, P, ...] and the priors [P, ...] they refer to.

        YOLOX models take BGR values 0..255 without normalisation.

        Raises:
            UserError: H or W is not a multiple of `size_divisor`.
        """
        self._check_size(images.shape[-2], images.shape[-1])
        if self.channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        features = self.backbone(images)
        predictions: Predictions = self.head(features)
        priors = self.anchors([feature.shape[-2:] for feature in features], images.device)
        predicted, expected = predictions.box_deltas.shape[1], sum(priors.level_sizes)
        if predicted != expected:
            raise ValueError(
                f"the head predicts {predicted} boxes per image but there are {expected} priors: "
                "head and anchors must agree on the number of anchors per cell"
            )
        return predictions, priors

    def train(self, mode: bool = True) -> Detector:
        """Set the mode; BatchNorm layers without gradient stay in evaluation mode."""
        super().train(mode)
        keep_norms_frozen(self)
        return self

    def _check_size(self, height: int, width: int) -> None:
        divisor = self.size_divisor
        if height % divisor or width % divisor:
            raise UserError(
                f"the input is {height}x{width} pixels (height x width): both must be multiples of {divisor}, "
                f"for example {-(-height // divisor) * divisor}x{-(-width // divisor) * divisor}."
            )


def build_yolox(
    num_classes: int,
    depth: float,
    width: float,
    act: str = "silu",
    depthwise: bool = False,
    num_anchors: int = 1,
    anchor_scales: Sequence[float] = (1,),
    neck_shortcut: bool = False,
    prior_prob: float = 0.01,
) -> Detector:
    """A freshly initialised YOLOX model on strides 8, 16, 32.

    The defaults are official YOLOX. The released EFL models have num_anchors=2, anchor_scales=(3, 4),
    neck_shortcut=True, prior_prob=0.001.

    Args:
        num_classes: C, without background.
        depth, width: multipliers: nano 0.33, 0.25 (depthwise); tiny 0.33, 0.375; s 0.33, 0.5; m 0.67, 0.75; l 1, 1;
            x 1.33, 1.25.
        act: "silu", "relu" or "lrelu".
        depthwise: depthwise instead of plain 3x3 convolutions.
        num_anchors: anchors per cell.
        anchor_scales: their sides in strides, one per anchor; (1,) is official YOLOX's grid.
        neck_shortcut: residual shortcuts in the neck; see YOLOPAFPN.
        prior_prob: start value in (0, 1) of all category scores and of the quality score.

    Raises:
        UserError: a value outside its range, or not exactly one scale per anchor.
    """
    if num_anchors != len(anchor_scales):
        raise UserError(
            f"num_anchors is {num_anchors} but anchor_scales {list(anchor_scales)} has {len(anchor_scales)} values: "
            "give one scale per anchor."
        )
    if depth <= 0:
        raise UserError(f"depth is {depth}: give a positive number, for example 0.33.")
    backbone = YOLOPAFPN(depth, width, act, depthwise, neck_shortcut)
    head = YOLOXHead(num_classes, width, act=act, depthwise=depthwise, num_anchors=num_anchors)
    init_prior_bias(head, prior_prob, prior_prob)
    return Detector(backbone, head, AnchorGrid(head.strides, anchor_scales))


def build_resnet(
    num_classes: int,
    depth: int = 50,
    channels: int = 256,
    anchor_scales: Sequence[float] = (6, 8),
    anchor_ratios: Sequence[float] = (1.0,),
    quality: bool = True,
    legacy: bool = True,
    prior_prob: float = 0.001,
    trainable_layers: int = 3,
    freeze_bn: bool = True,
) -> Detector:
    """A freshly initialised ResNet with FPN and RetinaNet head on strides 8, 16, 32, 64, 128, for images of any size.

    The defaults are the released ResNet-50 model. Weights of the ResNet are random; see `load_backbone`.

    Args:
        num_classes: C, without background.
        depth: 18, 34, 50, 101 or 152.
        channels: channels of FPN and head, a multiple of 32.
        anchor_scales: sides of the anchors in strides.
        anchor_ratios: their height / width; every scale comes with every ratio, see AnchorGrid for the order.
        quality: with the quality branch.
        legacy: priors in the +1 pixel convention, see AnchorGrid.
        prior_prob: start value in (0, 1) of all category scores; the quality score starts at 0.5.
        trainable_layers, freeze_bn: see ResNetFPN.

    Raises:
        UserError: a value outside its range.
    """
    anchors = AnchorGrid((8, 16, 32, 64, 128), anchor_scales, legacy, anchor_ratios)
    head = RetinaHead(num_classes, anchors.num_anchors, channels, quality=quality, prior_prob=prior_prob)
    from yolox_lt.models.resnet_fpn import ResNetFPN  # with torchvision, which is slow to load

    backbone = ResNetFPN(depth, channels, trainable_layers, freeze_bn)
    return Detector(backbone, head, anchors, size_divisor=1)
