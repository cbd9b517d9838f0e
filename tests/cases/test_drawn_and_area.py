"""Names beyond ASCII in drawn images, and detections outside an image's content."""

from __future__ import annotations

import numpy as np
import torch

from yolox_lt.coders import DeltaCoder
from yolox_lt.predict import Predictor
from yolox_lt.render import put_text
from yolox_lt.types import Predictions, Priors


def drawn(name: str) -> np.ndarray:
    """A name in white on black."""
    canvas = np.zeros((40, 200, 3), np.uint8)
    put_text(canvas, name, (5, 30), 0.6, (255, 255, 255))
    return canvas


def test_names__beyond_ascii_are_drawn_as_they_are():
    images = [drawn(name) for name in ("Käfer", "Kafer", "K?fer", "Жук", "Лук", "???")]
    for position, image in enumerate(images):
        assert image.any()
        assert all((image != other).any() for other in images[:position])


def test_zero_area__boxes_outside_the_content_are_no_detections():
    """Three equal priors of 20 pixels: inside a content of 40 x 64, across its lower border, and below it."""
    boxes = torch.tensor([[4.0, 4, 24, 24], [30, 30, 50, 50], [4, 42, 24, 62]])
    priors = Priors(boxes, torch.full((3,), 8.0), [3], [(1, 3)], [8], 1, legacy=False)
    predictions = Predictions(torch.full((1, 3, 1), 5.0), torch.zeros(1, 3, 4), None)
    size = torch.tensor([[40, 64]])
    (found,) = Predictor(DeltaCoder(), clip="content")(predictions, priors, torch.ones(1, 2), size, size, (64, 64))
    assert sorted(found.boxes.tolist()) == [[4, 4, 24, 24], [30, 30, 50, 40]]
