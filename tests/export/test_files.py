"""Exported files find what PyTorch finds: on real images, in any batch, at any size, for both families."""

from __future__ import annotations

import json
from dataclasses import asdict

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from tests.export.detectors import at_size, random_detector
from yolox_lt.errors import UserError
from yolox_lt.export import ExportOptions, export, load_onnx, load_torchscript
from yolox_lt.inference import LoadedDetector
from yolox_lt.types import Detections

pytestmark = pytest.mark.xdist_group("exported")

FREE = {"batch": None, "dynamic_size": True}


def load(path):
    return load_onnx(path) if path.suffix == ".onnx" else load_torchscript(path)


def assert_same(found: list[Detections], want: list[Detections], top: int | None = None) -> None:
    """Equal detections in equal order; rounding alone may exchange such with scores closer than 1e-4."""
    assert len(found) == len(want)
    for ours, theirs in zip(found, want):
        assert len(theirs) > 10
        assert abs(len(ours) - len(theirs)) <= (0 if top is None else 2)
        count = min(top or len(theirs), len(ours), len(theirs))
        torch.testing.assert_close(ours.scores[:count], theirs.scores[:count], rtol=0, atol=1e-4)
        for row in range(count):
            close = (theirs.scores - ours.scores[row]).abs() <= 1e-4
            rows = close & (theirs.labels == ours.labels[row])
            assert rows.any()
            assert (theirs.boxes[rows] - ours.boxes[row]).abs().amax(dim=1).min() <= 5e-3


def test_onnx__score_threshold_of_nms_is_one_that_every_runtime_takes(exported):
    """OpenCV refuses a threshold below 0; the operator takes scores above it."""
    graph = onnx.load(str(exported("star", nms=True, **FREE).path)).graph
    (node,) = [node for node in graph.node if node.op_type == "NonMaxSuppression"]
    constants = {t.name: onnx.numpy_helper.to_array(t) for t in graph.initializer}
    constants |= {
        n.output[0]: onnx.numpy_helper.to_array(n.attribute[0].t) for n in graph.node if n.op_type == "Constant"
    }
    assert constants[node.input[4]].tolist() == [0.0]


@pytest.mark.parametrize("nms", [False, True])
@pytest.mark.parametrize("kind", ["star", "plain", "resnet", "fcos", "retinanet", "many"])
def test_onnx__finds_what_pytorch_finds(exported, images, kind, nms):
    file = exported(kind, nms=nms, **FREE)
    assert file.difference.allowed()
    assert file.difference.compared > 300
    detector = load_onnx(file.path)
    assert_same(detector(images, conf=0), file.detector(images, conf=0))
    assert detector(images[0], conf=0).names == file.detector.names


@pytest.mark.parametrize(("kind", "nms"), [("star", False), ("plain", True), ("resnet", True)])
def test_torchscript__finds_what_pytorch_finds(exported, images, kind, nms):
    file = exported(kind, format="torchscript", nms=nms, **FREE)
    assert file.difference.allowed()
    assert_same(load_torchscript(file.path)(images, conf=0), file.detector(images, conf=0))


@pytest.mark.parametrize("nms", [False, True])
def test_batch__of_three_equals_three_of_one(exported, images, nms):
    session = onnxruntime.InferenceSession(str(exported("star", nms=nms, **FREE).path))
    three = np.stack([image.transpose(2, 0, 1) for image in images[:3]]).astype(np.float32)  # [H, W, C] -> [C, H, W]
    together = session.run(None, {"images": three})
    alone = [session.run(None, {"images": image[None]}) for image in three]
    for column, parts in zip(together, zip(*alone)):
        np.testing.assert_allclose(column, np.concatenate(parts), rtol=1e-5, atol=1e-4)


def test_fixed_batch__takes_any_number_of_images(exported, images):
    file = exported("many", batch=2, nms=True)
    session = onnxruntime.InferenceSession(str(file.path))
    assert session.get_inputs()[0].shape == [2, 3, 64, 96]
    assert [(o.name, o.shape) for o in session.get_outputs()] == [
        *[("boxes", [2, 300, 4]), ("scores", [2, 300]), ("labels", [2, 300]), ("count", [2])]
    ]
    assert_same(
        load_onnx(file.path)(images, conf=0), file.detector(images, conf=0)
    )  # five: two calls of two, one of one


def test_rows__hold_what_count_says_and_no_score_below_the_threshold(exported, images):
    session = onnxruntime.InferenceSession(str(exported("plain", nms=True, **FREE).path))
    boxes, scores, labels, count = session.run(None, {"images": images[0].transpose(2, 0, 1)[None].astype(np.float32)})
    assert 10 < count[0] < 300
    assert (scores[0, : count[0]] >= 0.2).all()
    assert (np.diff(scores[0]) <= 0).all()
    assert (labels[0, : count[0]] >= 0).all()
    assert (labels[0, count[0] :] == -1).all()
    assert not scores[0, count[0] :].any()
    assert not boxes[0, count[0] :].any()


@pytest.mark.parametrize(
    ("kind", "options"),
    [("star", {}), ("star", {"nms": True}), ("resnet", {}), ("plain", {"format": "torchscript", "nms": True})],
)
def test_dynamic_size__any_size_of_the_model(exported, images, kind, options):
    file = exported(kind, **options, **FREE)
    detector = load(file.path)
    for size in ((96, 64), (128, 160)):
        detector.exp.test_size = size
        assert_same(detector(images, conf=0), at_size(file.detector, size)(images, conf=0), top=50)


@pytest.mark.parametrize("kind", ["star", "resnet"])
def test_own_normalisation__is_in_the_file(kind, images, tmp_path):
    detector = random_detector(kind, images)

    class Darker(type(detector.exp)):
        def normalize(self, images, content_sizes=None):
            return images.float() * 0.9 - 20

    exp = Darker()
    exp.update(detector.exp.attributes())
    darker = LoadedDetector(detector.model, exp, detector.names, "cpu")
    difference = export(darker, tmp_path / "x.onnx", ExportOptions(nms=True, **FREE))
    assert difference.allowed()
    assert_same(load_onnx(tmp_path / "x.onnx")(images, conf=0), darker(images, conf=0))
    assert abs(darker(images[0], conf=0).scores[0] - detector(images[0], conf=0).scores[0]) > 1e-3


def test_padding__holds_no_detections(images):
    """The wide image leaves rows of padding below it in an input of 64 x 96; a random network sees objects there."""
    detector = random_detector("star", images)
    wide = images[4][:30]
    found = detector(wide, conf=0)
    assert len(found) > 10
    assert ((found.boxes[:, 2:] - found.boxes[:, :2]) > 0).all()


def test_fixed_size__of_a_resnet_pads_smaller_images_and_refuses_larger(exported, images):
    file = exported("resnet", batch=1)
    detector = load_onnx(file.path)
    assert detector.model.metadata.size == (64, 128)  # the test size rounded up to the multiple of the batches
    # The file pads an image of 64 x 64 pixels as a batch pads it that has the wide image beside it.
    exp, transform = file.detector.exp, file.detector.exp.get_eval_transform()
    batch = exp.get_collate()([transform(images[0]), transform(images[4])])
    assert batch.images.shape[2:] == (64, 128)
    with torch.no_grad():
        predictions, priors = file.detector.model(exp.get_preprocessor()(batch.images, batch.image_sizes))
    sizes = batch.scales, batch.original_sizes, batch.image_sizes
    want = exp.get_predictor()(predictions, priors, *sizes, (64, 128))
    assert_same([detector(images[0], conf=0)], want[:1])
    tall = np.ascontiguousarray(images[4].transpose(1, 0, 2))
    with pytest.raises(UserError, match=r"takes inputs of 64x128 pixels .* not 128x64; .*--dynamic-size"):
        detector(tall, conf=0)


def test_fixed_size__of_yolox_is_the_only_one(exported, images):
    detector = load_onnx(exported("many", batch=2, nms=True).path)
    detector.exp.test_size = (64, 64)
    with pytest.raises(UserError, match=r"takes inputs of 64x96 pixels \(height x width\), not 64x64"):
        detector(images[0], conf=0)


def test_metadata__tells_all_without_this_project(exported):
    file = exported("resnet", nms=True, **FREE)
    stored = {p.key: json.loads(p.value) for p in onnx.load(str(file.path)).metadata_props}
    assert stored["names"] == list(file.detector.names)
    assert stored["family"] == "resnet"
    assert stored["settings"]["test_size"] == [64, 96]
    assert stored["settings"]["fpn_channels"] == 64
    assert stored["thresholds"] == {
        **{"score_threshold": 0.0, "nms_threshold": 0.5, "pre_nms": 6000},
        **{"max_detections": 300, "multi_label": True, "clip": "content"},
    }
    assert (stored["size"], stored["batch"], stored["nms"]) == (None, None, True)
    assert stored["format_version"] == 1
    assert "BGR, values 0 to 255" in stored["input"]
    assert stored["anchors"][0] == [[-20, -20, 27, 27], [-28, -28, 35, 35]]  # sides 48 and 64 around (3.5, 3.5)


@pytest.mark.parametrize("options", [{"nms": True}, {"format": "torchscript", "nms": True}])
def test_metadata__is_the_same_in_both_formats(exported, options):
    file = exported("plain", **options, **FREE)
    metadata = load(file.path).model.metadata
    assert asdict(metadata) == asdict(load(exported("plain", nms=True, **FREE).path).model.metadata)
    exp = load(file.path).exp
    assert type(exp) is type(file.detector.exp)
    assert exp.attributes() == file.detector.exp.attributes()


def test_raw_outputs__decoded_by_the_metadata_alone(exported, images):
    file = exported("star", **FREE)
    session = onnxruntime.InferenceSession(str(file.path))
    stored = {name: json.loads(text) for name, text in session.get_modelmeta().custom_metadata_map.items()}
    picture = images[0].transpose(2, 0, 1)[None].astype(np.float32)  # 64 x 64
    cls_logits, deltas, quality = session.run(None, {"images": picture})
    boxes = []
    for stride, cell in zip(stored["strides"], stored["anchors"]):
        for row in range(64 // stride):
            for column in range(64 // stride):
                boxes += [np.add(box, np.array([column, row, column, row]) * stride) for box in cell]
    priors = np.array(boxes)
    side = priors[:, 2:] - priors[:, :2]
    center = priors[:, :2] + side / 2 + deltas[0, :, :2] * side
    half = np.exp(np.minimum(deltas[0, :, 2:], stored["box_code"]["max_log_ratio"])) * side / 2
    scores = 1 / (1 + np.exp(-cls_logits[0])) / (1 + np.exp(-quality[0]))[:, None]
    prior, label = np.unravel_index(scores.argmax(), scores.shape)
    best = at_size(file.detector, (64, 64))(images[0])
    assert best.labels[0] == label
    assert best.scores[0].item() == pytest.approx(scores[prior, label], abs=1e-5)
    want = np.concatenate([center[prior] - half[prior], center[prior] + half[prior]]).clip(0, 64)
    np.testing.assert_allclose(best.boxes[0], want, atol=1e-3)


def test_thresholds__stricter_ones_apply_to_a_file_with_nms(exported, images):
    file = exported("star", nms=True, **FREE)
    detector = load_onnx(file.path)
    detector.exp.test_conf = 0.5
    fixed, (want,) = detector(images[0], conf=0), file.detector(images[:1], conf=0)
    assert 0 < len(fixed) == int((want.scores >= 0.5).sum())
    assert len(detector(images[0], conf=0.6)) == int((want.scores >= 0.6).sum())
    detector.exp.test_conf, detector.exp.max_detections = 0.0, 5
    assert_same_rows(detector(images[0], conf=0), want, 5)
    one_place = detector(images[0], conf=0, class_agnostic=True)
    assert 0 < len(one_place) <= 5
    detector.exp.nmsthre = 0.7
    with pytest.raises(UserError, match=r"nms_threshold 0\.5, so 0\.7 is not possible; .* without --nms"):
        detector(images[0], conf=0)


def assert_same_rows(found: Detections, want: Detections, count: int) -> None:
    assert len(found) == count
    torch.testing.assert_close(found.scores, want.scores[:count], rtol=0, atol=1e-4)
    assert found.labels.tolist() == want.labels[:count].tolist()
