"""From proposals to detections: the second stage's candidates, and NMS in each category."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from yolox_lt import boxes as box_ops
from yolox_lt.models.two_stage import RegionPredictions
from yolox_lt.predict.nms import category_nms
from yolox_lt.predict.predictor import Candidates, Predictor
from yolox_lt.predict.select import NONE, largest
from yolox_lt.types import BACKGROUND, Predictions, Priors

FIRST_LOOK = 16
"""Pairs looked at first, for each detection that is wanted."""


@dataclass(frozen=True)
class RoIPredictor(Predictor):
    """`Predictor` for two stages: every pair of proposal and category with a score above `score_threshold`.

    coder: of the second stage's boxes. scores: outputs [N, W] -> scores [N, C], without the background.
    `pre_nms`, `multi_label`, `clip` and `voting` have one meaning here: all pairs, several categories a proposal,
    clipped to the image, none.
    """

    def candidates(
        self, predictions: Predictions, priors: Priors, input_sizes: Tensor, content_sizes: Tensor
    ) -> Candidates:
        """What NMS leaves of every image, so that `finish` has nothing to drop; arguments as `Predictor.candidates`.

        With sigmoid heads at their prior every one of 1000 x 1203 pairs is a candidate. What NMS keeps of the best n
        does not depend on the others, so more are looked at only until enough stay: the result is exact.
        """
        assert isinstance(predictions, RegionPredictions)
        sizes = [(int(height), int(width)) for height, width in content_sizes.tolist()]
        regions = [found.boxes for found in predictions.propose(sizes)]
        logits, deltas = predictions.classify(regions)
        if self.calibrator is None and self.scores is not None:
            scores = self.scores(logits.float())
        else:
            scores = self.logits(logits.float()).sigmoid()
        if self.conf is not None:
            scores = self.confident(scores, torch.arange(scores.shape[1], device=scores.device).expand_as(scores))
        counts = [len(boxes) for boxes in regions]
        found = [
            self.survivors(*parts) for parts in zip(regions, scores.split(counts), deltas.float().split(counts), sizes)
        ]
        rows = max(len(score) for _, score, _ in found)
        batch = Candidates(
            deltas.new_zeros(len(found), rows, 4, dtype=torch.float32),
            deltas.new_full((len(found), rows), NONE, dtype=torch.float32),
            deltas.new_full((len(found), rows), BACKGROUND, dtype=torch.int64),
        )
        for b, parts in enumerate(found):
            for column, values in zip(batch, parts):
                column[b, : len(values)] = values
        return batch

    def survivors(
        self, regions: Tensor, scores: Tensor, deltas: Tensor, size: tuple[int, int]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Boxes [K, 4], scores [K] and labels [K] of one image after NMS, best first, at most `max_detections`.

        Args:
            regions: [R, 4]. scores: [R, C]. deltas: [R, 4C], or [R, 4] for one box a region. size: (height, width).
        """
        categories = scores.shape[1]
        per_region = deltas.unflatten(1, (-1, 4))  # [R, 4C] -> [R, C, 4]
        flat = scores.masked_fill(scores <= self.score_threshold, NONE).flatten()  # [R, C] -> [R*C]
        total = int((flat >= 0).sum())
        look = min(FIRST_LOOK * self.max_detections, total)
        while True:
            pair = largest(flat, max(look, 1))
            row, label = pair // categories, pair % categories
            delta = per_region[row, label if per_region.shape[1] > 1 else torch.zeros_like(label)]
            boxes = box_ops.clip(self.coder.decode(regions[row], delta), size)
            usable = (boxes[:, 2:] > boxes[:, :2]).all(dim=1) & (flat[pair] >= 0)
            boxes, score, label = boxes[usable], flat[pair][usable], label[usable]
            groups = torch.zeros_like(label) if self.class_agnostic else label
            keep = category_nms(boxes, score, groups, self.nms_threshold, self.max_detections)
            if len(keep) == self.max_detections or look == total:
                return boxes[keep], score[keep], label[keep]
            look = min(4 * look, total)
