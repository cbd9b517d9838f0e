"""The second stage's detections against arrays of the reference, and their exactness."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.models.test_two_stage_golden import ROI_CODER
from yolox_lt import boxes as box_ops
from yolox_lt.losses import EQLLoss, EQLv2Loss, GroupSoftmaxLoss, SoftmaxLoss
from yolox_lt.models.two_stage import RegionPredictions
from yolox_lt.models.two_stage.rpn_head import Proposals
from yolox_lt.predict import RoIPredictor
from yolox_lt.predict.nms import category_nms
from yolox_lt.types import Priors

C = 30


class Given(RegionPredictions):
    """Predictions whose proposals and second stage are known."""

    def give(self, regions, logits, deltas):
        self.answers = regions, logits, deltas
        return self

    def propose(self, image_sizes):
        return [Proposals(r, torch.ones(len(r))) for r in self.answers[0]]

    def classify(self, regions):
        return self.answers[1:]


def detect(predictor, regions, logits, deltas, size, scale=(1.0, 1.0)):
    """Of one image, in pixels divided by `scale` (x, y)."""
    given = Given(torch.zeros(1, 0, 1), torch.zeros(1, 0, 4)).give([regions], logits, deltas)
    priors = Priors(torch.zeros(0, 4), torch.zeros(0), [], [], [], 3)
    original = torch.tensor([[round(size[0] / scale[1]), round(size[1] / scale[0])]])
    return predictor(given, priors, torch.tensor([[scale[1], scale[0]]]), original, torch.tensor([size]), size)[0]


def predictor_of(scores, **settings):
    settings = {"nms_threshold": 0.5, "score_threshold": 1e-4, "pre_nms": None, "clip": "content"} | settings
    return RoIPredictor(ROI_CODER, scores=lambda logits: scores(logits)[:, :-1], **settings)


@pytest.mark.parametrize("method", ["softmax", "eql", "eqlv2", "bags"])
def test_detections(golden, method):
    data = golden("two_stage_detections.npz")
    counts = golden("two_stage_bags.npz")["instance_counts"].tolist()
    losses = {
        "softmax": SoftmaxLoss(C),
        "eql": EQLLoss(C, torch.zeros(C)),
        "eqlv2": EQLv2Loss(C),
        "bags": GroupSoftmaxLoss(C, counts),
    }
    logits = torch.from_numpy(data[f"{method}_logits"])
    scores = losses[method].scores
    np.testing.assert_allclose(scores(logits).numpy(), data[f"{method}_scores"], rtol=1e-4, atol=1e-6)
    size = tuple(data["image_hw"].tolist())
    scale = tuple(float(s) for s in data["scale_factor"][:2])
    rois, deltas = torch.from_numpy(data["rois"]), torch.from_numpy(data["deltas"])
    decoded = box_ops.clip(ROI_CODER.decode(rois[:, None], deltas.reshape(120, C, 4)), size)
    decoded = decoded / torch.tensor([*scale, *scale])
    np.testing.assert_allclose(decoded.reshape(120, -1).numpy(), data["boxes_all_classes"], atol=1e-3)
    found = detect(predictor_of(scores), rois, logits, deltas, size, scale)
    np.testing.assert_array_equal(found.labels.numpy(), data[f"{method}_detection_labels"])
    np.testing.assert_allclose(found.scores.numpy(), data[f"{method}_detections"][:, 4], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found.boxes.numpy(), data[f"{method}_detections"][:, :4], atol=1e-3)


def test_detections__of_the_whole_forward_pass(golden):
    """From the reference's logits; the pass up to there is in tests/models/test_two_stage_golden.py."""
    data = golden("two_stage_forward.npz")
    image = torch.from_numpy(data["rois"][:, 0])
    for i, size in enumerate(data["image_hw"].tolist()):
        own = image == i
        rois = torch.from_numpy(data["rois"])[own, 1:]
        logits, deltas = torch.from_numpy(data["logits"])[own], torch.from_numpy(data["deltas"])[own]
        found = detect(predictor_of(EQLv2Loss(C).scores), rois, logits, deltas, tuple(size))
        np.testing.assert_array_equal(found.labels.numpy(), data[f"detection_labels{i}"])
        np.testing.assert_allclose(found.boxes.numpy(), data[f"detections{i}"][:, :4], atol=1e-3)
        np.testing.assert_allclose(found.scores.numpy(), data[f"detections{i}"][:, 4], rtol=1e-4)


@pytest.mark.parametrize("limit", [5, 60, 4000])
def test_detections__looking_at_the_best_first_changes_nothing(limit):
    """Against one NMS over all pairs, with so many duplicates that the first look is not enough."""
    generator = torch.Generator().manual_seed(0)
    rois = (torch.rand(3, 4, generator=generator) * 20).repeat(40, 1) + torch.tensor([0.0, 0, 40, 40])
    logits = torch.randn(120, C, generator=generator)
    predictor = predictor_of(EQLLoss(C, torch.zeros(C)).scores, score_threshold=0.3, max_detections=limit)
    found = detect(predictor, rois, logits, torch.zeros(120, 4), (64, 64))
    scores = logits.sigmoid().flatten()
    boxes = box_ops.clip(rois, (64, 64)).repeat_interleave(C, dim=0)
    labels = torch.arange(C).repeat(120)
    above = scores > 0.3
    keep = category_nms(boxes[above], scores[above], labels[above], 0.5)[:limit]
    torch.testing.assert_close(found.scores, scores[above][keep])
    assert torch.equal(found.labels, labels[above][keep])


@pytest.mark.parametrize("regions", [0, 1])
def test_detections__few_regions(regions):
    predictor = predictor_of(SoftmaxLoss(C).scores)
    rois = torch.tensor([[4.0, 4.0, 30.0, 30.0]])[:regions]
    logits = torch.zeros(regions, C + 1)
    found = detect(predictor, rois, logits, torch.zeros(regions, 4 * C), (64, 64))
    assert len(found) == regions * C


def test_detections__no_score_above_the_threshold():
    predictor = predictor_of(SoftmaxLoss(C).scores)
    logits = torch.zeros(200, C + 1)
    logits[:, C] = 50.0
    assert len(detect(predictor, torch.rand(200, 4), logits, torch.zeros(200, 4 * C), (64, 64))) == 0
