"""The one way from network output to detections: candidates (decode, score, best pairs), finish (NMS), original pixels.

Evaluation, api, demo and exported files share it. What a traced file cannot hold, a number of rows that depends on the
values, has a form of its own in `traced.py`; everything else is the same code.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from yolox_lt import boxes as box_ops
from yolox_lt.calibrate import Calibrator, calibrated_logits
from yolox_lt.coders import Coder, category_logits
from yolox_lt.predict import select, traced
from yolox_lt.predict.nms import category_nms
from yolox_lt.predict.voting import vote
from yolox_lt.types import BACKGROUND, Detections, Predictions, Priors


class Candidates(NamedTuple):
    """What B images may hold, before NMS, in the convention of the priors.

    boxes: float32 [B, K, 4] in input pixels. scores: float32 [B, K], below 0 for none. labels: int64 [B, K].
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor


class Found(NamedTuple):
    """What was found in B images, best first, in the convention of the priors.

    boxes: float32 [B, D, 4] in input pixels. scores: float32 [B, D]. labels: int64 [B, D]. rows: int64 [B], how many
    count; the others hold zeros and the label -1.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    rows: Tensor


@dataclass(frozen=True)
class Predictor:
    """Detections of a batch: score = class x quality (product, no root), per-level limit, per-category NMS.

    Of equal scores the lower prior, then the lower category goes first.

    Args:
        coder: decodes box deltas.
        nms_threshold: IoU above which the weaker of two boxes of one category goes.
        score_threshold: pairs with a lower score are dropped before NMS; 0 keeps all.
        pre_nms: (prior, category) pairs kept per level, never more than the level has priors; None: as many as it has.
        max_detections: boxes kept per image.
        multi_label: a prior may appear with several categories (released); False: only with its best (official YOLOX),
            the one with the largest logit.
        class_agnostic: a box suppresses boxes of every category (official YOLOX's demo).
        clip: clip boxes before NMS to the padded "input" (released YOLOX models) or to the "content" of each image
            (released ResNet models); None: not at all (official YOLOX).
        voting: replace each kept box by the score-weighted mean of the candidates that overlap it, see `vote`.
        names: category names for the detections.
        scores: outputs of the classifier [..., W] -> scores [..., C]; None: a sigmoid of each.
        calibrator: changes the scores before the best pairs are chosen; None for none, or one inside the classifier.
        conf: float32 [C], lowest score of every category that is kept, NaN for none of it; None keeps all.
    """

    coder: Coder
    nms_threshold: float = 0.65
    score_threshold: float = 0.0
    pre_nms: int | None = 1000
    max_detections: int = 300
    multi_label: bool = True
    class_agnostic: bool = False
    clip: Literal["input", "content"] | None = "input"
    voting: bool = False
    names: tuple[str, ...] = ()
    scores: Callable[[Tensor], Tensor] | None = None
    calibrator: Calibrator | None = None
    conf: Tensor | None = None

    def logits(self, outputs: Tensor) -> Tensor:
        """Outputs of the classifier [..., W] -> one calibrated logit a category [..., C]."""
        return calibrated_logits(category_logits(outputs, self.scores), self.calibrator)

    def confident(self, scores: Tensor, labels: Tensor) -> Tensor:
        """Scores of labels (int64, of one shape), NONE where they are below `conf`."""
        if self.conf is None:
            return scores
        # Before NMS: with `class_agnostic` what is not shown must not take the place of what is.
        return scores.masked_fill(~(scores >= self.conf.to(scores)[labels]), select.NONE)

    @torch.no_grad()
    def __call__(
        self,
        predictions: Predictions,
        priors: Priors,
        scales: Tensor,
        original_sizes: Tensor,
        content_sizes: Tensor,
        input_size: tuple[int, int],
    ) -> list[Detections]:
        """One Detections an image, in pixels of the original image, clipped to it, best score first.

        Args:
            predictions: of B images. priors: P priors.
            scales: float [B, 2], (y, x) factors from the original image to the input.
            original_sizes: int64 [B, 2], (height, width) before resizing.
            content_sizes: int64 [B, 2], (height, width) of each image inside the input.
            input_size: (height, width) of the input, padding included.
        """
        content = content_sizes.to(predictions.box_deltas.device)
        candidates = self.candidates(predictions, priors, content.new_tensor([input_size]), content)
        return self.to_original(self.finish(candidates, priors.legacy), priors.legacy, scales, original_sizes)

    def candidates(
        self, predictions: Predictions, priors: Priors, input_sizes: Tensor, content_sizes: Tensor
    ) -> Candidates:
        """The best pairs of prior and category of every level, best first inside a level.

        Pairs whose box has no area, or none inside the image's content, are no candidates.

        Args:
            input_sizes: int64 [1, 2], (height, width) of the input. content_sizes: int64 [B, 2] of the images in it.
        """
        best_pairs = traced.best_pairs if torch.jit.is_tracing() else select.best_pairs
        boxes, usable = self.boxes_of(predictions, priors, input_sizes, content_sizes)
        logits = predictions.quality_logits
        quality = torch.ones_like(boxes[..., 0]) if logits is None else logits.float().sigmoid()
        parts, first = [], 0
        for size in priors.level_sizes:
            level = slice(first, first + size)
            scores, prior, label = best_pairs(
                self.logits(predictions.cls_logits[:, level]),
                quality[:, level],
                usable[:, level],
                smaller(size, self.pre_nms),
                self.multi_label,
                max(self.score_threshold, 0.0),
            )
            level_boxes = boxes[:, level].gather(1, prior[..., None].expand(-1, -1, 4))
            parts.append((level_boxes, self.confident(scores, label), label))
            first = first + size
        return Candidates(*(torch.cat(column, dim=1) for column in zip(*parts)))

    def boxes_of(
        self, predictions: Predictions, priors: Priors, input_sizes: Tensor, content_sizes: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Boxes float32 [B, P, 4] and which of them may be candidates, bool [B, P]; arguments as `candidates`."""
        boxes = priors.to_own(self.coder.decode(priors.plain(), predictions.box_deltas.float()))  # [B, P, 4]
        clip_sizes = {"input": input_sizes, "content": content_sizes, None: None}[self.clip]
        if clip_sizes is not None:
            boxes = torch.minimum(boxes.clamp(min=0), corners(clip_sizes) - float(priors.legacy))
        usable = ((boxes[..., 2:] - boxes[..., :2] + float(priors.legacy)) > 0).all(dim=2)
        return boxes, usable & (boxes[..., :2] < corners(content_sizes)[..., :2]).all(dim=2)

    def finish(self, candidates: Candidates, legacy: bool = False, num_classes: int = 0) -> Found:
        """NMS inside each category, or over all with `class_agnostic`, and the best `max_detections` of what stays.

        Args:
            legacy: convention of the boxes. num_classes: C, while tracing alone.
        """
        boxes, scores, labels = candidates
        if torch.jit.is_tracing():
            keep = traced.keep_mask(boxes, scores, labels, num_classes, self.nms_threshold, self.max_detections)
            scores = scores.masked_fill(~keep, select.NONE)
            return Found(*traced.best_first(boxes, scores, labels, self.max_detections))
        shape = (len(boxes), self.max_detections)
        found = Found(
            boxes.new_zeros(*shape, 4),
            scores.new_zeros(shape),
            labels.new_full(shape, BACKGROUND),
            labels.new_zeros(len(boxes)),
        )
        for b in range(len(boxes)):
            own = (scores[b] >= max(self.score_threshold, 0.0)).nonzero().squeeze(1)
            box, score, label = boxes[b, own], scores[b, own], labels[b, own]
            groups = torch.zeros_like(label) if self.class_agnostic else label
            keep = category_nms(box, score, groups, self.nms_threshold, self.max_detections)
            kept = vote(box[keep], groups[keep], box, score, groups, legacy) if self.voting else box[keep]
            rows = len(keep)
            found.boxes[b, :rows], found.scores[b, :rows], found.labels[b, :rows] = kept, score[keep], label[keep]
            found.rows[b] = rows
        return found

    def to_original(self, found: Found, legacy: bool, scales: Tensor, original_sizes: Tensor) -> list[Detections]:
        """Plain boxes in pixels of the original images, clipped to them; arguments as in a call."""
        detections = []
        for b, rows in enumerate(found.rows.tolist()):
            (scale_y, scale_x), (height, width) = scales[b].tolist(), original_sizes[b].tolist()
            boxes = box_ops.scale(found.boxes[b, :rows], 1 / scale_x, 1 / scale_y)
            # Back to plain coordinates: the last pixel of a legacy box is its x2, the side lies one further.
            boxes = box_ops.clip(boxes + boxes.new_tensor([0, 0, 1, 1]) * float(legacy), (height, width))
            # Rounding at the border may leave no area.
            keep = (boxes[:, 2:] > boxes[:, :2]).all(dim=1)
            scores, labels = found.scores[b, :rows], found.labels[b, :rows]
            detections.append(Detections(boxes[keep], scores[keep], labels[keep], self.names))
        return detections


def corners(sizes: Tensor) -> Tensor:
    """(height, width) [B, 2] -> largest x1 y1 x2 y2 inside, float32 [B, 1, 4]."""
    height, width = sizes[:, 0].float(), sizes[:, 1].float()
    return torch.stack([width, height, width, height], dim=-1)[:, None]  # [B, 4] -> [B, 1, 4]


def smaller(priors: int, pre_nms: int | None) -> int:
    """Pairs kept of a level. While a dynamic size is traced sizes are tensors, which PyTorch takes for numbers."""
    if isinstance(priors, Tensor):
        return priors if pre_nms is None else priors.clamp(max=pre_nms)
    return priors if pre_nms is None else min(priors, pre_nms)
