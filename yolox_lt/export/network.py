"""The network as it goes into a file: pixels in, raw predictions or detections out, nothing that tracing would lose.

Tracing keeps tensor operations alone: a number that Python computes, such as the size of a map, becomes a constant. So
positions and sizes are counted from the maps themselves, which also keeps files free of any device.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from yolox_lt.export.nms import keep_mask
from yolox_lt.models import AnchorGrid, Detector, fuse_conv_bn
from yolox_lt.predict import Predictor
from yolox_lt.types import BACKGROUND, Predictions

if TYPE_CHECKING:
    from yolox_lt.exp import DetectorExp

DROPPED = -1.0
"""Score of a candidate that is none."""


class ExportNetwork(nn.Module):
    """Pixels -> raw predictions, with BatchNorm folded and the experiment's normalisation inside.

    Args:
        model: the detector; a copy is taken. exp: its experiment.
    """

    def __init__(self, model: Detector, exp: DetectorExp) -> None:
        super().__init__()
        fused = fuse_conv_bn(model).requires_grad_(False).float().cpu()
        self.backbone, self.head = fused.backbone, fused.head
        self.pixels = Pixels(getattr(exp, "pixel_mean", None), getattr(exp, "pixel_std", None), takes_image_sizes(exp))

    def forward(self, images: Tensor, image_sizes: Tensor | None = None) -> tuple[Tensor, ...]:
        """Float BGR 0..255 [B, 3, H, W] (and int64 [B, 2]) -> cls_logits, box_deltas and, if any, quality_logits."""
        predictions, _ = self.predict(images, image_sizes)
        raw = (predictions.cls_logits, predictions.box_deltas, predictions.quality_logits)
        return tuple(values for values in raw if values is not None)

    def predict(self, images: Tensor, image_sizes: Tensor | None) -> tuple[Predictions, Sequence[Tensor]]:
        """Predictions and the maps that they were made from, finest first."""
        features = self.backbone(self.pixels(images, image_sizes))
        return self.head(features), features


class Pixels(nn.Module):
    """BGR 0..255 -> what the network takes: the same (YOLOX), or RGB with mean and deviation taken out (ResNet).

    Args:
        mean, std: RGB, of values in [0, 1]; None for pixels as they are.
        blank_padding: what lies outside of an image becomes zero.
    """

    def __init__(self, mean: Sequence[float] | None, std: Sequence[float] | None, blank_padding: bool) -> None:
        super().__init__()
        self.mean: Tensor
        self.std: Tensor
        self.normalizes = mean is not None and std is not None
        self.blank_padding = blank_padding
        if mean is not None and std is not None:
            self.register_buffer("mean", torch.tensor(mean)[:, None, None])
            self.register_buffer("std", torch.tensor(std)[:, None, None])

    def forward(self, images: Tensor, image_sizes: Tensor | None) -> Tensor:
        if self.normalizes:
            images = (images.flip(1) / 255 - self.mean) / self.std
        if self.blank_padding and image_sizes is not None:
            rows, columns = count(images[:1, :1, :, :1], 2), count(images[:1, :1, :1], 3)  # [1, 1, H, 1], [1, 1, 1, W]
            height, width = (image_sizes[:, i, None, None, None] for i in (0, 1))  # [B, 1, 1, 1]
            images = images.masked_fill((rows >= height) | (columns >= width), 0)
        return images


class DetectionNetwork(ExportNetwork):
    """Pixels -> detections: `Predictor` as tensor operations, for whole batches.

    Args:
        model: the detector; a copy is taken. exp: its experiment.
        dynamic_size: count the priors of a level at run time; otherwise those of the traced size are constants.
    """

    def __init__(self, model: Detector, exp: DetectorExp, dynamic_size: bool) -> None:
        super().__init__(model, exp)
        self.predictor = exp.get_predictor()
        self.num_classes = exp.num_classes
        self.dynamic_size = dynamic_size
        self.legacy = model.anchors.legacy
        self.grid = Grid(first_cells(model.anchors), model.anchors.strides)

    def forward(self, images: Tensor, image_sizes: Tensor | None = None) -> tuple[Tensor, ...]:
        """Float BGR 0..255 [B, 3, H, W] (and int64 [B, 2]) -> boxes [B, D, 4] in input pixels, scores [B, D], labels
        int64 [B, D], count int64 [B], best first; rows from `count` on have score 0 and label -1.
        """
        predictions, features = self.predict(images, image_sizes)
        priors = self.grid(features)
        boxes = self.predictor.coder.decode(torch.cat(priors), predictions.box_deltas)
        boxes = self.clip(boxes, images, image_sizes)
        parts, first = [], 0
        for level in priors:
            size = level.shape[0] if self.dynamic_size else int(level.shape[0])
            last = first + size
            quality = predictions.quality_logits
            parts.append(
                level_candidates(
                    boxes[:, first:last],
                    predictions.cls_logits[:, first:last],
                    None if quality is None else quality[:, first:last],
                    size,
                    self.predictor,
                    self.legacy,
                )
            )
            first = last
        boxes, scores, labels = (torch.cat(column, dim=1) for column in zip(*parts))
        keep = keep_mask(
            boxes, scores, labels, self.num_classes, self.predictor.nms_threshold, self.predictor.max_detections
        )
        # Plain coordinates in the file: a legacy box ends on its last pixel, its side lies one further.
        boxes = torch.cat([boxes[..., :2], boxes[..., 2:] + float(self.legacy)], dim=-1)
        return best_first(boxes, scores.masked_fill(~keep, DROPPED), labels, self.predictor.max_detections)

    def clip(self, boxes: Tensor, images: Tensor, image_sizes: Tensor | None) -> Tensor:
        """Boxes [B, P, 4] inside the input or the images in it, as the predictor says."""
        if self.predictor.clip is None:
            return boxes
        if self.predictor.clip == "input":
            height, width = (torch.ones_like(side).sum()[None] for side in (images[0, 0, :, 0], images[0, 0, 0]))  # [1]
        else:
            assert image_sizes is not None
            height, width = image_sizes[:, 0].to(boxes.dtype), image_sizes[:, 1].to(boxes.dtype)  # [B]
        limit = torch.stack([width, height, width, height], dim=-1)[:, None] - float(self.legacy)  # [B or 1, 1, 4]
        return torch.minimum(boxes.clamp(min=0), limit)


class Grid(nn.Module):
    """The priors of every level, counted from the maps.

    Args:
        first_cells: [L, A, 4] boxes of the cell in row 0 and column 0 of every level. strides: pixels between cells.
    """

    def __init__(self, first_cells: Tensor, strides: Sequence[int]) -> None:
        super().__init__()
        self.first_cells: Tensor
        self.register_buffer("first_cells", first_cells)
        self.strides = strides

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Maps [B, C, H, W], finest first -> boxes [H*W*A, 4] per level in the order row, column, anchor."""
        levels = []
        for feature, cell, stride in zip(features, self.first_cells, self.strides):
            y, x = count(feature[0, 0, :, 0], 0) * stride, count(feature[0, 0, 0], 0) * stride
            y_grid, x_grid = y[:, None].expand(-1, x.shape[0]), x[None].expand(y.shape[0], -1)  # [H, W]
            shift = torch.stack([x_grid, y_grid, x_grid, y_grid], dim=-1)  # [H, W, 4]
            levels.append((shift[:, :, None] + cell).reshape(-1, 4))  # [H, W, A, 4] -> [H*W*A, 4]
        return levels


def takes_image_sizes(exp: DetectorExp) -> bool:
    """Whether the network has to know where each image ends: ResNet models blank the padding and clip boxes there."""
    return exp.get_predictor().clip == "content"


def first_cells(anchors: AnchorGrid) -> Tensor:
    """Boxes [L, A, 4] of the cell in row 0 and column 0 of every level."""
    levels = len(anchors.strides)
    boxes = anchors([(1, 1)] * levels, "cpu").boxes
    return boxes.reshape(levels, anchors.num_anchors, 4)  # [L*A, 4] -> [L, A, 4]


def count(x: Tensor, dim: int) -> Tensor:
    """0, 1, 2, ... along an axis, in the shape and type of `x`."""
    return torch.ones_like(x).cumsum(dim) - 1


def level_candidates(
    boxes: Tensor,
    cls_logits: Tensor,
    quality_logits: Tensor | None,
    size: int | Tensor,
    predictor: Predictor,
    legacy: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """The best pairs of prior and category of one level; what `Predictor.select` does there.

    boxes [B, n, 4], cls_logits [B, n, C], quality_logits [B, n]; size: n. Returns boxes [B, k, 4], scores [B, k] and
    labels int64 [B, k]. Pairs of boxes without area or below the score threshold have score -1.
    """
    categories = cls_logits.shape[2]
    empty = ((boxes[..., 2:] - boxes[..., :2] + float(legacy)) <= 0).any(dim=2)
    quality = torch.ones_like(boxes[..., 0]) if quality_logits is None else quality_logits.sigmoid()
    best_logit, label = cls_logits.max(dim=2)
    scores = (best_logit.sigmoid() * quality).masked_fill(empty, DROPPED)
    k = limit(size, predictor.pre_nms)
    # The k best pairs are pairs of the k priors whose best pair is highest: no need to sort all n * C.
    best, prior = scores.topk(k, dim=1)
    if not predictor.multi_label:
        label = label.gather(1, prior)
    else:
        pairs = cls_logits.gather(1, prior[..., None].expand(-1, -1, categories)).sigmoid()  # [B, k, C]
        pairs = pairs * quality.gather(1, prior)[..., None]
        pairs = pairs.masked_fill(best[..., None] < 0, DROPPED)
        best, pair = pairs.flatten(1).topk(k, dim=1)  # [B, k, C] -> [B, k*C], pair = row * C + label
        prior, label = prior.gather(1, pair // categories), pair % categories
    best = best.masked_fill(best < max(predictor.score_threshold, 0.0), DROPPED)
    return boxes.gather(1, prior[..., None].expand(-1, -1, 4)), best, label


def limit(priors: int | Tensor, pre_nms: int | None) -> int:
    """Pairs kept of a level. While a dynamic size is traced sizes are tensors, which PyTorch takes for numbers."""
    if isinstance(priors, Tensor):
        return priors if pre_nms is None else priors.clamp(max=pre_nms)  # type: ignore[return-value]
    return priors if pre_nms is None else min(priors, pre_nms)


def best_first(boxes: Tensor, scores: Tensor, labels: Tensor, number: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The `number` best candidates in order, filled up with empty rows; a score below 0 is none.

    boxes [B, K, 4], scores [B, K], labels [B, K] -> boxes, scores, labels with K = `number`, count int64 [B].
    """
    padded = nn.functional.pad(scores, (0, number), value=DROPPED)  # there may be fewer candidates than rows
    best, row = padded.topk(number, dim=1)
    found = best >= 0
    row = row.masked_fill(~found, 0)
    return (
        boxes.gather(1, row[..., None].expand(-1, -1, 4)).masked_fill(~found[..., None], 0),
        best.masked_fill(~found, 0),
        labels.gather(1, row).masked_fill(~found, BACKGROUND),
        found.sum(dim=1),
    )
