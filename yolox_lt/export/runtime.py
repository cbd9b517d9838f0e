"""Exported files in the place of a checkpoint: `load_onnx("best.onnx")` is called as what `yolox_lt.load` returns."""

from __future__ import annotations

import dataclasses
import importlib
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from yolox_lt.calibrate.calibrator_state import Thresholds
from yolox_lt.errors import UserError
from yolox_lt.exp import DetectorExp, TwoStageExp, get_exp
from yolox_lt.exp.agreement import check_overrides
from yolox_lt.exp.load import exp_from_settings
from yolox_lt.export.metadata import THRESHOLDS, Metadata
from yolox_lt.export.network import Grid
from yolox_lt.export.regions import FileRegions
from yolox_lt.inference import LoadedDetector, check_device
from yolox_lt.predict import Predictor
from yolox_lt.predict.predictor import Candidates
from yolox_lt.predict.select import NONE
from yolox_lt.types import Batch, Detections, Predictions, Priors

INSIDE = frozenset({"get_model", "get_preprocessor", "normalize", "get_cls_loss", "num_outputs", "class_scores"})
"""Methods of an experiment that are part of the network in a file."""


class ExportedModel:
    """The network of an exported file as a callable.

    Args:
        run: the network itself, for batches and sizes that it takes.
        metadata: of the file. source: the file, for messages.
    """

    def __init__(self, run: Callable[[list[Tensor]], Sequence[Tensor]], metadata: Metadata, source: Path) -> None:
        self.run = run
        self.metadata = metadata
        self.source = source
        self.grid = Grid(torch.tensor(metadata.anchors), metadata.strides)

    def __call__(self, images: Tensor, image_sizes: Tensor | None = None) -> tuple[Predictions, Priors]:
        """As a Detector, for a file without NMS: float BGR 0..255 [B, 3, H, W] -> predictions and priors.

        image_sizes: int64 [B, 2], (height, width) of the images inside; None: they fill the input.
        """
        cls_logits, box_deltas, *more = self.outputs(images, image_sizes)
        priors = self.priors(images.shape[2], images.shape[3], box_deltas.device)
        if self.of_regions:
            return FileRegions(cls_logits, box_deltas, more[0]), priors
        return Predictions(cls_logits, box_deltas, more[0] if more else None), priors

    @property
    def of_regions(self) -> bool:
        """Whether the file holds two stages."""
        return self.metadata.family == TwoStageExp.family

    def outputs(self, images: Tensor, image_sizes: Tensor | None = None) -> list[Tensor]:
        """What the file returns, for a batch of any number; arguments as in a call."""
        if image_sizes is None:
            image_sizes = torch.tensor([images.shape[2:]] * len(images))
        step = self.metadata.batch or len(images)
        parts = []
        for first in range(0, len(images), step):
            chunk, sizes = images[first : first + step], image_sizes[first : first + step]
            missing = step - len(chunk) if self.metadata.batch else 0
            inputs = [F.pad(chunk, (0, 0, 0, 0, 0, 0, 0, missing)), F.pad(sizes, (0, 0, 0, missing), value=1)]
            outputs = self.run(inputs if self.metadata.needs_image_sizes else inputs[:1])
            parts.append([values[: len(chunk)] for values in outputs])
        return [torch.cat(column) for column in zip(*parts)]

    def priors(self, height: int, width: int, device: torch.device) -> Priors:
        """The priors of an input of this size."""
        sizes = [(-(-height // stride), -(-width // stride)) for stride in self.metadata.strides]
        levels = self.grid([torch.empty(1, 1, *size) for size in sizes])
        strides = [torch.full((len(boxes),), float(s)) for boxes, s in zip(levels, self.metadata.strides)]
        return Priors(
            boxes=torch.cat(levels).to(device),
            strides=torch.cat(strides).to(device),
            level_sizes=[len(boxes) for boxes in levels],
            feature_sizes=sizes,
            level_strides=list(self.metadata.strides),
            num_anchors=len(self.metadata.anchors[0]),
            legacy=self.metadata.legacy,
        )

    def fit(self, batch: Batch) -> Tensor:
        """Images of a batch as the file takes them: float, padded to its size where the model knows of padding.

        Raises:
            UserError: images of a size that the file does not take.
        """
        images = batch.images.float().contiguous()
        given, size = (images.shape[2], images.shape[3]), self.metadata.size
        if size is None or given == size:
            return images
        missing = [own - side for own, side in zip(size, given)]
        if not self.metadata.needs_image_sizes or min(missing) < 0:
            raise UserError(
                f"{self.source}: takes inputs of {size[0]}x{size[1]} pixels (height x width), not {given[0]}x{given[1]}"
                "; export the checkpoint again with --dynamic-size or with another --size"
            )
        return F.pad(images, (0, missing[1], 0, missing[0]))


class ExportedDetector(LoadedDetector):
    """A detector from an exported file; called as LoadedDetector.

    A file with NMS has it inside, per category. Stricter thresholds of `exp` and `class_agnostic` are a second NMS over
    what it finds, which may leave a few detections fewer than one NMS; looser thresholds are refused.

    Args:
        model: of the file. exp, names: as rebuilt from it. device: where the network runs.
    """

    model: ExportedModel

    def limits(self, conf: float | Literal["auto"] | None) -> Tensor | None:
        """As in the base class.

        Raises:
            UserError: a number where the file has the thresholds of its categories inside.
        """
        if isinstance(conf, (int, float)) and conf > 0 and self.model.metadata.thresholds_inside:
            raise UserError(
                f"{self.model.source}: has the thresholds of its categories inside, so conf {conf:g} is not possible; "
                "leave it out, or export the checkpoint again with --no-thresholds"
            )
        return super().limits(conf)

    def detect_batch(self, batch: Batch, predictor: Predictor) -> list[Detections]:
        """Detections of images of one size."""
        images = self.model.fit(batch).to(self.device)
        sizes = batch.image_sizes.to(self.device)
        if self.model.metadata.nms:
            check_thresholds(self.model, predictor)
            return finish(self.model.outputs(images, sizes), batch, predictor, self.model.metadata.legacy)
        predictions, priors = self.model(images, sizes)
        predictor = dataclasses.replace(predictor, scores=None, calibrator=None)  # a file gives one logit a category
        size = (images.shape[2], images.shape[3])
        return predictor(predictions, priors, batch.scales, batch.original_sizes, batch.image_sizes, size)


def check_thresholds(model: ExportedModel, predictor: Predictor) -> None:
    """Refuse what a file with NMS cannot do any more.

    Raises:
        UserError: a setting that is looser than the file's, or another rule.
    """
    for name in THRESHOLDS:
        fixed, wanted = model.metadata.thresholds[name], getattr(predictor, name)
        stricter = (name == "score_threshold" and wanted > fixed) or (
            name in ("nms_threshold", "max_detections") and wanted < fixed
        )
        if wanted != fixed and not stricter:
            raise UserError(
                f"{model.source}: has NMS inside with {name} {fixed}, so {wanted} is not possible; export the "
                "checkpoint again without --nms or with that value"
            )


def finish(outputs: Sequence[Tensor], batch: Batch, predictor: Predictor, legacy: bool) -> list[Detections]:
    """Rows of a file with NMS -> detections in pixels of the original images, after a second NMS of `predictor`."""
    boxes, scores, labels, count = outputs
    boxes = boxes - boxes.new_tensor([0, 0, 1, 1]) * float(legacy)  # back to the convention of the file's own NMS
    filled = torch.arange(scores.shape[1], device=scores.device) < count[:, None]  # [B, D]
    scores = predictor.confident(scores.masked_fill(~filled, NONE), labels.clamp(min=0))
    candidates = Candidates(boxes, scores, labels)
    return predictor.to_original(predictor.finish(candidates, legacy), legacy, batch.scales, batch.original_sizes)


def load_onnx(
    path: str | Path, device: str | torch.device = "cpu", exp: str | Path | DetectorExp | None = None
) -> ExportedDetector:
    """The detector of an ONNX file that this project has written, run by onnxruntime with as many threads as PyTorch.

    Raises:
        UserError: onnxruntime is missing or has no support for the device, or no such file.
    """
    onnxruntime = require("onnxruntime")
    path, place = check_file(path), check_device(device)
    provider = "CUDAExecutionProvider" if place.type == "cuda" else "CPUExecutionProvider"
    if provider not in onnxruntime.get_available_providers():
        raise UserError(f"{path}: this onnxruntime cannot use {place}; run pip install onnxruntime-gpu, or use the CPU")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=[provider])
    except Exception as error:  # onnxruntime has an exception of its own for every way of being unreadable
        raise UserError(f"{path}: not a readable ONNX file ({first_line(error)})") from error
    if provider not in session.get_providers():
        raise UserError(f"{path}: onnxruntime could not start on {place}; check its CUDA libraries, or use the CPU")
    names = [given.name for given in session.get_inputs()]

    def run(inputs: list[Tensor]) -> list[Tensor]:
        fed = {name: values.cpu().numpy() for name, values in zip(names, inputs)}
        return [torch.from_numpy(values) for values in session.run(None, fed)]

    metadata = Metadata.from_strings(session.get_modelmeta().custom_metadata_map, path)
    # The session keeps its tensors to itself: what comes back is on the CPU, where decoding and NMS continue.
    return detector_of(ExportedModel(run, metadata, path), torch.device("cpu"), exp)


def load_torchscript(
    path: str | Path, device: str | torch.device = "cpu", exp: str | Path | DetectorExp | None = None
) -> ExportedDetector:
    """The detector of a TorchScript file that this project has written.

    Raises:
        UserError: no such file, or a device that is not there.
    """
    path, place = check_file(path), check_device(device)
    extra: dict[str, Any] = dict.fromkeys(field.name for field in dataclasses.fields(Metadata))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # PyTorch prefers a newer format for new files
            module = torch.jit.load(str(path), map_location=place, _extra_files=extra)
    except (RuntimeError, ValueError) as error:
        raise UserError(f"{path}: not a readable TorchScript file ({first_line(error)})") from error
    metadata = Metadata.from_strings({name: text for name, text in extra.items() if text}, path)

    def run(inputs: list[Tensor]) -> Sequence[Tensor]:
        return module(*inputs)

    return detector_of(ExportedModel(run, metadata, path), place, exp)


def detector_of(model: ExportedModel, device: torch.device, exp: str | Path | DetectorExp | None) -> ExportedDetector:
    """The detector that a file's metadata describe; images are prepared and detections finished as `exp` does it.

    Of an experiment's file the methods count, with the settings that the metadata hold.

    Raises:
        UserError: methods that the file's experiment overrides and that are not inside the file are missing.
    """
    metadata = model.metadata
    if isinstance(exp, DetectorExp):
        own = exp
    else:
        own = exp_from_settings(metadata.family, {}) if exp is None else get_exp(exp)
        own.update(metadata.settings)
    outside = {"overrides": sorted(set(metadata.overrides) - INSIDE), "exp_file": metadata.exp_file}
    check_overrides(own, outside, model.source)
    return ExportedDetector(model, own, metadata.names, device, thresholds=thresholds_in(metadata))


def thresholds_in(metadata: Metadata) -> Thresholds | None:
    """The thresholds of the categories that a file holds."""
    held = metadata.category_thresholds
    if held is None:
        return None
    columns = (np.array(held[name], np.float32) for name in ("conf", "precision", "recall"))  # null is NaN
    return Thresholds(held["rule"], *map(torch.from_numpy, columns))


def require(package: str) -> ModuleType:
    """An optional package.

    Raises:
        UserError: it is not installed.
    """
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise UserError(f"{package} is not installed ({error}); run pip install onnx onnxruntime") from error


def check_file(path: str | Path) -> Path:
    """The path of a file.

    Raises:
        UserError: there is none.
    """
    if not Path(path).is_file():
        raise UserError(f"{path}: exported file not found; check the path")
    return Path(path)


def first_line(error: Exception) -> str:
    """First line of an error message, the name of its class if it has none."""
    return str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
