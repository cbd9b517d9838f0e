"""The losses of a two-stage detector against arrays of the reference, and its choices between the stages."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.models.test_two_stage_golden import ROI_CODER, grid, rows
from yolox_lt.assign import BalancedSampler, RoIAssigner, RPNAssigner
from yolox_lt.assign.base import Targets
from yolox_lt.losses import EQLLoss, EQLv2Loss, GroupSoftmaxLoss, SeesawLoss, SoftmaxLoss
from yolox_lt.models.two_stage import RegionPredictions, build_two_stage
from yolox_lt.predict import RoIPredictor
from yolox_lt.region_criterion import TwoStageCriterion, region_box_loss, rpn_losses

SAMPLERS = (BalancedSampler(256, 0.5), BalancedSampler(512, 0.25))


@pytest.mark.parametrize("precision", ["f32", "f64"])
@pytest.mark.parametrize("case", ["per_class", "agnostic", "all_background"])
def test_box_loss(golden, case, precision):
    data = golden("two_stage_head.npz")
    dtype, rtol = (torch.float32, 1e-4) if precision == "f32" else (torch.float64, 1e-9)
    deltas = torch.from_numpy(data[f"{case}_deltas"]).to(dtype).requires_grad_()
    labels = torch.from_numpy(data[f"{case}_labels"])
    targets = torch.from_numpy(data[f"{case}_delta_targets"]).to(dtype)[labels >= 0]
    loss = region_box_loss(deltas, labels, targets)
    loss.backward()
    np.testing.assert_allclose(loss.item(), data[f"{case}_{precision}_box_loss"], rtol=rtol)
    np.testing.assert_allclose(deltas.grad.numpy(), data[f"{case}_{precision}_deltas_grad"], rtol=rtol, atol=1e-12)


def test_rpn_losses(golden):
    data = golden("two_stage_rpn.npz")
    priors = grid()(data["feature_hw"].tolist())
    logits = rows([data[f"objectness_lvl{k}"] for k in range(5)], 1).requires_grad_()
    deltas = rows([data[f"deltas_lvl{k}"] for k in range(5)], 4).requires_grad_()
    boxes = [torch.from_numpy(data[f"gt{i}"]).reshape(-1, 4) for i in range(2)]
    labels = [torch.zeros(len(b), dtype=torch.int64) for b in boxes]
    sizes = [tuple(s) for s in data["image_hw"].tolist()]
    assigned = RPNAssigner().assign_batch(priors, Targets(boxes, labels, sizes))
    sampled = torch.from_numpy(data["sampled"])
    samples = [tuple((sampled[i] == wanted).nonzero().squeeze(1) for wanted in (1, 0)) for i in range(2)]
    assert [len(p) + len(n) for p, n in samples] == data["num_sampled"].tolist()
    for i, (positive, negative) in enumerate(samples):  # the reference's choice is one that ours could make
        assert (assigned[i].gt_index[positive] >= 0).all()
        assert (assigned[i].gt_index[negative] == -1).all()
    losses = rpn_losses(RegionPredictions(logits, deltas), priors, assigned, samples, boxes)
    sum(losses.values()).backward()
    np.testing.assert_allclose(losses["rpn_cls"].item(), data["f32_cls_loss"], rtol=1e-4)
    np.testing.assert_allclose(losses["rpn_box"].item(), data["f32_box_loss"], rtol=1e-4)
    np.testing.assert_allclose(logits.grad[..., 0].numpy(), data["f32_objectness_grad"], rtol=1e-4, atol=1e-9)
    np.testing.assert_allclose(deltas.grad.numpy(), data["f32_deltas_grad"], rtol=1e-4, atol=1e-9)


def small_criterion() -> TwoStageCriterion:
    return TwoStageCriterion(SoftmaxLoss(3), ROI_CODER, RPNAssigner(), SAMPLERS[0], RoIAssigner(), SAMPLERS[1], seed=3)


def small_model():
    torch.manual_seed(0)
    return build_two_stage(3, 4, depth=18, channels=32, head_width=64, trainable_layers=5, freeze_bn=False)


OBJECTS = [torch.tensor([[10.0, 12.0, 60.0, 70.0], [40.0, 8.0, 52.0, 20.0]]), torch.zeros(0, 4)]
LABELS = [torch.tensor([2, 0]), torch.zeros(0, dtype=torch.int64)]


@pytest.mark.parametrize("count", [1, 2])
def test_step__every_parameter_gets_a_finite_gradient(count):
    model, criterion = small_model(), small_criterion()
    predictions, priors = model(torch.randn(count, 3, 96, 128))
    losses = criterion(predictions, priors, OBJECTS[:count], LABELS[:count], [(96, 128), (90, 110)][:count])
    assert set(losses) == {"rpn_cls", "rpn_box", "cls", "box"}
    sum(losses.values()).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name


def test_step__images_without_objects():
    """256 negative anchors each; all regions are background, and the box losses are 0."""
    model, criterion = small_model(), small_criterion()
    predictions, priors = model(torch.randn(2, 3, 96, 128))
    losses = criterion(predictions, priors, [OBJECTS[1]] * 2, [LABELS[1]] * 2, [(96, 128)] * 2)
    assert losses["box"] == 0
    assert losses["rpn_box"] == 0
    assert losses["cls"] > 0
    # ln 2 for each of 512 anchors at the start, divided by 2 x (256 + 1).
    assert losses["rpn_cls"].item() == pytest.approx(np.log(2) * 512 / 514, rel=0.02)
    sum(losses.values()).backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())


@pytest.mark.parametrize("objects", [0, 1])
def test_step__no_proposals(objects):
    """All anchors' boxes are clipped to nothing: what is left is the object itself, one region, or none at all."""
    model, criterion = small_model(), small_criterion()
    predictions, priors = model(torch.randn(1, 3, 96, 128))
    predictions.box_deltas = predictions.box_deltas + torch.tensor([1e4, 0.0, 0.0, 0.0])
    assert len(predictions.propose([(96, 128)])[0].boxes) == 0
    losses = criterion(predictions, priors, [OBJECTS[0][:objects]], [LABELS[0][:objects]], [(96, 128)])
    values = torch.stack(list(losses.values()))
    assert torch.isfinite(values).all()
    assert (losses["cls"] > 0) == bool(objects)
    values.sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())


LOSSES = (
    EQLLoss(3, torch.tensor([0.5, 0.01, 0.0001])),
    EQLv2Loss(3),
    SeesawLoss(3),
    GroupSoftmaxLoss(3, [1, 20, 2000]),
)


@pytest.mark.parametrize("cls_loss", LOSSES, ids=lambda loss: type(loss).__name__)
def test_step__of_every_loss_with_no_region_one_region_and_no_object(cls_loss):
    """One after the other on one image; the predictor gives the same images detections, or none without a region."""
    torch.manual_seed(0)
    model = build_two_stage(3, cls_loss.num_outputs, depth=18, channels=16, head_width=16)
    criterion = TwoStageCriterion(
        cls_loss, ROI_CODER, RPNAssigner(), SAMPLERS[0], RoIAssigner(), SAMPLERS[1], cls_weight=2.0
    )
    predictor = RoIPredictor(ROI_CODER, scores=lambda x: cls_loss.scores(x)[:, :-1], clip="content")
    images, size = torch.randn(1, 3, 64, 64), torch.tensor([[64, 64]])
    for objects, shift in ((0, 1e4), (1, 1e4), (0, 0.0)):
        predictions, priors = model(images)
        predictions.box_deltas = predictions.box_deltas + torch.tensor([shift, 0.0, 0.0, 0.0])
        losses = criterion(predictions, priors, [OBJECTS[0][:objects]], [LABELS[0][:objects]], [(64, 64)])
        total = torch.stack(list(losses.values())).sum()
        assert torch.isfinite(total)
        assert (losses["cls"] > 0) == (objects == 1 or shift == 0)
        total.backward()
        assert all(p.grad is None or torch.isfinite(p.grad).all() for p in model.parameters())
        for state in criterion.step_states():
            state.commit()
        with torch.no_grad():
            found = predictor(predictions, priors, torch.ones(1, 2), size, size, (64, 64))[0]
        assert (len(found) > 0) == (shift == 0)
        assert torch.isfinite(found.scores).all()


def test_choice__objects_first_and_the_same_after_a_resume():
    criterion, boxes = small_criterion(), torch.rand(600, 4) * 50
    boxes[:, 2:] += boxes[:, :2] + 1
    first = criterion.choose(boxes, OBJECTS[0], LABELS[0], criterion.next_generator())
    assert len(first.boxes) == 512
    positives = int((first.labels >= 0).sum())
    assert (first.labels[positives:] == -1).all()
    assert len(first.objects) == positives
    state = {name: value.clone() for name, value in criterion.state_dict().items()}
    second = criterion.choose(boxes, OBJECTS[0], LABELS[0], criterion.next_generator())
    assert not torch.equal(first.boxes, second.boxes)
    resumed = small_criterion()
    resumed.load_state_dict(state)
    assert torch.equal(second.boxes, resumed.choose(boxes, OBJECTS[0], LABELS[0], resumed.next_generator()).boxes)
