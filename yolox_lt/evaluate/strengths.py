"""One pass of a network over a data set under many calibrators: what each of them would have found."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from yolox_lt.calibrate import Calibrator
from yolox_lt.evaluate.collect import Limits, to_arrays, within
from yolox_lt.evaluate.results import DetectionArrays
from yolox_lt.models.two_stage import RegionPredictions
from yolox_lt.predict import Predictor
from yolox_lt.predict.predictor import smaller
from yolox_lt.predict.select import best_pairs
from yolox_lt.types import Batch, Detections, Predictions, Priors


@dataclass(frozen=True)
class Scan:
    """Predicts under several calibrators of rising strength, in place of a `Predictor`.

    Only the priors are looked at that hold one of the best pairs under those at the places `extremes`, the weakest and
    the strongest; two stages: all regions.
    """

    predictor: Predictor
    calibrators: Sequence[Calibrator | None]
    extremes: tuple[int, ...] = (0, -1)

    def __call__(
        self, predictions: Predictions, priors: Priors, batch: Batch, size: tuple[int, int]
    ) -> list[list[Detections]]:
        """Detections [calibrators][images]; arguments as `Predictor`'s."""
        every = [replace(self.predictor, calibrator=calibrator) for calibrator in self.calibrators]
        scales, originals, contents = batch.scales, batch.original_sizes, batch.image_sizes
        if isinstance(predictions, RegionPredictions):
            return [each(predictions, priors, scales, originals, contents, size) for each in every]
        found: list[list[Detections]] = [[] for _ in every]
        for b in range(len(predictions.cls_logits)):
            own = image_of(predictions, b)
            rows = self.union(own, priors, [every[place] for place in self.extremes], contents[b : b + 1], size)
            rows, level_sizes = enough(rows, priors.level_sizes, self.predictor.pre_nms)
            part = Predictions(*(None if v is None else v[:, rows] for v in fields_of(own)))  # type: ignore[arg-type]
            some = replace(priors, boxes=priors.boxes[rows], strides=priors.strides[rows], level_sizes=level_sizes)
            for each, result in zip(every, found):
                result += each(part, some, scales[b : b + 1], originals[b : b + 1], contents[b : b + 1], size)
        return found

    def union(
        self,
        own: Predictions,
        priors: Priors,
        extremes: Sequence[Predictor],
        content: Tensor,
        size: tuple[int, int],
    ) -> Tensor:
        """Rows int64 [n], ascending, of the priors with a best pair under one of the extremes; own: of one image.

        content: int64 [1, 2], (height, width) of the image inside the input, whose `size` is (height, width).
        """
        quality = own.quality_logits
        weight = torch.ones_like(own.cls_logits[..., 0]) if quality is None else quality.float().sigmoid()
        content = content.to(weight.device)
        usable = self.predictor.boxes_of(own, priors, content.new_tensor([size]), content)[1]
        parts, first = [], 0
        for level_size in priors.level_sizes:
            level = slice(first, first + level_size)
            count = smaller(level_size, self.predictor.pre_nms)
            own_quality, own_usable, best = weight[:, level], usable[:, level], []
            for each in extremes:
                logits = each.logits(own.cls_logits[:, level])
                best.append(best_pairs(logits, own_quality, own_usable, count, each.multi_label, 0.0)[1])
            parts.append(first + torch.cat(best, dim=1).unique())
            first += level_size
        return torch.cat(parts)


def enough(rows: Tensor, level_sizes: Sequence[int], pre_nms: int | None) -> tuple[Tensor, list[int]]:
    """Rows with others added, and how many there are of each level: no fewer than the predictor takes pairs of it.

    One prior may hold several of the best pairs, so the rows that hold them all may be fewer than the pairs.
    """
    chosen = torch.zeros(sum(level_sizes), dtype=torch.bool, device=rows.device)
    chosen[rows] = True
    sizes = []
    for level in chosen.split(list(level_sizes)):
        missing = max(smaller(len(level), pre_nms) - int(level.sum()), 0)
        level[(~level).nonzero().squeeze(1)[:missing]] = True
        sizes.append(int(level.sum()))
    return chosen.nonzero().squeeze(1), sizes


def fields_of(predictions: Predictions) -> tuple[Tensor, Tensor, Tensor | None]:
    """Logits, box deltas and qualities."""
    return predictions.cls_logits, predictions.box_deltas, predictions.quality_logits


def image_of(predictions: Predictions, b: int) -> Predictions:
    """The predictions of one image as a batch of one."""
    return Predictions(*(None if v is None else v[b : b + 1] for v in fields_of(predictions)))  # type: ignore[arg-type]


@torch.no_grad()
def scan(
    model: nn.Module,
    find: Scan,
    preprocess: nn.Module,
    loader: Iterable[Batch],
    category_ids: np.ndarray,
    device: torch.device,
    limits: Limits,
) -> list[DetectionArrays]:
    """Detections under each calibrator of `find`; images in ascending order, arguments as `collect_detections`."""
    model.eval()
    parts: list[list[DetectionArrays]] = [[] for _ in find.calibrators]
    for batch in tqdm(loader, desc="scan", leave=False, disable=None):
        images = preprocess(batch.images.to(device), batch.image_sizes)
        predictions, priors = model(images)
        found = find(predictions, priors, batch, (images.shape[2], images.shape[3]))
        for part, detections in zip(parts, found):
            part += [to_arrays(d, int(i), category_ids) for d, i in zip(detections, batch.image_ids)]
    return [within(DetectionArrays.concatenate(part), limits) for part in parts]


@torch.no_grad()
def logit_moments(
    model: nn.Module,
    predictor: Predictor,
    preprocess: nn.Module,
    loader: Iterable[Batch],
    device: torch.device,
    most_images: int,
) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation float64 [C] of the category logits of the priors that hold a best pair."""
    model.eval()
    count, total, squares = 0, torch.zeros(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    look = Scan(predictor, [None])
    seen = 0
    for batch in loader:
        images = preprocess(batch.images.to(device), batch.image_sizes)
        predictions, priors = model(images)
        if isinstance(predictions, RegionPredictions):
            sizes = [(int(height), int(width)) for height, width in batch.image_sizes.tolist()]
            rows = [predictor.logits(predictions.classify([r.boxes for r in predictions.propose(sizes)])[0])]
        else:
            size, contents = (images.shape[2], images.shape[3]), batch.image_sizes.split(1)
            own = [image_of(predictions, b) for b in range(len(images))]
            found = [look.union(each, priors, [predictor], at, size) for each, at in zip(own, contents)]
            rows = [predictor.logits(each.cls_logits[0, of]) for each, of in zip(own, found)]
        for values in rows:
            values = values.double().cpu()
            count, total, squares = count + len(values), total + values.sum(0), squares + (values**2).sum(0)
        seen += len(images)
        if seen >= most_images:
            break
    mean = total / max(count, 1)
    variance = (squares - count * mean**2).clamp(min=0) / max(count - 1, 1)
    return mean, variance.sqrt()
