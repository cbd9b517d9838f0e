"""Boxes and names on images, for any number of categories."""

from __future__ import annotations

import colorsys

import cv2
import numpy as np

GOLDEN_ANGLE = 0.6180339887498949

UNICODE = int(cv2.__version__.partition(".")[0]) >= 5
"""Whether OpenCV's own font has more than ASCII."""


def color_of(label: int) -> tuple[int, int, int]:
    """A BGR colour for any label >= 0; neighbouring labels differ strongly in hue."""
    red, green, blue = colorsys.hsv_to_rgb((label * GOLDEN_ANGLE) % 1.0, 0.75, 0.95 - 0.3 * (label // 8 % 2))
    return round(blue * 255), round(green * 255), round(red * 255)


def render_boxes(
    image: np.ndarray, boxes: np.ndarray, labels: np.ndarray, texts: list[str], min_side: int = 400
) -> np.ndarray:
    """A copy of `image` (uint8 [H, W, 3] BGR) with boxes [N, 4] x1 y1 x2 y2 and a text on each.

    An image with a shorter side than `min_side` pixels is enlarged by a whole factor first, so that texts stay
    legible.
    """
    factor = max(1, -(-min_side // min(image.shape[:2])))
    canvas = (
        cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_NEAREST) if factor > 1 else image.copy()
    )
    size = max(0.4, min(canvas.shape[:2]) / 1200)
    line = max(2, round(size * 4))
    # Large boxes first: a small object's frame stays visible on top.
    order: list[int] = np.argsort(-np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)).tolist() if len(boxes) else []
    for i in order:
        color = color_of(int(labels[i]))
        x1, y1, x2, y2 = (round(v) for v in (boxes[i] * factor).tolist())
        cv2.rectangle(canvas, (x1, y1), (x2, y2), color, line)
        if not texts[i]:
            continue
        (width, height), baseline = cv2.getTextSize(texts[i], cv2.FONT_HERSHEY_SIMPLEX, size, 1)
        top = y1 - height - baseline if y1 >= height + baseline else y1
        left = max(0, min(x1, canvas.shape[1] - width))
        cv2.rectangle(canvas, (left, top), (left + width, top + height + baseline), color, -1)
        ink = (0, 0, 0) if sum(color) > 380 else (255, 255, 255)
        place = (left, top + height + baseline // 2)
        put_text(canvas, texts[i], place, size, ink)
    return canvas


def put_text(canvas: np.ndarray, text: str, place: tuple[int, int], size: float, ink: tuple[int, int, int]) -> None:
    """Write a text with its lower left corner at `place`; letters that are not ASCII by a font that has them."""
    if text.isascii() or UNICODE:
        cv2.putText(canvas, text, place, cv2.FONT_HERSHEY_SIMPLEX, size, ink, 1, cv2.LINE_AA)
        return
    from matplotlib import font_manager  # its fonts come with it, with Latin, Greek and Cyrillic letters
    from PIL import Image, ImageDraw, ImageFont

    font = ImageFont.truetype(font_manager.findfont("DejaVu Sans"), max(round(22 * size), 8))
    page = Image.fromarray(canvas)  # the order of its channels does not matter here
    ImageDraw.Draw(page).text(place, text, fill=ink, font=font, anchor="ls")
    canvas[:] = np.asarray(page)
