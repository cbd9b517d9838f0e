"""Images that show whether data and boxes are what one believes: files with labels, training batches, predictions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from yolox_lt.data.dataset import BadImageError, ImageStore
from yolox_lt.errors import UserError
from yolox_lt.render import render_boxes
from yolox_lt.types import Batch, Detections

CELL = 480
"""Longer side in pixels of one image of a sheet: 16 of them make an image of 1920 pixels."""

FEW = 5
"""Detections shown of an image in which none has the score that is asked for."""

GAP = 6
INK = (40, 40, 40)
PAPER = (255, 255, 255)
QUALITY = [cv2.IMWRITE_JPEG_QUALITY, 88]


def render_samples(store: ImageStore, positions: np.ndarray, folder: Path, count: int, seed: int = 0) -> list[Path]:
    """Files of `count` random images of `positions` as on disk, with their boxes and names; unreadable ones are
    passed over.
    """
    paths: list[Path] = []
    for p in np.random.default_rng(seed).permutation(positions).tolist():
        if len(paths) == count:
            break
        labels = store.index.labels_of(p)
        texts = [store.index.category_names[label] for label in labels]
        try:
            image = render_boxes(store.read(p), store.index.boxes_of(p), labels, texts)
        except BadImageError:
            continue
        path = folder / f"labels_{int(store.index.image_ids[p])}.jpg"
        paths.append(write_image(path, image))
    return paths


def render_train_batch(batch: Batch, names: Sequence[str], path: str | Path, limit: int = 16) -> np.ndarray:
    """A training batch as the network sees it, on one sheet with boxes, names and image ids.

    Args:
        batch: as the loader delivers it, images uint8 [B, 3, H, W] BGR.
        names: of the categories. path: JPEG to write.
        limit: images shown, the first of the batch.

    Returns:
        The sheet, uint8 [H', W', 3] BGR.
    """
    cells, titles = [], []
    images = batch.images[:limit].permute(0, 2, 3, 1).cpu().numpy()  # [B, 3, H, W] -> [B, H, W, 3]
    for image, boxes, labels, image_id in zip(images, batch.boxes, batch.labels, batch.image_ids.tolist()):
        corners = boxes.cpu().numpy()
        label = labels.cpu().numpy()
        cells.append(cell(np.ascontiguousarray(image), corners, label, [names[i] for i in label]))
        titles.append(f"image {image_id}: {len(label)} boxes")
    return write_sheet(cells, titles, math.ceil(math.sqrt(len(cells))), path)


def render_val_pairs(
    images: Sequence[np.ndarray],
    truth: Sequence[tuple[np.ndarray, np.ndarray]],
    detections: Sequence[Detections],
    names: Sequence[str],
    path: str | Path,
    conf: float = 0.3,
) -> np.ndarray:
    """Ground truth (left) beside prediction (right), one image a row.

    Args:
        images: uint8 [H, W, 3] BGR, at least one.
        truth: boxes float [G, 4] x1 y1 x2 y2 and labels int64 [G] of each image.
        detections: of each image, in pixels of it.
        names: of the categories. path: JPEG to write.
        conf: lowest score shown; where none reaches it the FEW best of the image are. Among detections that share a
            place (IoU above 0.6) the best alone is shown.

    Returns:
        The sheet, uint8 [H', W', 3] BGR.
    """
    cells, titles = [], []
    for image, (boxes, labels), found in zip(images, truth, detections):
        cells.append(cell(image, boxes, labels, [names[i] for i in labels]))
        titles.append(f"ground truth: {len(labels)} boxes")
        corners, scores = found.boxes.cpu().numpy(), found.scores.cpu().numpy()
        label = found.labels.cpu().numpy()
        shown = best_of_place(corners, scores, conf)
        title = f"prediction: {len(shown)} above {conf:g}"
        if not shown and len(scores):
            shown = best_of_place(corners, scores, 0.0, most=FEW)
            title = f"prediction: none above {conf:g}, the best {len(shown)}"
        texts = [f"{names[label[i]]} {100 * scores[i]:.0f}" for i in shown]
        cells.append(cell(image, corners[shown], label[shown], texts))
        titles.append(title)
    return write_sheet(cells, titles, 2, path)


def best_of_place(
    boxes: np.ndarray, scores: np.ndarray, conf: float, overlap: float = 0.6, most: int | None = None
) -> list[int]:
    """Indices of detections above `conf`, best first, without those that a better one of any category covers; at most
    `most`.
    """
    kept: list[int] = []
    for i in np.argsort(-scores, kind="stable").tolist():
        if len(kept) == most or scores[i] < conf:
            break
        if all(box_iou(boxes[i], boxes[k]) <= overlap for k in kept):
            kept.append(i)
    return kept


def box_iou(a: np.ndarray, b: np.ndarray) -> float:
    """IoU of two boxes [4] x1 y1 x2 y2."""
    side = np.maximum(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0)
    shared = float(side.prod())
    return shared / max(float((a[2:] - a[:2]).prod() + (b[2:] - b[:2]).prod()) - shared, 1e-9)


def cell(image: np.ndarray, boxes: np.ndarray, labels: np.ndarray, texts: list[str]) -> np.ndarray:
    """The image with boxes, its longer side brought to CELL pixels before drawing, so that texts stay legible."""
    factor = CELL / max(image.shape[:2])
    size = (max(round(image.shape[1] * factor), 1), max(round(image.shape[0] * factor), 1))
    resized = cv2.resize(image, size, interpolation=cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC)
    ratio = np.array([size[0] / image.shape[1], size[1] / image.shape[0]] * 2)
    return render_boxes(resized, boxes * ratio, labels, texts, min_side=1)


def write_sheet(cells: list[np.ndarray], titles: list[str], columns: int, path: str | Path) -> np.ndarray:
    """Cells in rows of `columns`, each below its title, as one JPEG; rows are as high as their highest cell."""
    bar = 22
    rows = []
    width = max(c.shape[1] for c in cells)
    for first in range(0, len(cells), columns):
        row = cells[first : first + columns]
        height = max(c.shape[0] for c in row)
        strip = np.full((height + bar + GAP, columns * (width + GAP), 3), PAPER, np.uint8)
        for number, (image, title) in enumerate(zip(row, titles[first:])):
            x = number * (width + GAP)
            cv2.putText(strip, title, (x + 4, bar - 7), cv2.FONT_HERSHEY_SIMPLEX, 0.45, INK, 1, cv2.LINE_AA)
            strip[bar : bar + image.shape[0], x : x + image.shape[1]] = image
        rows.append(strip)
    sheet = np.concatenate(rows)
    write_image(Path(path), sheet)
    return sheet


def write_image(path: Path, image: np.ndarray) -> Path:
    """Write a JPEG; UserError if that is not possible."""
    if not cv2.imwrite(str(path), image, QUALITY):
        raise UserError(f"{path}: image could not be written; check that its folder exists and is writable")
    return path
