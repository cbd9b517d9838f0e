"""The anchors that predictions refer to, in the order level, row, column, anchor."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from yolox_lt.errors import UserError
from yolox_lt.types import Priors


class AnchorGrid:
    """Anchors of area (stride * scale)^2 on every cell of every level; squares in the released models.

    A ratio r = height / width keeps the area of the square of side a = stride * scale: width a / sqrt(r), height
    a * sqrt(r) (Lin et al., Focal Loss, arXiv 1708.02002, have ratios 0.5, 1, 2). Order within a cell: all scales of
    the first ratio, then all of the second (our choice; the released models have one ratio).

    Two conventions, for cell (row i, column j) of stride s, and a any side, width or height:

    - aligned (YOLOX models): centre (j s, i s), the cell's top-left corner, not its middle; half extent a / 2.
      Stride 8, scale 3, first cell: (-12, -12, 12, 12).
    - legacy (ResNet models): centre ((s - 1) / 2 + j s, (s - 1) / 2 + i s); half extent (a - 1) / 2, since a box there
      spans x2 - x1 + 1 pixels. Stride 8, scale 6, first cell: (-20, -20, 27, 27).

    Aligned with scales [1] it is official YOLOX's grid: centre (j s, i s), side s, so that the usual delta code without
    a cap gives (dx + j) s and exp(dw) s.

    It is no module and holds no tensors: nothing of it enters a state dict, and nothing made in inference mode or while
    exporting can reach a later training step. Building the grid takes well under a millisecond and does not
    synchronise with a GPU.

    Args:
        strides: pixels between neighbouring cells, one per level, finest first.
        scales: sides of a cell's anchors in strides, in anchor order (smaller first in the released models).
        legacy: the convention, see above.
        ratios: height / width of a cell's anchors.

    Raises:
        UserError: no scale or ratio, or a scale, ratio or stride that is not positive.
    """

    def __init__(
        self,
        strides: Sequence[int],
        scales: Sequence[float],
        legacy: bool = False,
        ratios: Sequence[float] = (1.0,),
    ) -> None:
        self.strides = [int(stride) for stride in strides]
        self.scales = [float(scale) for scale in scales]
        self.ratios = [float(ratio) for ratio in ratios]
        self.legacy = legacy
        if not self.scales or min(self.scales) <= 0:
            raise UserError(f"anchor_scales is {list(scales)}: give one positive number per anchor, for example 3, 4.")
        if not self.ratios or not all(0 < ratio < math.inf for ratio in self.ratios):
            raise UserError(
                f"anchor_ratios is {list(ratios)}: give one positive number (height / width) per shape, for example "
                "0.5, 1, 2."
            )
        if not self.strides or min(self.strides) <= 0:
            raise UserError(f"anchor strides are {list(strides)}: give one positive number per level.")

    @property
    def num_anchors(self) -> int:
        """Anchors per cell."""
        return len(self.scales) * len(self.ratios)

    def __call__(self, feature_sizes: Sequence[Sequence[int]], device: torch.device | str | None = None) -> Priors:
        """Priors of feature maps with the given (rows, columns), one pair per level, finest first.

        Boxes are float32 on `device` (default: the framework's default device) and may reach beyond the image.
        """
        if len(feature_sizes) != len(self.strides):
            raise ValueError(f"{len(feature_sizes)} feature maps but {len(self.strides)} strides")
        sizes = [(int(rows), int(columns)) for rows, columns in feature_sizes]
        counts = [rows * columns * self.num_anchors for rows, columns in sizes]
        boxes = [self._level(rows, columns, stride, device) for (rows, columns), stride in zip(sizes, self.strides)]
        strides = [
            torch.full((count,), float(stride), dtype=torch.float32, device=device)
            for count, stride in zip(counts, self.strides)
        ]
        return Priors(
            boxes=torch.cat(boxes),
            strides=torch.cat(strides),
            level_sizes=counts,
            feature_sizes=sizes,
            level_strides=list(self.strides),
            num_anchors=self.num_anchors,
            legacy=self.legacy,
        )

    def _level(self, rows: int, columns: int, stride: int, device: torch.device | str | None) -> Tensor:
        """Boxes [rows * columns * A, 4] of one level."""
        first = (stride - 1) / 2 if self.legacy else 0.0
        x = torch.arange(columns, dtype=torch.float32, device=device) * stride + first
        y = torch.arange(rows, dtype=torch.float32, device=device) * stride + first
        y_grid, x_grid = torch.meshgrid(y, x, indexing="ij")
        anchors = []
        for ratio in self.ratios:
            for scale in self.scales:
                # Numbers, no tensors: copying those to a GPU would wait for it.
                half_width = (stride * scale / math.sqrt(ratio) - float(self.legacy)) / 2
                half_height = (stride * scale * math.sqrt(ratio) - float(self.legacy)) / 2
                corners = [x_grid - half_width, y_grid - half_height, x_grid + half_width, y_grid + half_height]
                anchors.append(torch.stack(corners, dim=-1))  # [H, W, 4]
        return torch.stack(anchors, dim=2).reshape(-1, 4)  # [H, W, A, 4] -> [H*W*A, 4]
