"""Calibrators and thresholds of whole detectors: folded against applied, checkpoint against exported files."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch

import yolox_lt
from tests.export.detectors import pictures, random_detector
from tests.two_stage import two_stage_exp
from yolox_lt.api import calibrated
from yolox_lt.calibrate import FRACAL, LogitNormalization, NorCal, PriorAdjustment, TauNormalization
from yolox_lt.calibrate.calibrator_state import Thresholds, calibrator_state
from yolox_lt.checkpoint import plain, save_checkpoint
from yolox_lt.coders import grid_coder
from yolox_lt.errors import UserError
from yolox_lt.export import ExportOptions, export
from yolox_lt.inference import LoadedDetector
from yolox_lt.predict.predictor import Candidates, Predictor

pytestmark = pytest.mark.xdist_group("detectors")

COUNTS = [1, 3, 20, 150, 900]
CALIBRATORS = {
    "prior": PriorAdjustment(COUNTS, 0.5),
    "logn": LogitNormalization([-1.0, 0, 1, 2, 0], [0.5, 1, 2, 1, 1e-9]),
    "background": NorCal(COUNTS, 0.5, "background"),
    "fracal": FRACAL(COUNTS, 1000, [1, 1.2, 1.4, 1.8, 2]),
}
CONF = torch.tensor([0.1, 0.3, 0.5, float("nan"), 0.2])
THRESHOLDS = Thresholds("best F1", CONF, CONF, CONF)


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return pictures(tmp_path_factory.mktemp("calibrate") / "glyphs")


def checkpoint(detector, path, calibrator=None, thresholds=None):
    names = list(detector.names)
    content = {
        "model": detector.model.state_dict(),
        "exp": plain(detector.exp.attributes()),
        "family": detector.exp.family,
        "names": names,
    }
    if calibrator is not None:
        content["calibrator"] = calibrator_state(calibrator, names)
    if thresholds is not None:
        content["thresholds"] = thresholds.state(names)
    save_checkpoint(path, content)
    return path


def same(found, want, tolerance=1e-5):
    assert len(found) == len(want) > 0
    order = [torch.argsort(d.scores, descending=True, stable=True) for d in (found, want)]
    assert torch.allclose(found.scores[order[0]], want.scores[order[1]], atol=tolerance)
    assert sorted(found.labels.tolist()) == sorted(want.labels.tolist())


@pytest.mark.parametrize("kind", ["star", "plain", "resnet", "fcos", "retinanet"])
@pytest.mark.parametrize("name", ["prior", "logn"])
def test_folded__scores_of_every_prior_are_those_of_the_calibrator(kind, name, images):
    detector = random_detector(kind, images)
    calibrator = CALIBRATORS[name]
    content = {"calibrator": calibrator_state(calibrator, detector.names), "names": list(detector.names)}
    before = copy.deepcopy(detector.model.state_dict())
    folded, left = calibrated(detector.model, content, detector.exp, "x.pth")
    assert left is None
    batch = detector.exp.get_collate()([detector.exp.get_eval_transform()(images[0])])
    with torch.no_grad():
        pixels = detector.preprocessor(batch.images, batch.image_sizes)
        plain_logits, own = detector.model(pixels)[0].cls_logits, folded(pixels)[0].cls_logits
    assert (own.sigmoid() - calibrator.scores(plain_logits)).abs().max() < 1e-5
    assert (own - plain_logits).abs().max() > 0.1
    assert all(torch.equal(value, before[key]) for key, value in detector.model.state_dict().items())


@pytest.mark.parametrize(
    ("name", "suffix", "nms"),
    [
        ("prior", "onnx", True),
        ("background", "onnx", False),
        ("background", "onnx", True),
        ("fracal", "torchscript", True),
    ],
)
def test_files__give_the_detections_of_the_checkpoint(name, suffix, nms, images, tmp_path):
    path = checkpoint(random_detector("star", images), tmp_path / "c.pth", CALIBRATORS[name], THRESHOLDS)
    detector = yolox_lt.load(path)
    want = detector(images[0])
    assert (want.scores >= CONF[want.labels]).all()
    assert 3 not in want.labels
    target = tmp_path / f"c.{suffix}"
    export(detector, target, ExportOptions(format=suffix, nms=nms), images[:1])
    file = yolox_lt.load(target)
    same(file(images[0]), want, 1e-4)
    same(file(images[0], "auto"), want, 1e-4)
    if nms:
        with pytest.raises(UserError, match="--no-thresholds"):
            file(images[0], 0.3)
        outputs = file.model.outputs(file.model.fit(one_batch(file, images[0])))
        assert int(outputs[3][0]) == len(want)  # nothing below a threshold leaves the graph itself
    else:
        same(file(images[0], 0.3), detector(images[0], 0.3), 1e-4)


@pytest.mark.parametrize("loss", ["softmax", "eqlv2"])
def test_two_stages__the_calibrator_acts_on_every_region(loss, images, tmp_path):
    """As if the loss's own scores were calibrated; a checkpoint finds the same."""
    torch.manual_seed(0)
    exp = two_stage_exp(tmp_path, tmp_path, loss)
    model, names = exp.get_model().eval(), ("a", "b", "c", "d")
    torch.nn.init.normal_(model.head.cls_pred.weight, std=0.5)
    calibrator = PriorAdjustment([1, 5, 50, 500], 0.5)
    own = exp.get_predictor(names)

    def scores(outputs):
        given = outputs.sigmoid() if own.scores is None else own.scores(outputs)
        return calibrator.scores(torch.logit(given, eps=1e-6))

    batch = exp.get_collate()([exp.get_eval_transform()(images[0])])
    with torch.no_grad():
        pixels = exp.get_preprocessor()(batch.images, batch.image_sizes)
        predictions, priors = model(pixels)
        args = predictions, priors, batch.scales, batch.original_sizes, batch.image_sizes, (64, 64)
        want = replace(own, scores=scores)(*args)[0]
    path = checkpoint(LoadedDetector(model, exp, names, "cpu"), tmp_path / "t.pth", calibrator)
    detector = yolox_lt.load(path)
    same(detector(images[0], conf=0), want)
    assert not torch.allclose(want.scores[:5], own(*args)[0].scores[:5], atol=1e-3)
    limits = Thresholds("best F1", *[torch.tensor([0.05, float("nan"), 0.01, 0.0])] * 3)
    limited = LoadedDetector(detector.model, detector.exp, names, "cpu", detector.calibrator, limits)
    labels = limited(images[0]).labels
    assert len(labels) > 0
    assert 1 not in labels


def one_batch(detector, image):
    return detector.exp.get_collate()([detector.exp.get_eval_transform()(image)])


def test_load__not_folded_gives_the_same_detections(images, tmp_path):
    given = random_detector("star", images)
    folded = yolox_lt.load(checkpoint(given, tmp_path / "c.pth", CALIBRATORS["prior"]))
    assert folded.calibrator is None
    applied = LoadedDetector(given.model, given.exp, given.names, "cpu", CALIBRATORS["prior"])
    same(applied(images[0]), folded(images[0]))
    tau = yolox_lt.load(checkpoint(given, tmp_path / "t.pth", TauNormalization(1.0)))
    weight = tau.model.head.cls_preds[0].weight
    assert weight.flatten(1).norm(dim=1).tolist() == pytest.approx([1.0] * len(weight))


def test_conf__auto_is_the_default_where_thresholds_are(images, tmp_path, log):
    given = random_detector("star", images)
    path = checkpoint(given, tmp_path / "c.pth", None, THRESHOLDS)
    detector, without = yolox_lt.load(path), LoadedDetector(given.model, given.exp, given.names, "cpu")
    assert sum("own threshold" in line for line in log) == 1
    everything = without(images[0], 0.0)
    keep = everything.scores >= CONF[everything.labels]
    same(
        detector(images[0]),
        replace(everything, **{n: getattr(everything, n)[keep] for n in ("boxes", "scores", "labels")}),
    )
    same(detector(images[0], 0.0), everything)
    with pytest.raises(UserError, match="--thresholds"):
        without(images[0], "auto")
    with pytest.raises(UserError, match="conf is 'best'"):
        detector(images[0], "best")


def test_conf__class_agnostic_hidden_boxes_take_no_place():
    """Two equal boxes: the better one is of a category that is never shown, so the other one stays."""
    predictor = Predictor(grid_coder(), class_agnostic=True, conf=torch.tensor([0.3, float("nan")]))
    scores, labels = torch.tensor([[0.9, 0.3, 0.2]]), torch.tensor([[1, 0, 0]])
    box = torch.tensor([0.0, 0, 9, 9])
    kept = predictor.confident(scores, labels)
    assert kept.tolist() == [[-1, pytest.approx(0.3), -1]]
    found = predictor.finish(Candidates(box.expand(1, 3, 4), kept, labels))
    assert (found.rows.tolist(), found.labels[0, 0].item()) == ([1], 0)


def test_load__calibrator_of_other_categories(images, tmp_path):
    given = random_detector("star", images)
    path = checkpoint(given, tmp_path / "c.pth", CALIBRATORS["prior"])
    content = torch.load(path, weights_only=True)
    content["calibrator"]["names"][1] = "another"
    save_checkpoint(path, content)
    with pytest.raises(UserError, match="number 2 is 'another' there and 'category 1' in the model"):
        yolox_lt.load(path)
