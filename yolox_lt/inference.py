"""A trained detector that is called on images: one object for Python users, demo, web page and exported files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal, TypeAlias, overload

import torch
from torch import Tensor

from yolox_lt.calibrate import Calibrator
from yolox_lt.calibrate.calibrator_state import Thresholds
from yolox_lt.data.collate import Item
from yolox_lt.errors import UserError
from yolox_lt.exp.detection import DetectorExp, preprocessor_of
from yolox_lt.images import Image, read_image
from yolox_lt.predict import Predictor
from yolox_lt.types import Batch, Detections, Predictions, Priors

Model: TypeAlias = Callable[[Tensor], tuple[Predictions, Priors]]
"""Float images [B, 3, H, W] -> predictions and priors: a Detector, or anything that takes its place."""


DEFAULT_CONF = 0.3
"""Lowest score that demo and API report where the checkpoint holds no thresholds of its categories."""


class LoadedDetector:
    """A trained detector. Call it on a path, an array (uint8 [H, W, 3] BGR, as OpenCV reads), a PIL image, or a list.

    Several threads may call one detector at the same time: a call changes nothing in it.

    Attributes: names (category names), exp (settings of the checkpoint; what is changed there counts from the next call
    on, `exp.test_size` for example), device (where images go), model (see Model; ready for inference on `device`),
    calibrator (what is not inside the model), thresholds (of every category; None where the checkpoint has none).
    """

    def __init__(
        self,
        model: Model,
        exp: DetectorExp,
        names: tuple[str, ...],
        device: torch.device | str,
        calibrator: Calibrator | None = None,
        thresholds: Thresholds | None = None,
    ) -> None:
        self.calibrator = calibrator
        self.thresholds = thresholds
        self.model = model
        self.exp = exp
        self.names = names
        self.device = torch.device(device)
        self.preprocessor = preprocessor_of(exp).to(self.device)

    @overload
    def __call__(
        self,
        images: Image,
        conf: float | Literal["auto"] | None = None,
        class_agnostic: bool = False,
        batch_size: int = 16,
    ) -> Detections: ...
    @overload
    def __call__(
        self,
        images: list[Any] | tuple[Any, ...],
        conf: float | Literal["auto"] | None = None,
        class_agnostic: bool = False,
        batch_size: int = 16,
    ) -> list[Detections]: ...
    # No inference mode: users could not change its tensors in place.
    @torch.no_grad()
    def __call__(
        self,
        images: Image | list[Any] | tuple[Any, ...],
        conf: float | Literal["auto"] | None = None,
        class_agnostic: bool = False,
        batch_size: int = 16,
    ) -> Detections | list[Detections]:
        """Detections in pixels of the image, best first; a list for a list, in its order, empty for an empty one.

        Images that reach the network at one size run as one batch: all of them for YOLOX, whose input is `test_size`.
        The input of ResNet models depends on the image; those of different sizes run one after the other, since
        padding to a common size would make detections depend on the neighbours in the list.

        Args:
            images: one image or several.
            conf: lowest score to report, in [0, 1]; "auto": the thresholds of every category that the checkpoint holds;
                None: "auto" where it holds some, else 0.3 as in the demo. 0 reports all that an evaluation scores.
            class_agnostic: keep one category per place, the best; otherwise look-alikes may share it.
            batch_size: images that are in memory at a time, at least 1.

        Raises:
            UserError: something that is no readable image, see `read_image`, a batch size below 1, or "auto" without
                thresholds.
        """
        if batch_size < 1:
            raise UserError(f"batch_size is {batch_size}: give at least 1")
        if not isinstance(images, (list, tuple)):
            return self([images], conf, class_agnostic, batch_size)[0]
        limits = self.limits(conf)
        if conf is None and self.thresholds is None:
            conf = DEFAULT_CONF
        transform = self.exp.get_eval_transform()
        found: list[Detections] = []
        for first in range(0, len(images), batch_size):
            items = [transform(read_image(image)) for image in images[first : first + batch_size]]
            found += self.detect(items, class_agnostic, limits)
        return [above(detections, conf) for detections in found] if isinstance(conf, (int, float)) else found

    def limits(self, conf: float | Literal["auto"] | None) -> Tensor | None:
        """Lowest score of every category float32 [C] for a call's `conf`; None where there is one for all.

        Raises:
            UserError: "auto" without thresholds, or another word.
        """
        if isinstance(conf, (int, float)):
            return None
        if conf not in ("auto", None):
            raise UserError(f"conf is {conf!r}: give a number from 0 to 1, or 'auto'")
        if conf == "auto" and self.thresholds is None:
            raise UserError(
                "conf='auto': the checkpoint holds no thresholds of its categories; store them with "
                "tools/eval.py -c CKPT --thresholds, or give a number, for example conf=0.3"
            )
        return None if self.thresholds is None else self.thresholds.conf

    def predictor(self, class_agnostic: bool = False, conf: Tensor | None = None) -> Predictor:
        """The experiment's predictor with the calibrator. conf: see `Predictor`."""
        own = self.exp.get_predictor(self.names)
        if class_agnostic != own.class_agnostic or self.calibrator is not None or conf is not None:
            own = replace(own, class_agnostic=class_agnostic, calibrator=self.calibrator, conf=conf)
        return own

    def detect(self, items: list[Item], class_agnostic: bool, conf: Tensor | None = None) -> list[Detections]:
        """Detections of transformed images, those of equal size in one batch, in the order of `items`."""
        positions: dict[tuple[int, ...], list[int]] = {}
        for position, item in enumerate(items):
            positions.setdefault(item.image.shape, []).append(position)
        predictor = self.predictor(class_agnostic, conf)
        found: dict[int, Detections] = {}
        for group in positions.values():
            batch = self.exp.get_collate()([items[position] for position in group])
            found.update(zip(group, self.detect_batch(batch, predictor)))
        return [found[position] for position in range(len(items))]

    def detect_batch(self, batch: Batch, predictor: Predictor) -> list[Detections]:
        """Detections of images of one size."""
        images = self.preprocessor(batch.images.to(self.device), batch.image_sizes)
        predictions, priors = self.model(images)
        size = (images.shape[2], images.shape[3])
        return predictor(predictions, priors, batch.scales, batch.original_sizes, batch.image_sizes, size)


def check_device(device: str | torch.device) -> torch.device:
    """The device itself.

    Raises:
        UserError: no name of a device, or a GPU that is not there.
    """
    try:
        place = torch.device(device)
    except RuntimeError as error:
        raise UserError(f"device {device!r} is unknown; give 'cpu', 'cuda' or 'cuda:1'") from error
    count = torch.cuda.device_count()
    if place.type == "cuda" and (place.index or 0) >= count:
        raise UserError(f"device {str(place)!r}: this machine has {count} CUDA GPUs; use device='cpu'")
    return place


def above(detections: Detections, conf: float) -> Detections:
    """Those with a score of at least `conf`."""
    keep = detections.scores >= conf
    return Detections(detections.boxes[keep], detections.scores[keep], detections.labels[keep], detections.names)
