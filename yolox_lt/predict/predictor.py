"""Scores, top-k, decoding, NMS and the way back to original pixels (reference section 10)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from yolox_lt import boxes as box_ops
from yolox_lt.coders import Coder
from yolox_lt.predict.nms import category_nms
from yolox_lt.predict.voting import vote
from yolox_lt.types import Detections, Predictions, Priors


@dataclass(frozen=True)
class Predictor:
    """Detections of a batch: score = class x quality (product, no root), per-level limit, per-category NMS.

    Args:
        coder: decodes box deltas.
        nms_threshold: IoU above which the weaker of two boxes of one category goes.
        score_threshold: pairs with a lower score are dropped before NMS; 0 keeps all.
        pre_nms: (prior, category) pairs kept per level, never more than the level has priors; None: as many as it has.
        max_detections: boxes kept per image.
        multi_label: a prior may appear with several categories (released); False: only with its best (official YOLOX).
        class_agnostic: a box suppresses boxes of every category (official YOLOX's demo).
        clip: clip boxes before NMS to the padded "input" (released YOLOX models) or to the "content" of each image
            (released ResNet models); None: not at all (official YOLOX).
        voting: replace each kept box by the score-weighted mean of the candidates that overlap it, see `vote`.
        names: category names for the detections.
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
        found = []
        for b in range(len(predictions.cls_logits)):
            quality = predictions.quality_logits
            boxes, scores, labels = self.select(
                predictions.cls_logits[b].float(),
                predictions.box_deltas[b].float(),
                None if quality is None else quality[b].float(),
                priors,
                input_size if self.clip == "input" else tuple(content_sizes[b].tolist()),
            )
            groups = torch.zeros_like(labels) if self.class_agnostic else labels
            keep = category_nms(boxes, scores, groups, self.nms_threshold)[: self.max_detections]
            kept = vote(boxes[keep], groups[keep], boxes, scores, groups, priors.legacy) if self.voting else boxes[keep]
            (scale_y, scale_x), (height, width) = scales[b].tolist(), original_sizes[b].tolist()
            kept = box_ops.scale(kept, 1 / scale_x, 1 / scale_y)
            # Back to plain coordinates: the last pixel of a legacy box is its x2, the side lies one further.
            kept = kept + kept.new_tensor([0, 0, 1, 1]) * float(priors.legacy)
            found.append(Detections(box_ops.clip(kept, (height, width)), scores[keep], labels[keep], self.names))
        return found

    def select(
        self,
        cls_logits: Tensor,
        box_deltas: Tensor,
        quality_logits: Tensor | None,
        priors: Priors,
        clip_size: tuple[int, int],
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Candidates of one image before NMS: boxes [K, 4] in input pixels, scores [K], labels int64 [K]."""
        boxes = self.coder.decode(priors.boxes, box_deltas)
        if self.clip is not None:
            boxes = box_ops.clip(boxes, clip_size, priors.legacy)
        scores = cls_logits.sigmoid()
        if quality_logits is not None:
            scores = scores * quality_logits.sigmoid()[:, None]
        empty = ((boxes[:, 2:] - boxes[:, :2] + float(priors.legacy)) <= 0).any(dim=1)
        scores = scores.masked_fill(empty[:, None], -1.0)
        parts, first = [], 0
        for size in priors.level_sizes:
            parts.append(self.best_pairs(scores[first : first + size], first))
            first += size
        kept_scores, prior, label = (torch.cat(column) for column in zip(*parts))
        order = kept_scores.argsort(descending=True, stable=True)
        return boxes[prior[order]], kept_scores[order], label[order]

    def best_pairs(self, scores: Tensor, first: int) -> tuple[Tensor, Tensor, Tensor]:
        """Scores, prior indices and labels of one level's best pairs; scores [n, C], its first prior is `first`."""
        n, c = scores.shape
        if not self.multi_label:
            best, label = scores.max(dim=1)
            prior = torch.arange(n, device=scores.device)
        else:
            best, pair = scores.flatten().topk(min(self.limit(n), n * c))  # [n, C] -> [n*C], pair = prior * C + label
            prior, label = pair // c, pair % c
        if not self.multi_label and self.limit(n) < n:
            best, order = best.topk(self.limit(n))
            prior, label = order, label[order]
        keep = best >= max(self.score_threshold, 0.0)
        return best[keep], prior[keep] + first, label[keep]

    def limit(self, priors_of_level: int) -> int:
        return priors_of_level if self.pre_nms is None else min(self.pre_nms, priors_of_level)
