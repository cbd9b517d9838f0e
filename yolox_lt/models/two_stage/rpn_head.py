"""The region proposal network: objectness and box of every anchor, and the boxes worth a look.

Ren et al., Faster R-CNN (arXiv 1506.01497), section 3.1; numbers as in the two-stage systems of the EFL paper.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from yolox_lt.coders import DeltaCoder
from yolox_lt.models.heads import concat_levels
from yolox_lt.models.init import init_convs
from yolox_lt.types import Priors

RPN_CODER = DeltaCoder(min_log_ratio=-math.log(1000 / 16))
"""Deltas without standard deviations, capped on both sides."""

MIN_SIDE = 1e-3
"""Proposals with a shorter side, in pixels, are dropped: clipped boxes that lie outside of the image."""


class RPNHead(nn.Module):
    """3x3 convolution with ReLU, then 1x1 to A objectness logits and 4A deltas; the same weights on every level.

    Weights Normal(0, 0.01), biases 0.

    Args:
        channels: of the maps. num_anchors: A.
    """

    def __init__(self, channels: int, num_anchors: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)
        self.objectness = nn.Conv2d(channels, num_anchors, 1)
        self.box = nn.Conv2d(channels, 4 * num_anchors, 1)
        init_convs(self, lambda weight: nn.init.normal_(weight, std=0.01))

    def forward(self, features: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Maps [B, K, H, W], finest first -> objectness logits [B, P, 1], deltas [B, P, 4], P over all levels."""
        hidden = [nn.functional.relu(self.conv(feature)) for feature in features]
        return (
            concat_levels([self.objectness(x) for x in hidden], 1),
            concat_levels([self.box(x) for x in hidden], 4),
        )


@dataclass(frozen=True)
class Proposals:
    """Regions of one image, best first. boxes: float32 [R, 4] in input pixels. scores: float32 [R] in [0, 1]."""

    boxes: Tensor
    scores: Tensor


@dataclass(frozen=True)
class ProposalRule:
    """Which decoded boxes of the RPN become proposals.

    1. The `pre_nms_train` or `pre_nms_test` best of every level. 2. Decode and clip to the image; boxes without area
    go. 3. NMS inside each level. 4. The `post_nms` best over all levels.
    """

    pre_nms_train: int = 2000
    pre_nms_test: int = 1000
    post_nms: int = 1000
    nms_threshold: float = 0.7

    @torch.no_grad()
    def __call__(
        self, logits: Tensor, deltas: Tensor, priors: Priors, image_size: tuple[int, int], training: bool
    ) -> Proposals:
        """Proposals of one image; without gradient.

        Args:
            logits: objectness [P, 1]. deltas: [P, 4]. priors: P anchors. image_size: (height, width) of the content.
        """
        height, width = image_size
        corners = deltas.new_tensor([width, height, width, height], dtype=torch.float32)
        boxes, scores = self.survivors(logits, deltas, priors, corners, training)
        best, order = scores.sort(descending=True, stable=True)
        return Proposals(boxes[order[: self.post_nms]], best[: self.post_nms].sigmoid())

    def survivors(
        self, logits: Tensor, deltas: Tensor, priors: Priors, corners: Tensor, training: bool
    ) -> tuple[Tensor, Tensor]:
        """Boxes [n, 4] and logits [n] that the NMS of the levels leaves, level by level; also while tracing.

        Args:
            corners: float32 [4], width, height, width, height of the content.
        """
        from torchvision.ops import nms  # slow to load

        logits, deltas = logits[:, 0].float(), deltas.float()
        limit = self.pre_nms_train if training else self.pre_nms_test
        boxes, scores, first = [], [], 0
        for size in priors.level_sizes:
            # By logits, not by scores: those of confident anchors round to 1 alike.
            best, row = logits[first : first + size].topk(min(limit, size))
            decoded = RPN_CODER.decode(priors.boxes[first + row], deltas[first + row])
            decoded = torch.minimum(decoded.clamp(min=0), corners)
            usable = ((decoded[:, 2:] - decoded[:, :2]) >= MIN_SIDE).all(dim=1)
            decoded, best = decoded[usable], best[usable]
            keep = nms(decoded, best, self.nms_threshold)
            boxes.append(decoded[keep])
            scores.append(best[keep])
            first += size
        return torch.cat(boxes), torch.cat(scores)
