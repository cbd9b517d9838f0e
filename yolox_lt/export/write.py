"""Write a detector as an ONNX or TorchScript file, and compare the file with the detector."""

from __future__ import annotations

import contextlib
import copy
import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from yolox_lt.errors import UserError
from yolox_lt.exp import DetectorExp
from yolox_lt.export.compare import Difference, check, compare
from yolox_lt.export.metadata import Metadata, describe, described
from yolox_lt.export.network import DetectionNetwork, ExportNetwork
from yolox_lt.export.regions import REGION_NAMES, RegionNetwork
from yolox_lt.export.runtime import load_onnx, load_torchscript, require
from yolox_lt.images import Image, read_image
from yolox_lt.inference import LoadedDetector
from yolox_lt.models import Detector
from yolox_lt.models.two_stage import TwoStageDetector
from yolox_lt.predict import Predictor

FORMATS = ("onnx", "torchscript")
OPSETS = range(17, 21)
"""Versions of ONNX's operators that the exporter writes, in every supported PyTorch."""


RAW_NAMES = ("cls_logits", "box_deltas", "quality_logits")
DETECTION_NAMES = ("boxes", "scores", "labels", "count")
"""Names of the outputs without and with NMS."""


@dataclass(frozen=True)
class ExportOptions:
    """What to write.

    format: "onnx" or "torchscript".
    opset: of ONNX, 17 to 20.
    batch: images of a batch, None for any number.
    test_size: as the experiment's setting of that name; None for its own.
    dynamic_size: height and width of the input are free (multiples of the model's divisor).
    nms: decoding and NMS inside.
    thresholds: with `nms`, those of every category inside too, where the detector has some.
    """

    format: Literal["onnx", "torchscript"] = "onnx"
    opset: int = 17
    batch: int | None = 1
    test_size: tuple[int, int] | None = None
    dynamic_size: bool = False
    nms: bool = False
    thresholds: bool = True


def export(
    detector: LoadedDetector, target: str | Path, options: ExportOptions, images: Sequence[Image] = ()
) -> Difference:
    """Write the file and return how far it is from the detector's model; nothing is left behind when that is too far.

    Args:
        detector: from `yolox_lt.load`. target: file to write; one that exists is replaced.
        options: what to write. images: images to compare on, in addition to random ones; as LoadedDetector takes them.

    Raises:
        UserError: options that do not go together, a missing package, a file that cannot be written, or a file that
            differs from the model.
    """
    target = Path(target)
    if not isinstance(detector.model, Detector):
        raise UserError(f"{target}: an exported file cannot be exported again; give the checkpoint it was made of")
    check_options(detector, options)
    arrays = [read_image(image) for image in images]
    model, exp = copy.deepcopy(detector.model).cpu().float(), copy.copy(detector.exp)
    if options.test_size is not None:
        exp.test_size = options.test_size
    multiple = exp.get_collate().multiple
    size = (-(-exp.test_size[0] // multiple) * multiple, -(-exp.test_size[1] // multiple) * multiple)
    own = LoadedDetector(model, exp, detector.names, "cpu", detector.calibrator, detector.thresholds)
    inside = options.nms and options.thresholds and detector.thresholds is not None
    predictor = own.predictor(exp.get_predictor().class_agnostic, own.limits("auto") if inside else None)
    network = make_network(model, exp, predictor, options, size)
    fixed = None if options.dynamic_size else size
    metadata = describe(model, exp, detector.names, fixed, options.batch, options.nms)
    metadata = replace(metadata, **described(detector, inside))
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        temporary.touch()
        trace(network.eval(), temporary, metadata, size, options)
        load = load_onnx if options.format == "onnx" else load_torchscript
        exported = load(temporary, exp=exp).model
        exported.source = target
        difference = compare(own, exported, arrays)
        check(difference, target)
        os.replace(temporary, target)
    except OSError as error:
        raise UserError(f"{target}: cannot be written ({error.strerror}); give another file with -o") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()
    return difference


def make_network(
    model: Detector, exp: DetectorExp, predictor: Predictor, options: ExportOptions, size: tuple[int, int]
) -> ExportNetwork | RegionNetwork:
    """The network to trace, of the family of the model. size: (height, width) of the input."""
    if isinstance(model, TwoStageDetector):
        return RegionNetwork(model, exp, predictor, size)
    if options.nms:
        return DetectionNetwork(model, exp, predictor, options.dynamic_size)
    return ExportNetwork(model, exp, predictor)


def check_options(detector: LoadedDetector, options: ExportOptions) -> None:
    """Refuse what cannot be exported, before anything is computed."""
    if options.format not in FORMATS:
        raise UserError(f"format {options.format!r} is unknown; choose one of {', '.join(FORMATS)}")
    if options.opset not in OPSETS:
        raise UserError(f"--opset {options.opset}: give {OPSETS.start} to {OPSETS.stop - 1}")
    if options.batch is not None and options.batch < 1:
        raise UserError(f"--batch {options.batch}: give a number of at least 1, or dynamic")
    if options.test_size is not None and min(options.test_size) < 1:
        raise UserError(f"--size {options.test_size[0]} {options.test_size[1]}: give height and width in pixels")
    if isinstance(detector.model, TwoStageDetector) and (options.nms or options.dynamic_size or options.batch != 1):
        raise UserError(
            "a two-stage model is exported for one image of one size, without the NMS of its categories; leave out "
            "--nms, --dynamic-size and --batch"
        )
    if options.nms and detector.exp.get_predictor().voting:
        raise UserError("--nms: score_voting cannot be exported; export without --nms")
    if options.format == "onnx":
        require("onnx")
        require("onnxruntime")


@torch.no_grad()
def trace(
    network: ExportNetwork | RegionNetwork,
    path: Path,
    metadata: Metadata,
    size: tuple[int, int],
    options: ExportOptions,
) -> None:
    """Write the traced network and its metadata to `path`."""
    batch = options.batch or 2
    inputs = [torch.full((batch, 3, *size), 114.0), torch.tensor([size] * batch)]
    inputs = inputs if metadata.needs_image_sizes else inputs[:1]
    with warnings.catch_warnings():
        # Numbers that become constants are meant to; and this exporter, unlike its successor, needs no package but onnx
        # and writes the same from the oldest PyTorch to the newest.
        warnings.simplefilter("ignore")
        if options.format == "onnx":
            write_onnx(network, path, metadata, inputs, options)
        else:
            traced = torch.jit.trace(network, tuple(inputs), check_trace=False)
            torch.jit.save(traced, str(path), _extra_files=metadata.to_strings())


def write_onnx(
    network: ExportNetwork | RegionNetwork, path: Path, metadata: Metadata, inputs: list[Tensor], options: ExportOptions
) -> None:
    """One self-contained file; axes that are not fixed have names."""
    onnx = require("onnx")
    outputs = network(*inputs)
    names = DETECTION_NAMES if options.nms else RAW_NAMES[: len(outputs)]
    names = REGION_NAMES if isinstance(network, RegionNetwork) else names
    axes: dict[str, dict[int, str]] = {name: {} for name in ("images", "image_sizes", *names)}
    if options.batch is None:
        for named in axes.values():
            named[0] = "batch"
    if options.dynamic_size:
        axes["images"] |= {2: "height", 3: "width"}
        if not options.nms:
            for name in names:
                axes[name][1] = "priors"
    given = ("images", "image_sizes")[: len(inputs)]
    torch.onnx.export(
        network,
        tuple(inputs),
        str(path),
        dynamo=False,
        opset_version=options.opset,
        input_names=list(given),
        output_names=list(names),
        dynamic_axes={name: axes[name] for name in (*given, *names)},
    )
    proto = onnx.load(str(path))
    for value, tensor in zip(proto.graph.output, outputs):
        # The exporter gives up on some sizes that are known.
        for axis, (dim, side) in enumerate(zip(value.type.tensor_type.shape.dim, tensor.shape)):
            if axis in axes[value.name]:
                dim.dim_param = axes[value.name][axis]
            else:
                dim.dim_value = side
    onnx.helper.set_model_props(proto, metadata.to_strings())
    onnx.checker.check_model(proto)
    onnx.save(proto, str(path))
