"""The containers that travel between the parts. Axes are documented here and nowhere else.

No logic but the way of a batch to its device and the output of `Detections`.

Letters: B images, P priors of an image over all levels, C categories, A priors (anchors) of a cell, G objects,
K detections.
Prior order everywhere: level, row, column, anchor.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    import numpy as np

    from yolox_lt.images import Image

BACKGROUND = -1
"""Label or object index of a prior that has no object."""

IGNORED = -2
"""Label or object index of a prior that takes part in no loss."""


@dataclass
class Priors:
    """The anchors of one input size; the same for every image of a batch.

    boxes: float32 [P, 4], x1 y1 x2 y2 in input pixels, in the priors' own convention.
    strides: float32 [P], pixels between neighbouring cells of the prior's level.
    level_sizes: priors of each level; sums to P.
    feature_sizes: (rows, columns) of each level.
    num_anchors: A.
    level_strides: stride of each level in pixels.
    legacy: the own convention is the +1 pixel one of the released ResNet models, x2 = x1 + width - 1; everything
        outside of priors, assigners and the predictor's clipping is plain.
    """

    boxes: Tensor
    strides: Tensor
    level_sizes: list[int]
    feature_sizes: list[tuple[int, int]]
    level_strides: list[int]
    num_anchors: int
    legacy: bool = False

    def plain(self) -> Tensor:
        """The boxes [P, 4] with x2 = x1 + width."""
        return self.boxes + far_corner(self.boxes) * float(self.legacy)

    def to_own(self, boxes: Tensor) -> Tensor:
        """Plain boxes [..., 4] in the priors' own convention."""
        return boxes - far_corner(boxes) * float(self.legacy)

    @property
    def inset(self) -> float:
        """Pixels by which the own convention has an object's sides nearer to a point: the point is half a pixel off."""
        return 0.5 * self.legacy


@dataclass
class Predictions:
    """What the network says, before any sigmoid or decoding. Without the batch axis for one image.

    cls_logits: float [B, P, C]; losses with another width W than the categories: [B, P, W].
    box_deltas: float [B, P, 4], dx dy dw dh relative to the priors.
    quality_logits: float [B, P] (IoU branch or objectness), None for a head without one.
    boxes: float32 [B, P, 4] decoded x1 y1 x2 y2; only in what assigners get that look at predictions.
    """

    cls_logits: Tensor
    box_deltas: Tensor
    quality_logits: Tensor | None = None
    boxes: Tensor | None = None

    def outputs(self) -> list[Tensor]:
        """Tensors that together depend on every parameter of the network."""
        return [x for x in (self.cls_logits, self.box_deltas, self.quality_logits) if x is not None]


@dataclass
class Assignment:
    """Which object each prior of one image is responsible for.

    gt_index: int64 [P], index into the image's objects (>= 0), BACKGROUND (-1) or IGNORED (-2).
    iou: float32 [P], the overlap the assigner used for its choice, 0 where there is no object.
    """

    gt_index: Tensor
    iou: Tensor


@dataclass
class Batch:
    """One batch as the loader delivers it, and after `to()` as the trainer uses it.

    images: uint8 [B, 3, H, W], BGR; smaller images sit top-left on the recipe's fill colour.
    boxes: per image float32 [G, 4], x1 y1 x2 y2 in pixels of `images`.
    labels: per image int64 [G], 0..C-1.
    image_ids: int64 [B], ids of the annotation file.
    image_sizes: int64 [B, 2], (height, width) of the content inside `images`.
    original_sizes: int64 [B, 2], (height, width) of the file on disk.
    scales: float64 [B, 2], (y, x) factors from the file to `images`; meaningful at test time only, ones in training.
    skipped: files that could not be read and were replaced (only with `skip_bad_images`).
    """

    images: Tensor
    boxes: list[Tensor]
    labels: list[Tensor]
    image_ids: Tensor
    image_sizes: Tensor
    original_sizes: Tensor
    scales: Tensor
    skipped: list[str] = field(default_factory=list)

    def to(self, device: torch.device | str) -> Batch:
        """The same batch with images and objects on `device`; ids and sizes stay on the host.

        The objects of all images cross in one page-locked copy.
        """
        if torch.device(device).type == "cpu":
            return self
        objects = pack_objects(self.boxes, self.labels)
        if torch.device(device).type == "cuda":
            objects = objects.pin_memory()
        boxes, labels = unpack_objects(objects.to(device, non_blocking=True), [len(b) for b in self.boxes])
        return replace(self, images=self.images.to(device, non_blocking=True), boxes=boxes, labels=labels)

    def pin_memory(self) -> Batch:
        """The same with page-locked images, called by the loader; `to` sees to the objects."""
        return replace(self, images=self.images.pin_memory())


def far_corner(boxes: Tensor) -> Tensor:
    """[0, 0, 1, 1] of the boxes' dtype, made on their device: a copy from the host would be waited for."""
    return torch.arange(4, device=boxes.device).div(2, rounding_mode="floor").to(boxes.dtype)


def pack_objects(boxes: list[Tensor], labels: list[Tensor]) -> Tensor:
    """float32 [sum of G, 5]: the boxes of all images and their labels, which are exact below 2^24."""
    return torch.cat([torch.cat(boxes), torch.cat(labels)[:, None].float()], dim=1)


def unpack_objects(objects: Tensor, counts: list[int]) -> tuple[list[Tensor], list[Tensor]]:
    """Inverse of `pack_objects`; counts: objects of each image."""
    boxes, labels = objects[:, :4].contiguous(), objects[:, 4].long()
    return list(boxes.split(counts)), list(labels.split(counts))


@dataclass
class Detections:
    """What was found in one image, best first.

    boxes: float32 [K, 4], x1 y1 x2 y2 in pixels of the original image.
    scores: float32 [K] in [0, 1].
    labels: int64 [K], 0..C-1.
    names: category name of each label of the model (not of each detection): names[labels[k]].
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    names: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.scores)

    def name_of(self, label: int) -> str:
        """Name of a category; its label as text where the model has no names."""
        return self.names[label] if self.names else str(label)

    def draw(self, image: Image) -> np.ndarray:
        """An image of the detections: uint8 [H, W, 3] BGR, a copy of its size with boxes, names and scores in percent.

        Args:
            image: the image in which they were found, in any form that the detector takes.
        """
        from yolox_lt.images import read_image  # OpenCV, where it is used alone
        from yolox_lt.render import render_boxes

        labels, scores = self.labels.cpu().numpy(), self.scores.cpu().numpy()
        texts = [f"{self.name_of(label)} {100 * score:.0f}" for label, score in zip(labels, scores)]
        return render_boxes(read_image(image), self.boxes.cpu().numpy(), labels, texts, min_side=1)

    def to_list(self) -> list[dict[str, Any]]:
        """A dict for each detection: name, label, score (five decimals) and box (x1 y1 x2 y2, two decimals)."""
        rows = zip(self.boxes.tolist(), self.scores.tolist(), self.labels.tolist())
        return [
            {
                "name": self.name_of(label),
                "label": label,
                "score": round(score, 5),
                "box": [round(value, 2) for value in box],
            }
            for box, score, label in rows
        ]

    def to_json(self) -> str:
        """`to_list` as JSON text, names in Unicode."""
        return json.dumps(self.to_list(), ensure_ascii=False)
