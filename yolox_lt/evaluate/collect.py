"""Run a detector over a data set and bring the detections together as arrays."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import torch
from loguru import logger
from torch import nn
from tqdm import tqdm

from yolox_lt.boxes import xyxy_to_xywh
from yolox_lt.evaluate.protocols import best_of_group
from yolox_lt.evaluate.results import DetectionArrays
from yolox_lt.types import Batch, Detections

Predict = Callable[..., list[Detections]]


@dataclass(frozen=True)
class Limits:
    """Detections worth keeping: the `per_image` best of an image, and beside them, over the whole set, the
    `per_category` best of a category. AP reads the former alone, AP-fixed and AP-pool the latter alone.
    """

    per_image: int
    per_category: int


def within(detections: DetectionArrays, limits: Limits) -> DetectionArrays:
    """Those that either limit keeps, in their order; of equal scores the earlier ones."""
    by_image = best_of_group(detections.image_ids, detections.scores, limits.per_image)
    by_category = best_of_group(detections.category_ids, detections.scores, limits.per_category)
    return detections.select(by_image | by_category)


def best_of_images(detections: DetectionArrays, count: int) -> DetectionArrays:
    """The `count` best of every image, in their order; of equal scores the earlier ones."""
    return detections.select(best_of_group(detections.image_ids, detections.scores, count))


ROOM = 1_000_000
"""Detections up to which none is dropped: 40 MB."""


@torch.no_grad()
def collect_detections(
    model: nn.Module,
    predict: Predict,
    preprocess: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    loader: Iterable[Batch],
    category_ids: np.ndarray,
    device: torch.device,
    autocast: torch.dtype | None = None,
    progress: bool = False,
    limits: Limits | None = None,
) -> DetectionArrays:
    """Detections of every image of the loader, with the category ids of the annotation file, images in ascending order.

    Args:
        model: images [B, 3, H, W] -> (Predictions, Priors); put into evaluation mode and back.
        predict: a Predictor. category_ids: the file's id of each of the model's labels, -1 for categories that are not
            scored: their detections are dropped.
        preprocess: uint8 images on `device`, sizes of their contents -> network input.
        autocast: torch.float16 or torch.bfloat16 for mixed precision.
        limits: what is kept; None: all. What cannot be kept any more is dropped on the way, so that memory holds at
            most about twice what is kept.
    """
    was_training = model.training
    model.eval()
    parts: list[DetectionArrays] = []
    room = ROOM
    for batch in tqdm(loader, desc="evaluate", leave=False, disable=not (progress and sys.stderr.isatty())):
        for name in batch.skipped:
            logger.warning(f"{name}: unreadable image scored as empty")
        images = preprocess(batch.images.to(device, non_blocking=True), batch.image_sizes)
        with torch.autocast(device.type, dtype=autocast, enabled=autocast is not None):
            predictions, priors = model(images)
        size = (images.shape[2], images.shape[3])
        found = predict(predictions, priors, batch.scales, batch.original_sizes, batch.image_sizes, size)
        del predictions, priors, images  # a matrix of logits less while the next one is made
        parts += [to_arrays(d, int(i), category_ids) for d, i in zip(found, batch.image_ids)]
        if limits is not None and sum(map(len, parts)) > room:
            parts = [within(DetectionArrays.concatenate(parts), limits)]
            room = max(2 * len(parts[0]), ROOM)
    model.train(was_training)
    whole = DetectionArrays.concatenate(parts)
    return whole if limits is None else within(whole, limits)


def to_arrays(detections: Detections, image_id: int, category_ids: np.ndarray) -> DetectionArrays:
    """One image's detections in the file's ids and x y width height."""
    ids = category_ids[detections.labels.cpu().numpy()]
    found = DetectionArrays(
        np.full(len(detections), image_id, dtype=np.int64),
        ids,
        xyxy_to_xywh(detections.boxes.cpu().double()).numpy(),
        detections.scores.cpu().double().numpy(),
    )
    return found if (ids >= 0).all() else found.select(ids >= 0)


def write_results(path: str | Path, detections: DetectionArrays) -> None:
    """Detections as a results file in COCO's format, readable by any evaluator: boxes x y width height."""
    columns = (detections.image_ids, detections.category_ids, detections.boxes, detections.scores)
    entries = [
        {"image_id": i, "category_id": c, "bbox": b, "score": s}
        for i, c, b, s in zip(*(column.tolist() for column in columns))
    ]
    Path(path).write_bytes(msgspec.json.encode(entries))
