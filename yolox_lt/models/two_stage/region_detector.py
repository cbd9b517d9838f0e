"""Faster R-CNN with a feature pyramid: propose, then classify regions that somebody else chooses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from yolox_lt.models.detector import Detector
from yolox_lt.models.layers import autocast_dtype
from yolox_lt.models.priors import AnchorGrid
from yolox_lt.models.roi import roi_align
from yolox_lt.models.two_stage.box_head import BoxHead
from yolox_lt.models.two_stage.rpn_head import ProposalRule, Proposals, RPNHead
from yolox_lt.types import Predictions, Priors

RPN_STRIDES = (4, 8, 16, 32, 64)
RPN_RATIOS = (0.5, 1.0, 2.0)


@dataclass
class RegionPredictions(Predictions):
    """What the first stage says, and the way on to the second.

    cls_logits: objectness [B, P, 1]. box_deltas: [B, P, 4] of the RPN. There is no quality.
    priors: the P anchors. features: P2..P6, each [B, K, H, W]. model: where they come from.
    autocast: the mixed precision that was on when they were made, None for none.
    training: the mode of the model then.
    """

    priors: Priors | None = None
    features: Sequence[Tensor] = ()
    model: TwoStageDetector | None = None
    autocast: torch.dtype | None = None
    training: bool = False

    def outputs(self) -> list[Tensor]:
        """Those of both stages, the second for a region of one pixel."""
        box = self.cls_logits.new_tensor([[0.0, 0.0, 1.0, 1.0]], dtype=torch.float32)
        return [*super().outputs(), *self.classify([box] * len(self.cls_logits))]

    def propose(self, image_sizes: Sequence[tuple[int, int]]) -> list[Proposals]:
        """Regions of every image, without gradient. image_sizes: (height, width) of each image's content."""
        assert self.model is not None
        assert self.priors is not None
        return [
            self.model.proposal_rule(logits, deltas, self.priors, size, self.training)
            for logits, deltas, size in zip(self.cls_logits.detach(), self.box_deltas.detach(), image_sizes)
        ]

    def classify(self, regions: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """The second stage on chosen regions.

        Args:
            regions: per image float32 [R, 4] in input pixels, in all N; any R, also 0.

        Returns:
            logits [N, num_outputs] and deltas [N, 4C] (or [N, 4]), images one after the other.
        """
        assert self.model is not None
        device = self.cls_logits.device
        with torch.autocast(device.type, dtype=self.autocast, enabled=self.autocast is not None):
            return self.model.classify(self.features, regions)


class TwoStageDetector(Detector):
    """Backbone with pyramid (`backbone`), region proposals (`rpn`) and the second stage's head (`head`).

    The model never sees a target: `forward` proposes, the criterion assigns and samples, and `RegionPredictions`
    classifies what it is given. The predictor gives it the proposals themselves.

    Args:
        backbone: images [B, 3, H, W] -> P2..P6.
        rpn, head: of the two stages. anchors: of the RPN.
        proposal_rule: which boxes of the RPN count.
        channels_last: as `Detector`.
    """

    def __init__(
        self,
        backbone: nn.Module,
        rpn: RPNHead,
        head: BoxHead,
        anchors: AnchorGrid,
        proposal_rule: ProposalRule,
        channels_last: bool = True,
    ) -> None:
        super().__init__(backbone, head, anchors, size_divisor=1, channels_last=channels_last)
        self.rpn = rpn
        self.proposal_rule = proposal_rule

    def forward(self, images: Tensor) -> tuple[RegionPredictions, Priors]:
        """Float images [B, 3, H, W] -> the first stage's predictions and its anchors."""
        if self.channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        features = self.backbone(images)
        objectness, deltas = self.rpn(features)
        priors = self.anchors([feature.shape[-2:] for feature in features], images.device)
        predictions = RegionPredictions(
            objectness,
            deltas,
            priors=priors,
            features=features,
            model=self,
            autocast=autocast_dtype(images.device),
            training=self.training,
        )
        return predictions, priors

    def classify(self, features: Sequence[Tensor], regions: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Logits and deltas of regions, see `RegionPredictions.classify`."""
        rois = torch.cat([torch.cat([b.new_full((len(b), 1), i), b], dim=1) for i, b in enumerate(regions)])  # [N, 5]
        rois = rois.double() if features[0].dtype == torch.float64 else rois
        return self.head(roi_align(features[:4], rois))


def build_two_stage(
    num_classes: int,
    num_outputs: int,
    depth: int = 50,
    channels: int = 256,
    head_width: int = 1024,
    class_agnostic_boxes: bool = False,
    prior_prob: float | None = None,
    normed: bool = False,
    proposal_rule: ProposalRule | None = None,
    trainable_layers: int = 3,
    freeze_bn: bool = True,
) -> TwoStageDetector:
    """A freshly initialised Faster R-CNN for images of any size; weights of the ResNet are random, see `load_backbone`.

    Args:
        num_classes: C, without background. num_outputs: width of the classifier, see the losses.
        depth: 18, 34, 50, 101 or 152.
        channels: of the pyramid. head_width: of the second stage's shared layers.
        class_agnostic_boxes: one box a region instead of one for each category.
        prior_prob, normed: see `BoxHead`. proposal_rule: None for the default.
        trainable_layers, freeze_bn: see `ResNetFPN`.
    """
    from yolox_lt.models.two_stage.pyramid import FineResNetFPN  # with torchvision, which is slow to load

    anchors = AnchorGrid(RPN_STRIDES, (8,), ratios=RPN_RATIOS)
    return TwoStageDetector(
        FineResNetFPN(depth, channels, trainable_layers, freeze_bn),
        RPNHead(channels, anchors.num_anchors),
        BoxHead(channels, num_outputs, 1 if class_agnostic_boxes else num_classes, head_width, prior_prob, normed),
        anchors,
        ProposalRule() if proposal_rule is None else proposal_rule,
    )
