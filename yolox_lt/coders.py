"""From boxes to network outputs and back. A coder is two pure functions that know one convention."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


class Coder(Protocol):
    """What criterion and predictor need of a box code; shapes as in `DeltaCoder`."""

    def encode(self, priors: Tensor, boxes: Tensor) -> Tensor: ...

    def decode(self, priors: Tensor, deltas: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class DeltaCoder:
    """Offsets dx dy dw dh relative to a prior, without means, as in the released models.

    dx = (gx - px) / pw, dw = ln(gw / pw) with centres x1 + w/2 and widths x2 - x1 of plain boxes, divided by `stds`
    where there are any (Fast R-CNN's regression targets of unit variance: Girshick 2015, section 2.3).

    Args:
        max_log_ratio: dw and dh are capped from above at this value when decoding (no gradient beyond);
            ln(1000 / 16) in the released models, None for no cap as in official YOLOX.
        min_log_ratio: the same from below; -ln(1000 / 16) in the two-stage models, None for none.
        stds: standard deviations of dx, dy, dw, dh, None for 1; the caps apply after multiplying by them.
    """

    max_log_ratio: float | None = math.log(1000 / 16)
    min_log_ratio: float | None = None
    stds: tuple[float, float, float, float] | None = None

    def encode(self, priors: Tensor, boxes: Tensor) -> Tensor:
        """Deltas [..., 4] that turn `priors` [..., 4] into `boxes` [..., 4]; both need positive widths and heights."""
        prior_center, prior_size = self._center_size(priors)
        center, size = self._center_size(boxes)
        deltas = torch.cat([(center - prior_center) / prior_size, torch.log(size / prior_size)], dim=-1)
        return deltas if self.stds is None else deltas / deltas.new_tensor(self.stds)

    def decode(self, priors: Tensor, deltas: Tensor) -> Tensor:
        """Boxes x1 y1 x2 y2 [..., 4] in pixels, float32 also for half-precision deltas (half loses whole pixels)."""
        if deltas.dtype in (torch.float16, torch.bfloat16):
            deltas = deltas.float()
        if self.stds is not None:
            deltas = deltas * deltas.new_tensor(self.stds)
        prior_center, prior_size = self._center_size(priors)
        log_ratio = deltas[..., 2:]
        if self.max_log_ratio is not None or self.min_log_ratio is not None:
            log_ratio = log_ratio.clamp(self.min_log_ratio, self.max_log_ratio)
        center = prior_center + deltas[..., :2] * prior_size
        half = torch.exp(log_ratio) * prior_size / 2
        return torch.cat([center - half, center + half], dim=-1)

    @staticmethod
    def _center_size(boxes: Tensor) -> tuple[Tensor, Tensor]:
        size = boxes[..., 2:] - boxes[..., :2]
        return boxes[..., :2] + size / 2, size


@dataclass(frozen=True)
class DistanceCoder:
    """Distances left, top, right, bottom from a point to the sides of its object: FCOS, Tian et al. 2019, Eq. 1.

    The point is the middle of the prior, a prior is one stride wide (AnchorGrid with scales [1]), distances are
    ln(pixels / stride). Targets divided by the stride are FCOS's later improvement; the logarithm, as in its first
    version, is our choice.

    Args:
        inset: pixels by which distances are shorter than to the sides, see `Priors.inset`.
        max_log_ratio: distances are capped from above at exp of this value when decoding.
    """

    inset: float = 0.0
    max_log_ratio: float = math.log(1000 / 16)

    def encode(self, priors: Tensor, boxes: Tensor) -> Tensor:
        """Logarithms [..., 4] of the distances in strides; a side at or beyond the point counts as 1e-6 strides."""
        point, side = self._point_side(priors)
        distance = torch.cat([point - boxes[..., :2], boxes[..., 2:] - point], dim=-1) - self.inset
        return torch.log((distance / side).clamp(min=1e-6))

    def decode(self, priors: Tensor, deltas: Tensor) -> Tensor:
        """Boxes x1 y1 x2 y2 [..., 4] in pixels, float32 also for half-precision predictions."""
        if deltas.dtype in (torch.float16, torch.bfloat16):
            deltas = deltas.float()
        point, side = self._point_side(priors)
        distance = torch.exp(deltas.clamp(max=self.max_log_ratio)) * side + self.inset
        return torch.cat([point - distance[..., :2], point + distance[..., 2:]], dim=-1)

    def _point_side(self, priors: Tensor) -> tuple[Tensor, Tensor]:
        """Points [..., 2] and strides [..., 1]."""
        return (priors[..., :2] + priors[..., 2:]) / 2, priors[..., 2:3] - priors[..., :1]


def category_logits(outputs: Tensor, scores: Callable[[Tensor], Tensor] | None) -> Tensor:
    """A classifier's outputs [..., W] as one logit a category [..., C]: themselves for sigmoid losses.

    Args:
        scores: outputs -> scores in [0, 1], of a loss with another rule; scores are kept to 1e-6 from 0 and 1.
    """
    return outputs if scores is None else torch.logit(scores(outputs.float()), eps=1e-6)


def grid_coder() -> DeltaCoder:
    """Official YOLOX's code: centre = (offset + cell) * stride, size = exp(output) * stride.

    It is the delta code on square priors of one stride around the cell corner (AnchorGrid with scales [1]), uncapped.
    """
    return DeltaCoder(max_log_ratio=None)
