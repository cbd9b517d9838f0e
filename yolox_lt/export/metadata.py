"""What an exported file says about itself: enough to use it without this project, and to rebuild the experiment."""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass
from typing import Any

from yolox_lt.checkpoint import plain, portable
from yolox_lt.errors import UserError
from yolox_lt.exp import DetectorExp
from yolox_lt.exp.agreement import overridden_methods
from yolox_lt.export.network import first_cells, takes_image_sizes
from yolox_lt.inference import LoadedDetector
from yolox_lt.models import Detector
from yolox_lt.models.two_stage import TwoStageDetector

FORMAT_VERSION = 1

THRESHOLDS = ("score_threshold", "nms_threshold", "pre_nms", "max_detections", "multi_label", "clip")
"""Settings of a Predictor that a file with NMS fixes."""

IMAGES = "images float32 [batch, 3, height, width], BGR, values 0 to 255, each image top-left, "
IMAGE_SIZES = (
    "image_sizes int64 [batch, 2], (height, width) of each image inside the input; what lies outside is padding, "
    "whatever its values"
)
RAW_OUTPUTS = (
    "cls_logits [batch, priors, categories], box_deltas [batch, priors, 4] and, unless the model has none, "
    "quality_logits [batch, priors], without sigmoid; priors in the order level, row, column, anchor; anchors[level] "
    "are the boxes of the cell in row 0 and column 0, those of other cells are shifted by strides[level]"
)
REGION_OUTPUTS = (
    "cls_logits [1, regions, categories] and box_deltas [1, regions, 4 * categories] (or 4) of the proposals "
    "[1, regions, 4], x1 y1 x2 y2 in pixels of the input, best first; rows without area are none. Scores are sigmoids "
    "of the logits"
)
DETECTIONS = (
    "boxes [batch, n, 4] x1 y1 x2 y2 in pixels of the input, scores [batch, n] in 0 to 1, labels int64 [batch, n], "
    "count int64 [batch]; best first, rows from count on have score 0 and label -1"
)


@dataclass(frozen=True)
class Metadata:
    """Stored beside the network: each field as one JSON value under its own name.

    ONNX: `metadata_props`; TorchScript: extra files.

    family, settings: of the experiment, as in a checkpoint.
    names: category names in the order of the labels.
    input, outputs: what goes in and comes out, in words.
    size: (height, width) of the input, None where any size will do; multiples of `size_divisor` in both cases.
    batch: images of a batch, None for any number.
    needs_image_sizes: there is a second input, `image_sizes` int64 [batch, 2]: (height, width) of each image inside
        the input; what is outside of it counts as padding.
    nms: decoding and NMS are inside.
    thresholds: of the experiment's Predictor; a file with NMS has them inside.
    strides, anchors, legacy, box_code: how box deltas become boxes. anchors: per level [A][x1, y1, x2, y2] of the first
        cell; legacy: they are in the +1 pixel convention; box_code: a class of `yolox_lt.coders` and its arguments.
    category_thresholds: rule, conf, precision and recall of every category, null where there is none of a number; None
        without thresholds. thresholds_inside: the file gives nothing below them.
    calibrator: class of the calibrator that is inside beside the classifier, empty for none or an affine one.
    overrides, exp_file: methods that the experiment's file overrides, and its name.
    """

    family: str
    settings: dict[str, Any]
    names: tuple[str, ...]
    input: str
    outputs: str
    size: tuple[int, int] | None
    size_divisor: int
    batch: int | None
    needs_image_sizes: bool
    nms: bool
    thresholds: dict[str, Any]
    strides: list[int]
    anchors: list[list[list[float]]]
    legacy: bool
    box_code: dict[str, Any]
    overrides: tuple[str, ...] = ()
    exp_file: str = ""
    category_thresholds: dict[str, Any] | None = None
    thresholds_inside: bool = False
    calibrator: str = ""
    format_version: int = FORMAT_VERSION

    def to_strings(self) -> dict[str, str]:
        """Field name -> JSON."""
        return {field.name: json.dumps(getattr(self, field.name)) for field in dataclasses.fields(self)}

    @classmethod
    def from_strings(cls, strings: dict[str, str], source: object) -> Metadata:
        """Inverse of `to_strings`; names that are not known are ignored.

        Raises:
            UserError: a file that this project has not written, or a newer version of it.
        """
        fields = {field.name for field in dataclasses.fields(cls)}
        try:
            values = {name: json.loads(text) for name, text in strings.items() if name in fields}
        except ValueError:
            values = {}
        if values.get("format_version", 0) > FORMAT_VERSION:
            raise UserError(
                f"{source}: written by a newer version of this project (format {values['format_version']}); update"
            )
        optional = {field.name for field in dataclasses.fields(cls) if field.default is not dataclasses.MISSING}
        if set(values) | optional != fields:
            raise UserError(
                f"{source}: holds no metadata of this project; give a file that tools/export.py has written"
            )
        values["names"] = tuple(values["names"])
        values["overrides"] = tuple(values.get("overrides", ()))
        values["size"] = None if values["size"] is None else tuple(values["size"])
        return cls(**values)


def described(detector: LoadedDetector, inside: bool) -> dict[str, Any]:
    """Fields on the calibrator and the thresholds of a detector. inside: the latter are in the graph."""
    own, thresholds = detector.thresholds, None
    if own is not None:
        columns = {name: getattr(own, name).tolist() for name in ("conf", "precision", "recall")}
        numbers = {name: [None if math.isnan(v) else v for v in values] for name, values in columns.items()}
        thresholds = {"rule": own.rule, **numbers}
    name = "" if detector.calibrator is None else type(detector.calibrator).__name__
    return {"category_thresholds": thresholds, "thresholds_inside": inside, "calibrator": name}


def describe(
    model: Detector,
    exp: DetectorExp,
    names: tuple[str, ...],
    size: tuple[int, int] | None,
    batch: int | None,
    nms: bool,
) -> Metadata:
    """The metadata of a detector that is about to be exported; arguments as the fields."""
    predictor, coder = exp.get_predictor(names), exp.get_coder()
    padding = IMAGE_SIZES if takes_image_sizes(exp) else f"the rest filled with {exp.get_collate().fill}"
    return Metadata(
        family=exp.family,
        settings=portable(plain(exp.attributes())),
        names=names,
        input=IMAGES + padding,
        outputs=REGION_OUTPUTS if isinstance(model, TwoStageDetector) else DETECTIONS if nms else RAW_OUTPUTS,
        size=size,
        size_divisor=model.size_divisor,
        batch=batch,
        needs_image_sizes=takes_image_sizes(exp),
        nms=nms,
        thresholds={name: getattr(predictor, name) for name in THRESHOLDS},
        strides=model.anchors.strides,
        anchors=first_cells(model.anchors).tolist(),
        legacy=model.anchors.legacy,
        box_code={"name": type(coder).__name__, **vars(coder)},
        overrides=tuple(overridden_methods(exp)),
        exp_file=exp._file,
    )
