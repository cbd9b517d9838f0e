"""Single samples to a batch of uint8 tensors."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from yolox_lt.types import Batch


@dataclass
class Item:
    """One image ready for the network.

    image: uint8 [H, W, 3] BGR. boxes: float32 [G, 4] x1 y1 x2 y2 in its pixels. labels: int64 [G].
    image_id: of the annotation file. content_size, original_size: (height, width). skipped: unreadable files.
    scale: (y, x) factors from the file to `image`, at test time only.
    """

    image: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray
    image_id: int
    content_size: tuple[int, int]
    original_size: tuple[int, int]
    skipped: tuple[str, ...] = ()
    scale: tuple[float, float] = (1.0, 1.0)


@dataclass(frozen=True)
class Collate:
    """Pads the images of a batch, bottom and right, to the largest of them rounded up to a multiple of `multiple`.

    YOLOX models need multiples of 32, their coarsest stride; the released ResNet models are padded to 64.
    """

    fill: int = 0
    multiple: int = 32

    def __call__(self, items: list[Item]) -> Batch:
        height = max(item.image.shape[0] for item in items)
        width = max(item.image.shape[1] for item in items)
        height, width = (-(-size // self.multiple) * self.multiple for size in (height, width))
        images = np.full((len(items), height, width, 3), self.fill, dtype=np.uint8)
        for row, item in zip(images, items):
            row[: item.image.shape[0], : item.image.shape[1]] = item.image
        return Batch(
            # [B, H, W, 3] seen as [B, 3, H, W]: channels-last in memory without moving a byte
            images=torch.from_numpy(images).permute(0, 3, 1, 2),
            boxes=[torch.from_numpy(np.asarray(item.boxes, np.float32).reshape(-1, 4)) for item in items],
            labels=[torch.from_numpy(np.asarray(item.labels, np.int64)) for item in items],
            image_ids=torch.tensor([item.image_id for item in items]),
            image_sizes=torch.tensor([item.content_size for item in items]),
            original_sizes=torch.tensor([item.original_size for item in items]),
            scales=torch.tensor([item.scale for item in items], dtype=torch.float64),
            skipped=[name for item in items for name in item.skipped],
        )
