"""Small images of single detections and objects, for the pages of the categories."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from loguru import logger

from yolox_lt.data.dataset import BadImageError, ImageStore
from yolox_lt.report.analysis.picks import Pick

FOLDER = "pictures/categories"
"""Below the run's folder."""

KIND_COUNT = 3
"""True positives, false positives, missed objects."""

MOST_PER_KIND = 3
LONG_SIDE = 160
SHORTEST_SIDE = 80

SCORE_DIGITS = 4
"""Of the scores beside the images, after the point."""

FULL_SIZE_IMAGES = 1350
"""As many images of LONG_SIDE as make about 6 MB: 150 categories with 9 images each."""

JPEG = [cv2.IMWRITE_JPEG_QUALITY, 70, cv2.IMWRITE_JPEG_OPTIMIZE, 1]

COLORS = {"tp": (80, 175, 76), "fp": (60, 60, 230), "missed": (0, 165, 255)}
"""BGR of the box: green, red, orange."""


def image_plan(num_categories: int) -> tuple[int, int]:
    """(images per kind and category, long side in pixels) that keep all images together at about 6 MB.

    3 of 160 pixels for up to 150 categories, 1 of 97 pixels for LVIS's 1203.
    """
    per_kind = min(max(FULL_SIZE_IMAGES // (KIND_COUNT * max(num_categories, 1)), 1), MOST_PER_KIND)
    total = KIND_COUNT * per_kind * max(num_categories, 1)
    shrink = min((FULL_SIZE_IMAGES / total) ** 0.5, 1.0)
    return per_kind, max(int(LONG_SIDE * shrink), SHORTEST_SIDE)


def write_images(folder: Path, store: ImageStore, picks: Sequence[Pick], side: int) -> list[dict[str, Any]]:
    """Write a JPEG of every pick below `folder`/FOLDER, in place of those of an earlier evaluation.

    Returns:
        One entry per image: file (below FOLDER), kind, label, image (id in the annotation file), box, score, error,
        other; see `Pick`. By label, kind and rank. A pick whose image cannot be read has none and is warned of.
    """
    target = folder / FOLDER
    fresh = target.with_name(f".{target.name}")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    entries: list[tuple[tuple[int, int, int], dict[str, Any]]] = []
    bad: dict[int, str] = {}
    image, position = None, -1
    for pick in sorted(picks, key=lambda p: p.image):  # every image is read once
        if pick.image in bad:
            continue
        if pick.image != position:
            try:
                image, position = store.read(pick.image), pick.image
            except BadImageError as error:
                bad[pick.image] = str(error)
                continue
        assert image is not None  # read in this turn or an earlier one
        name = f"{pick.label:04d}_{pick.kind}_{pick.rank}.jpg"
        encoded = cv2.imencode(".jpg", crop(image, pick, side), JPEG)[1]
        (fresh / name).write_bytes(encoded.tobytes())
        order = (pick.label, list(COLORS).index(pick.kind), pick.rank)
        entries.append((order, _entry(pick, name, int(store.index.image_ids[pick.image]))))
    shutil.rmtree(target, ignore_errors=True)
    fresh.rename(target)
    if bad:
        logger.warning(f"no images for the report from {len(bad):,} unreadable image(s): {next(iter(bad.values()))}")
    return [entry for _, entry in sorted(entries, key=lambda pair: pair[0])]


def crop(image: np.ndarray, pick: Pick, side: int) -> np.ndarray:
    """The pick's box with its surroundings, uint8 [h, w, 3] with the longer side `side`, the box drawn.

    The window is 1.6 times as wide and high as the box, at least 32 pixels and never narrower than half its length.
    """
    x, y, width, height = pick.box
    window = np.maximum(1.6 * np.array([width, height]), 32)
    window = np.maximum(window, window[::-1] / 2)
    center = np.array([x + width / 2, y + height / 2])
    limits = np.array([image.shape[1], image.shape[0]])
    low = np.clip(np.floor(center - window / 2), 0, limits - 1).astype(int)
    high = np.clip(np.ceil(center + window / 2), low + 1, limits).astype(int)
    part = image[low[1] : high[1], low[0] : high[0]]
    factor = side / max(part.shape[:2])
    size = tuple(max(round(length * factor), 1) for length in (part.shape[1], part.shape[0]))
    canvas = cv2.resize(part, size, interpolation=cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC)
    corner = [round((v - o) * factor) for v, o in zip((x, y), low.tolist())]
    opposite = [round((v - o) * factor) for v, o in zip((x + width, y + height), low.tolist())]
    cv2.rectangle(canvas, corner, opposite, (255, 255, 255), 3)
    cv2.rectangle(canvas, corner, opposite, COLORS[pick.kind], 2)
    return canvas


def _entry(pick: Pick, name: str, image_id: int) -> dict[str, Any]:
    return {
        "file": name,
        "kind": pick.kind,
        "label": pick.label,
        "image": image_id,
        "box": [round(v, 1) for v in pick.box],
        "score": None if pick.score is None else round(pick.score, SCORE_DIGITS),
        "error": pick.error,
        "other": pick.other,
    }
