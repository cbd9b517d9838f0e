"""The network as it goes into a file: pixels in, raw predictions or detections out, nothing that tracing would lose.

Tracing keeps tensor operations alone: a number that Python computes, such as the size of a map, becomes a constant. So
positions and sizes are counted from the maps themselves, which also keeps files free of any device.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from yolox_lt.exp.detection import DetectorExp, preprocessor_of
from yolox_lt.models import AnchorGrid, Detector, fuse_conv_bn
from yolox_lt.models.preprocess import count
from yolox_lt.predict import Predictor
from yolox_lt.types import Predictions, Priors


class ExportNetwork(nn.Module):
    """Pixels -> raw predictions, with BatchNorm folded and the experiment's normalisation inside.

    Args:
        model: the detector; a copy is taken. exp: its experiment. predictor: with calibrator and thresholds.
    """

    def __init__(self, model: Detector, exp: DetectorExp, predictor: Predictor) -> None:
        super().__init__()
        fused = fuse_conv_bn(model).requires_grad_(False).float().cpu()
        self.backbone, self.head = fused.backbone, fused.head
        self.pixels = preprocessor_of(exp)
        self.predictor = predictor

    def forward(self, images: Tensor, image_sizes: Tensor | None = None) -> tuple[Tensor, ...]:
        """Float BGR 0..255 [B, 3, H, W] (and int64 [B, 2]) -> cls_logits, box_deltas and, if any, quality_logits."""
        predictions, _ = self.predict(images, image_sizes)
        raw = (
            self.predictor.logits(predictions.cls_logits),
            predictions.box_deltas,
            predictions.quality_logits,
        )
        return tuple(values for values in raw if values is not None)

    def predict(self, images: Tensor, image_sizes: Tensor | None) -> tuple[Predictions, Sequence[Tensor]]:
        """Predictions and the maps that they were made from, finest first."""
        features = self.backbone(self.pixels(images, image_sizes))
        return self.head(features), features


class DetectionNetwork(ExportNetwork):
    """Pixels -> detections: the network and `Predictor` behind it.

    Args:
        model: the detector; a copy is taken. exp: its experiment. predictor: with calibrator and thresholds.
        dynamic_size: count the priors of a level at run time; otherwise those of the traced size are constants.
    """

    def __init__(self, model: Detector, exp: DetectorExp, predictor: Predictor, dynamic_size: bool) -> None:
        super().__init__(model, exp, predictor)
        self.num_classes = exp.num_classes
        self.fill = exp.get_collate().fill
        self.dynamic_size = dynamic_size
        self.anchors = model.anchors
        self.grid = Grid(first_cells(model.anchors), model.anchors.strides)

    def forward(self, images: Tensor, image_sizes: Tensor | None = None) -> tuple[Tensor, ...]:
        """Float BGR 0..255 [B, 3, H, W] (and int64 [B, 2]) -> boxes [B, D, 4] in input pixels, scores [B, D], labels
        int64 [B, D], count int64 [B], best first; rows from `count` on have score 0 and label -1.
        """
        predictions, features = self.predict(images, image_sizes)
        levels = self.grid(features)
        priors = Priors(
            boxes=torch.cat(levels),
            strides=torch.empty(0),  # not needed here, and not to be traced
            level_sizes=[level.shape[0] if self.dynamic_size else int(level.shape[0]) for level in levels],
            feature_sizes=[],
            level_strides=self.anchors.strides,
            num_anchors=self.anchors.num_anchors,
            legacy=self.anchors.legacy,
        )
        height, width = (torch.ones_like(side).sum()[None] for side in (images[0, 0, :, 0], images[0, 0, 0]))  # [1]
        content = content_sizes(images, self.fill) if image_sizes is None else image_sizes
        candidates = self.predictor.candidates(predictions, priors, torch.stack([height, width], dim=1), content)
        boxes, scores, labels, rows = self.predictor.finish(candidates, priors.legacy, self.num_classes)
        # Plain coordinates in the file: a legacy box ends on its last pixel, its side lies one further.
        boxes = torch.cat([boxes[..., :2], boxes[..., 2:] + float(priors.legacy)], dim=-1)
        return boxes, scores, labels, rows


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


def content_sizes(images: Tensor, fill: int) -> Tensor:
    """(height, width) float [B, 2] of the images top-left in `images` [B, 3, H, W]: up to the last row and the last
    column that are not all of the padding's value; the whole input for an image that is nothing else.
    """
    inside = (images != fill).to(images.dtype).amax(dim=1)  # [B, H, W]
    sides = []
    for across in (2, 1):
        lines = inside.amax(dim=across)  # [B, H] or [B, W]
        position = count(lines, 1) + 1
        last = (lines * position).amax(dim=1)
        sides.append(torch.where(last > 0, last, position.amax(dim=1)))
    return torch.stack(sides, dim=1)


def takes_image_sizes(exp: DetectorExp) -> bool:
    """Whether the network has to know where each image ends: ResNet models blank the padding and clip boxes there."""
    return exp.get_predictor().clip == "content"


def first_cells(anchors: AnchorGrid) -> Tensor:
    """Boxes [L, A, 4] of the cell in row 0 and column 0 of every level."""
    levels = len(anchors.strides)
    boxes = anchors([(1, 1)] * levels, "cpu").boxes
    return boxes.reshape(levels, anchors.num_anchors, 4)  # [L*A, 4] -> [L, A, 4]
