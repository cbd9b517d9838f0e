"""Exported two-stage detectors find what PyTorch finds; what a file cannot hold is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import yolox_lt
from yolox_lt.errors import UserError
from yolox_lt.exp import TwoStageExp
from yolox_lt.export import ExportOptions, export
from yolox_lt.export.regions import RegionNetwork
from yolox_lt.inference import LoadedDetector
from yolox_lt.types import Detections

METHODS = {"softmax": 6, "eql": 5, "eqlv2": 6, "seesaw": 7, "bags": 11}
"""Loss -> outputs for five categories."""


def detector_of(cls_loss: str) -> LoadedDetector:
    """Random weights whose scores and boxes differ from region to region."""
    torch.manual_seed(1)
    exp = TwoStageExp()
    exp.num_classes, exp.resnet_depth, exp.fpn_channels, exp.head_width = 5, 18, 32, 64
    exp.test_size, exp.cls_loss, exp.test_conf = (96, 160), cls_loss, 0.05
    exp.normed_classifier = cls_loss == "seesaw"
    exp.category_counts = (5.0, 20.0, 300.0, 4000.0, 7.0) if cls_loss == "bags" else (0.1,) * 5
    model = exp.get_model().eval()
    for part, std in ((model.rpn.objectness, 0.3), (model.head.cls_pred, 0.15), (model.head.box_pred, 0.05)):
        nn.init.normal_(part.weight, std=std)
        nn.init.zeros_(part.bias)
    return LoadedDetector(model, exp, tuple("abcde"), "cpu")


def of_the_file(image: np.ndarray) -> np.ndarray:
    """The largest corner of the image that fills the file's input: padding changes what a ResNet sees."""
    part = min(image.shape[0] // 3, image.shape[1] // 5)
    return image[: 3 * part, : 5 * part]


def shared(found: Detections, want: Detections) -> float:
    """Share of the best 50 of `want` that are in `found` up to rounding.

    Not all: with random weights many proposals overlap by almost the threshold of NMS, and each that goes lets another
    in.
    """
    assert len(want) > 4
    boxes = torch.cdist(want.boxes[:50], found.boxes, p=float("inf")) < 5e-3
    scores = (want.scores[:50, None] - found.scores).abs() < 1e-4
    return float((boxes & scores & (want.labels[:50, None] == found.labels)).any(dim=1).float().mean())


@pytest.mark.parametrize("cls_loss", METHODS)
@pytest.mark.parametrize("file_format", ["onnx", "torchscript"])
def test_file__finds_what_pytorch_finds(images, tmp_path, cls_loss, file_format):
    detector, images = detector_of(cls_loss), [of_the_file(image) for image in images]
    path = tmp_path / f"file.{file_format}"
    difference = export(detector, path, ExportOptions(format=file_format), images)
    assert difference.allowed()
    assert difference.compared > 100
    loaded = yolox_lt.load(path)
    for found, want in zip(loaded(images, conf=0), detector(images, conf=0), strict=True):
        assert shared(found, want) > 0.95
        assert shared(want, found) > 0.95
    assert loaded.names == detector.names
    assert loaded.model.metadata.family == "two_stage"
    cls_logits, box_deltas, proposals = loaded.model.outputs(torch.zeros(1, 3, 96, 160))
    assert cls_logits.shape == (1, 1000, 5)
    assert box_deltas.shape == (1, 1000, 20)
    assert proposals.shape == (1, 1000, 4)


@pytest.mark.parametrize("options", [{"nms": True}, {"dynamic_size": True}, {"batch": 2}, {"batch": None}])
def test_file__what_it_cannot_hold_is_refused(tmp_path, options):
    with pytest.raises(UserError, match="exported for one image of one size"):
        export(detector_of("softmax"), tmp_path / "file.onnx", ExportOptions(**options))
    assert not list(tmp_path.iterdir())


def test_file__of_other_proposals_or_other_boxes_is_refused(images, tmp_path, monkeypatch):
    detector = detector_of("softmax")
    real = RegionNetwork.forward
    for position in range(3):  # scores, boxes, proposals

        def spoilt(self, *inputs, position=position):
            outputs = list(real(self, *inputs))
            outputs[position] = outputs[position] * 1.01
            return tuple(outputs)

        monkeypatch.setattr(RegionNetwork, "forward", spoilt)
        with pytest.raises(UserError, match="not written, the exported network differs"):
            export(detector, tmp_path / "file.onnx", ExportOptions(), images[:1])
