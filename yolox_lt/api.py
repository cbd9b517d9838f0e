"""The three lines of a Python user: load a checkpoint, call it on images, use the detections."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, overload

import cv2
import numpy as np
import torch

from yolox_lt.errors import UserError
from yolox_lt.exp import DetectorExp, Exp
from yolox_lt.exp.build import exp_from_settings
from yolox_lt.models import Detector
from yolox_lt.train.checkpoint import load_checkpoint, load_weights
from yolox_lt.types import Detections

Image = str | Path | np.ndarray


class LoadedDetector:
    """A trained detector. Call it on a path, an array (uint8 [H, W, 3] BGR, as OpenCV reads), or a list of them.

    Attributes: names (category names), exp (settings of the checkpoint; what is changed there counts from the next call
    on, `exp.test_size` for example), device.
    """

    def __init__(self, model: Detector, exp: DetectorExp, names: tuple[str, ...], device: torch.device) -> None:
        self.model = model.to(device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
        self.exp = exp
        self.names = names
        self.device = device

    @overload
    def __call__(self, images: Image, conf: float | None = None, class_agnostic: bool = False) -> Detections: ...
    @overload
    def __call__(
        self, images: list[Image], conf: float | None = None, class_agnostic: bool = False
    ) -> list[Detections]: ...
    @torch.no_grad()
    def __call__(
        self, images: Image | list[Image], conf: float | None = None, class_agnostic: bool = False
    ) -> Detections | list[Detections]:
        """Detections in original pixels, best first; a list for a list.

        Args:
            images: one image or several; several run as one batch.
            conf: lowest score to report, None for the experiment's `test_conf`.
            class_agnostic: keep one category per place, the best; otherwise look-alikes may share it.

        Raises:
            UserError: a path that is no readable image, or an array that is not uint8 [H, W, 3].
        """
        single = not isinstance(images, list)
        arrays = [read_image(i) for i in (images if isinstance(images, list) else [images])]
        if not arrays:
            return []
        transform = self.exp.get_eval_transform()
        batch = self.exp.get_collate()([transform(a) for a in arrays])
        network_input = self.exp.normalize(batch.images.to(self.device), batch.image_sizes)
        predictions, priors = self.model(network_input)
        size = (network_input.shape[2], network_input.shape[3])
        predictor = replace(self.exp.get_predictor(self.names), class_agnostic=class_agnostic)
        found = predictor(predictions, priors, batch.scales, batch.original_sizes, batch.image_sizes, size)
        if conf is not None:
            found = [above(d, conf) for d in found]
        return found[0] if single else found


def load(checkpoint: str | Path, device: str | torch.device = "cpu") -> LoadedDetector:
    """The detector of a checkpoint; model, categories and test size come from the file, the averaged weights if it has
    them.

    Raises:
        UserError: unreadable file, or weights that do not fit the settings beside them.
    """
    content = load_checkpoint(checkpoint)
    exp = exp_from_settings(content.get("family", Exp.family), content["exp"])
    model = exp.get_model()
    load_weights(model, weights_of(content), checkpoint)
    return LoadedDetector(model, exp, tuple(content["names"]), torch.device(device))


def weights_of(content: dict[str, Any]) -> dict[str, torch.Tensor]:
    """The weights to use for inference: averaged ones if there are any."""
    return content["ema"]["model"] if content.get("ema") else content["model"]


def read_image(image: Image) -> np.ndarray:
    """uint8 [H, W, 3] BGR from a path or an array."""
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
            raise UserError(f"expected an image array uint8 [H, W, 3] BGR, got {image.dtype} {list(image.shape)}")
        return image
    path = Path(image)
    if not path.is_file():
        raise UserError(f"{path}: image file not found; check the path")
    data = np.fromfile(path, dtype=np.uint8)
    decoded = cv2.imdecode(data, cv2.IMREAD_COLOR) if len(data) else None
    if decoded is None:
        raise UserError(f"{path}: not a readable image; give a JPEG, PNG or another format that OpenCV reads")
    return decoded


def above(detections: Detections, conf: float) -> Detections:
    keep = detections.scores >= conf
    return Detections(detections.boxes[keep], detections.scores[keep], detections.labels[keep], detections.names)
