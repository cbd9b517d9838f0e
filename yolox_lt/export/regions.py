"""Two stages as they go into a file, and what comes out of it again."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from yolox_lt.exp.detection import DetectorExp, preprocessor_of
from yolox_lt.models import fuse_conv_bn
from yolox_lt.models.two_stage import RegionPredictions, TwoStageDetector
from yolox_lt.models.two_stage.rpn_head import Proposals
from yolox_lt.predict import Predictor

REGION_NAMES = ("cls_logits", "box_deltas", "proposals")
"""Names of the outputs."""


class RegionNetwork(nn.Module):
    """Pixels of one image -> its proposals and what the second stage says of them; anchors are constants of the size.

    Args:
        model: the detector; a copy is taken. exp: its experiment. predictor: with its calibrator.
        size: (height, width) of the input.
    """

    def __init__(self, model: TwoStageDetector, exp: DetectorExp, predictor: Predictor, size: tuple[int, int]) -> None:
        super().__init__()
        self.model = fuse_conv_bn(model).requires_grad_(False).float().cpu()
        self.pixels = preprocessor_of(exp)
        self.predictor = predictor
        features = self.model.backbone(torch.zeros(1, 3, *size))
        self.priors = self.model.anchors([feature.shape[-2:] for feature in features], "cpu")

    def forward(self, images: Tensor, image_sizes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Float BGR 0..255 [1, 3, H, W] and int64 [1, 2] -> cls_logits [1, R, C], box_deltas [1, R, 4C], proposals
        [1, R, 4], R fixed; rows beyond the proposals that there are have boxes of zeros.
        """
        rule = self.model.proposal_rule
        features = self.model.backbone(self.pixels(images, image_sizes))
        objectness, deltas = self.model.rpn(features)
        height, width = image_sizes[0, 0].float(), image_sizes[0, 1].float()
        corners = torch.stack([width, height, width, height])
        boxes, scores = rule.survivors(objectness[0], deltas[0], self.priors, corners, training=False)
        # So many empty rows more that there always are enough.
        boxes = torch.cat([boxes, torch.zeros(rule.post_nms, 4)])
        scores = torch.cat([scores, torch.full((rule.post_nms,), -torch.inf)])
        proposals = boxes[scores.topk(rule.post_nms).indices]
        logits, box_deltas = self.model.classify(features, [proposals])
        return self.predictor.logits(logits)[None], box_deltas[None], proposals[None]


class FileRegions(RegionPredictions):
    """The outputs of a file for B images in the place of a model's predictions."""

    def __init__(self, cls_logits: Tensor, box_deltas: Tensor, proposals: Tensor) -> None:
        """Arguments: as `RegionNetwork.forward` returns them, for B images."""
        super().__init__(cls_logits, box_deltas)
        self.proposals = proposals
        self.there = (proposals[..., 2:] > proposals[..., :2]).all(dim=2)  # [B, R]

    def propose(self, image_sizes: Sequence[tuple[int, int]]) -> list[Proposals]:
        return [Proposals(b[there], there[there].float()) for b, there in zip(self.proposals, self.there)]

    def classify(self, regions: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """What the file says of its own proposals: `regions` must be these."""
        return self.cls_logits[self.there], self.box_deltas[self.there]
