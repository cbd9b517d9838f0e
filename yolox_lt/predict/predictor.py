"""Scores, top-k, decoding, NMS and the way back to original pixels (reference section 10).

With 16,800 priors and 1203 categories there are 20 million pairs, of which some thousand matter. They are found without
a score for every pair: the k-th largest of the priors' best scores is a bound that k pairs reach, so only priors whose
best score reaches it can hold one of the k best pairs.
"""

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

GROUP = 64
"""Scores of which only the best is looked at first."""
SLACK = 1e-6
"""The same logit's score may round differently in a vector and in a matrix; bounds are lowered by this share."""


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
                predictions.cls_logits[b],
                predictions.box_deltas[b].float(),
                None if quality is None else quality[b].float(),
                priors,
                input_size if self.clip == "input" else tuple(content_sizes[b].tolist()),
            )
            groups = torch.zeros_like(labels) if self.class_agnostic else labels
            keep = category_nms(boxes, scores, groups, self.nms_threshold, self.max_detections)
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
        quality = boxes.new_ones(len(boxes)) if quality_logits is None else quality_logits.sigmoid()
        usable = ((boxes[:, 2:] - boxes[:, :2] + float(priors.legacy)) > 0).all(dim=1)
        parts, first = [], 0
        for size in priors.level_sizes:
            level = slice(first, first + size)
            scores, prior, label = self.best_pairs(cls_logits[level], quality[level], usable[level])
            parts.append((scores, prior + first, label))
            first += size
        kept_scores, prior, label = (torch.cat(column) for column in zip(*parts))
        order = kept_scores.argsort(descending=True, stable=True)
        return boxes[prior[order]], kept_scores[order], label[order]

    def best_pairs(self, logits: Tensor, quality: Tensor, usable: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Scores, prior indices and labels of one level's best pairs, best first.

        logits: [n, C]. quality: float32 [n]. usable: bool [n], priors whose box is not empty.
        """
        n, c = logits.shape
        least = max(self.score_threshold, 0.0)
        best_logit = logits.amax(dim=1)
        best = (best_logit.float().sigmoid() * quality).masked_fill(~usable, -1.0)  # [n]
        if self.multi_label:
            bound = best.topk(self.limit(n)).values[-1].clamp(min=least) * (1 - SLACK)
            rows = (best >= bound).nonzero().squeeze(1)
            scores = (logits[rows].float().sigmoid() * quality[rows, None]).flatten()  # [m, C] -> [m*C]
            pair = largest(scores, self.limit(n))  # row * C + label
            score, prior, label = scores[pair], rows[pair // c], pair % c
        else:
            prior = largest(best, self.limit(n))
            score, label = best[prior], logits[prior].argmax(dim=1)
        keep = score >= least
        return score[keep], prior[keep], label[keep]

    def limit(self, priors_of_level: int) -> int:
        return priors_of_level if self.pre_nms is None else min(self.pre_nms, priors_of_level)


def largest(values: Tensor, count: int) -> Tensor:
    """Indices of the `count` largest of `values` [n], or of all; largest first, the lower index on equality."""
    groups = values[: len(values) // GROUP * GROUP].view(-1, GROUP).amax(dim=1)  # [n] -> [n // GROUP, GROUP]
    if len(groups) <= count:
        return values.argsort(descending=True, stable=True)[:count]
    # So many values reach this bound, and few others; only they are sorted.
    index = (values >= groups.topk(count).values[-1]).nonzero().squeeze(1)
    return index[values[index].argsort(descending=True, stable=True)[:count]]
