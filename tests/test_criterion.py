"""The complete losses against both references: one rank, two gloo ranks, official YOLOX."""

from __future__ import annotations

import copy
import json

import numpy as np
import pytest
import torch
import torch.distributed as dist

from tests.golden_levels import aligned_priors, legacy_priors, level_maps, objects, predictions_from
from tests.processes import context, start_ranks
from yolox_lt import boxes as box_ops
from yolox_lt.assign import ATSSAssigner, BaseAssigner, SimOTAAssigner, Targets
from yolox_lt.coders import DeltaCoder, grid_coder
from yolox_lt.criterion import Criterion, RetinaNetCriterion, YOLOXCriterion, centerness
from yolox_lt.distributed.processes import free_port
from yolox_lt.losses import EqualizedFocalLoss, EqualizedQualityFocalLoss, FocalLoss, QualityFocalLoss
from yolox_lt.models.heads import YOLOXHead
from yolox_lt.models.priors import AnchorGrid
from yolox_lt.types import IGNORED, Assignment, Predictions

C = 30
LOSSES = {
    "efl_s4": lambda: EqualizedFocalLoss(C, scale=4.0),
    "efl_s8": lambda: EqualizedFocalLoss(C, scale=8.0),
    "eqfl_s4": lambda: EqualizedQualityFocalLoss(C),
    "qfl": lambda: QualityFocalLoss(),
}


class IgnoringATSS(ATSSAssigner):
    """ATSS with the reference's ignore boxes, which its released configurations never load but its golden cases
    have.
    """

    def assign_batch(self, priors, targets, predictions=None):
        results = super().assign_batch(priors, targets, predictions)
        points = (priors.boxes[:, :2] + priors.boxes[:, 2:]) / 2
        for result, ignore in zip(results, self.ignore):
            inside = (points[:, None] > ignore[:, :2]).all(-1) & (points[:, None] < ignore[:, 2:]).all(-1)
            result.gt_index[inside.any(1)] = IGNORED
        return results


def released_criterion(cls_loss):
    return Criterion(IgnoringATSS(18), cls_loss, DeltaCoder(), use_l1=True)


def run_iteration(criterion, data, iteration, prefix="", priors=None):
    ignore = [data.get(f"{prefix}it{iteration}_ignore{i}", np.zeros((1, 4), np.float32)) for i in range(2)]
    object.__setattr__(criterion.assigner, "ignore", [torch.from_numpy(i) for i in ignore])
    maps = {
        k: [m.requires_grad_() for m in level_maps(data, f"{prefix}it{iteration}_", k, len(data["strides"]))]
        for k in ("cls", "loc", "iou")
    }
    priors = aligned_priors(data) if priors is None else priors
    images = [objects(data[f"{prefix}it{iteration}_gt{i}"]) for i in range(2)]
    sizes = [(int(h), int(w)) for h, w in data["image_hw"]]
    predictions = predictions_from(maps["cls"], maps["loc"], maps["iou"])
    plain = [b + torch.tensor([0, 0, 1, 1]) * float(priors.legacy) for b, _ in images]  # the arrays are as the priors
    losses = criterion(predictions, priors, plain, [x for _, x in images], sizes)
    sum(losses.values()).backward()
    return losses, maps


def check(losses, maps, data, value_prefix, grad_prefixes):
    def item(name):
        return losses[name].item()

    np.testing.assert_allclose(item("cls"), data[f"{value_prefix}cls_loss"], rtol=1e-4)
    np.testing.assert_allclose(
        item("box") + (item("l1") if "l1" in losses else 0.0), data[f"{value_prefix}loc_loss"], rtol=1e-4
    )
    np.testing.assert_allclose(item("quality"), data[f"{value_prefix}iou_loss"], rtol=1e-4)
    for kind, levels in maps.items():
        want = [data[f"{grad_prefixes[kind]}grad_{kind}_lvl{i}"] for i in range(len(levels))]
        largest = max(np.abs(w).max() for w in want)
        for level, w in zip(levels, want):
            np.testing.assert_allclose(level.grad.numpy(), w, rtol=1e-4, atol=1e-6 * largest)


@pytest.mark.parametrize("name", [n for n in LOSSES if n != "efl_s8"])
def test_released__two_iterations_of_the_whole_loss(golden, name):
    data = golden("post_losses_aligned.npz")
    criterion = released_criterion(LOSSES[name]())
    stored = {k.split("_grad_loc")[0] for k in data if "_it0_grad_loc_lvl0" in k}.pop()  # stored once for all losses
    stored = stored.rsplit("_it", 1)[0]
    for i in range(2):
        losses, maps = run_iteration(criterion, data, i)
        prefixes = {"cls": f"{name}_it{i}_", "loc": f"{stored}_it{i}_", "iou": f"{stored}_it{i}_"}
        check(losses, maps, data, f"{name}_it{i}_", prefixes)
        for balance in criterion.step_states():
            for statistic, value in (
                ("pos_grad", balance.pos_grad),
                ("neg_grad", balance.neg_grad),
                ("pos_neg", balance.ratio),
            ):
                np.testing.assert_allclose(value.numpy(), data[f"{name}_it{i}_{statistic}"], rtol=1e-4, atol=1e-7)


def test_released_resnet__two_iterations_of_the_whole_loss(golden):
    data = golden("post_losses_legacy.npz")
    criterion = Criterion(IgnoringATSS(18), LOSSES["efl_s8"](), DeltaCoder())
    for i in range(2):
        losses, maps = run_iteration(criterion, data, i, priors=legacy_priors(data))
        check(losses, maps, data, f"efl_s8_it{i}_", dict.fromkeys(("cls", "loc", "iou"), f"efl_s8_it{i}_"))
        (balance,) = criterion.step_states()
        for statistic, value in (
            ("pos_grad", balance.pos_grad),
            ("neg_grad", balance.neg_grad),
            ("pos_neg", balance.ratio),
        ):
            np.testing.assert_allclose(value.numpy(), data[f"efl_s8_it{i}_{statistic}"], rtol=1e-4, atol=1e-7)


def two_workers(rank, port, path, queue):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    with np.load(path) as archive:
        data = dict(archive)
    criterion = released_criterion(EqualizedFocalLoss(C, scale=4.0))
    for balance in criterion.step_states():
        balance.auto_commit = False
    try:
        for i in range(2):
            losses, maps = run_iteration(criterion, data, i, f"rank{rank}_")
            criterion.step_states()[0].commit()
            prefix = f"rank{rank}_it{i}_"
            check(losses, maps, data, prefix, dict.fromkeys(("cls", "loc", "iou"), prefix))
            balance = criterion.step_states()[0]
            for name, value in (
                ("pos_grad", balance.pos_grad),
                ("neg_grad", balance.neg_grad),
                ("pos_neg", balance.ratio),
            ):
                np.testing.assert_allclose(value.numpy(), data[f"it{i}_{name}"], rtol=1e-4, atol=1e-7)
        queue.put((rank, "ok"))
    finally:
        dist.destroy_process_group()


def test_released__two_gloo_ranks_share_normalisers_and_statistic(golden):
    from tests.conftest import GOLDEN

    queue = context().Queue()
    start_ranks(two_workers, (free_port(), str(GOLDEN / "post_losses_two_workers.npz"), queue), 2)
    assert sorted(queue.get(timeout=5) for _ in range(2)) == [(0, "ok"), (1, "ok")]


def test_released__batch_without_objects_gives_zero_box_losses_and_gradients_everywhere(golden):
    data = golden("post_losses_aligned.npz")
    maps = {k: [m.requires_grad_() for m in level_maps(data, "it0_", k)] for k in ("cls", "loc", "iou")}
    criterion = Criterion(ATSSAssigner(18), EqualizedQualityFocalLoss(C), DeltaCoder(), use_l1=True)
    empty, none = torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64)
    predictions = predictions_from(maps["cls"], maps["loc"], maps["iou"])
    losses = criterion(predictions, aligned_priors(data), [empty] * 2, [none] * 2, [(100, 100)] * 2)
    assert losses["cls"] > 0
    assert losses["box"] == losses["l1"] == losses["quality"] == 0
    sum(losses.values()).backward()
    assert all((m.grad == 0).all() for k in ("loc", "iou") for m in maps[k])
    assert all((m.grad > 0).all() for m in maps["cls"])  # every entry is a negative
    assert criterion.step_states()[0].pos_grad.sum() == 0


# ------------------------------------------------------------------------------------------------- official YOLOX


def yolox_head(data):
    c, width = int(data["num_classes"]), float(data["width"])
    head = YOLOXHead(c, width)
    head.load_state_dict({k.removeprefix("w/"): torch.from_numpy(v) for k, v in data.items() if k.startswith("w/")})
    return head.train()


def yolox_case(data):
    head = yolox_head(data)
    features = [torch.from_numpy(data[f"feat{i}"]) for i in range(3)]
    priors = AnchorGrid([int(s) for s in data["strides"]], [1])([f.shape[2:] for f in features])
    rows = torch.from_numpy(data["labels"])
    counts = data["num_gt"].tolist()
    boxes = [box_ops.cxcywh_to_xyxy(rows[b, :n, 1:]) for b, n in enumerate(counts)]
    labels = [rows[b, :n, 0].long() for b, n in enumerate(counts)]
    return head, head(features), priors, boxes, labels


@pytest.mark.parametrize("case", ["c20", "c3"])
def test_simota__assignment_of_every_image(golden, case):
    data = golden(f"yolox_head_simota_{case}.npz")
    _, predictions, priors, boxes, labels = yolox_case(data)
    predictions.boxes = grid_coder().decode(priors.boxes, predictions.box_deltas.detach())
    want = torch.from_numpy(data["train_outputs"])
    torch.testing.assert_close(predictions.cls_logits.detach(), want[..., 5:], rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(predictions.boxes, box_ops.cxcywh_to_xyxy(want[..., :4]), rtol=1e-3, atol=1e-2)
    assigner = SimOTAAssigner()
    sizes = [tuple(data["image_hw"].tolist())] * len(boxes)
    for b, result in enumerate(assigner.assign_batch(priors, Targets(boxes, labels, sizes), predictions)):
        window = (
            assigner.center_window(priors, boxes[b]).any(dim=0) if len(boxes[b]) else torch.zeros(len(priors.boxes))
        )
        np.testing.assert_array_equal(window.bool().numpy(), data["candidate_mask"][b])
        np.testing.assert_array_equal((result.gt_index >= 0).numpy(), data["fg_mask"][b])
        np.testing.assert_array_equal(result.gt_index.numpy(), data["matched_gt"][b])
        np.testing.assert_allclose(result.iou.numpy(), data["matched_iou"][b], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("case", ["c20", "c3"])
@pytest.mark.parametrize("use_l1", [False, True])
def test_official__losses_and_gradients(golden, case, use_l1):
    data = golden(f"yolox_head_simota_{case}.npz")
    head, predictions, priors, boxes, labels = yolox_case(data)
    criterion = YOLOXCriterion(SimOTAAssigner(), grid_coder(), use_l1)
    losses = criterion(predictions, priors, boxes, labels, [tuple(data["image_hw"].tolist())] * len(boxes))
    prefix = "l1_" if use_l1 else ""
    for ours, theirs in (("box", "loss_iou_x5"), ("obj", "loss_obj"), ("cls", "loss_cls")):
        np.testing.assert_allclose(losses[ours].item(), data[prefix + theirs], rtol=1e-4)
    np.testing.assert_allclose(losses["l1"].item(), data["l1_loss_l1"] if use_l1 else 0, rtol=1e-4)
    total = sum(losses.values())
    np.testing.assert_allclose(total.item(), data[prefix + "loss_total"], rtol=1e-4)
    total.backward()
    for branch in ("cls", "reg", "obj"):
        for level in range(3):
            got = getattr(head, f"{branch}_preds")[level].bias.grad.numpy()
            np.testing.assert_allclose(got, data[f"{prefix}grad/{branch}_preds.{level}.bias"], rtol=1e-3, atol=1e-5)
    for level in range(3):
        norm = head.stems[level].conv.weight.grad.norm().item()
        np.testing.assert_allclose(norm, data[f"{prefix}grad/stems.{level}.conv.weight_l2"], rtol=1e-3)


def test_simota__no_prior_in_any_window_assigns_nothing():
    priors = AnchorGrid([8], [1])([(2, 2)])
    predictions = Predictions(torch.zeros(4, 3), torch.zeros(4, 4), torch.zeros(4), priors.boxes)
    far = torch.tensor([[200.0, 200, 210, 210]])
    assert (SimOTAAssigner()(priors, far, torch.tensor([2]), (16, 16), predictions).gt_index == -1).all()


def test_statistics__are_part_of_the_state_and_survive_a_round_trip():
    criterion = Criterion(ATSSAssigner(18), EqualizedFocalLoss(4), DeltaCoder(), use_l1=False)
    criterion.step_states()[0].accumulate(torch.tensor([1.0, 0, 2, 0]), torch.tensor([2.0, 1, 1, 0]))
    other = copy.deepcopy(criterion)
    for buffer in other.buffers():
        buffer.zero_()
    other.load_state_dict(criterion.state_dict())
    assert other.step_states()[0].ratio.tolist() == pytest.approx([0.5, 0.0, 1.0, 0.0])
    json.dumps(list(criterion.state_dict()))


def test_official__batch_without_objects_trains_objectness_alone(golden):
    data = golden("yolox_head_simota_c3.npz")
    head, predictions, priors, _, _ = yolox_case(data)
    empty, none = torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64)
    criterion = YOLOXCriterion(SimOTAAssigner(), grid_coder(), use_l1=True)
    losses = criterion(predictions, priors, [empty] * 3, [none] * 3, [(96, 128)] * 3)
    assert losses["obj"] > 0
    assert losses["cls"] == losses["box"] == losses["l1"] == 0
    sum(losses.values()).backward()
    gradients = {name: p.grad for name, p in head.named_parameters()}
    assert all(g is not None for g in gradients.values())  # data-parallel training waits for every parameter
    assert (gradients["obj_preds.0.bias"] > 0).all()
    assert (gradients["cls_preds.0.weight"] == 0).all()


# ------------------------------------------------------------------------------------------------- ResNet detectors


def test_centerness__by_hand():
    # Point (4, 4). Distances 4 4 | 4 4: 1. Distances left 1, right 3, top 2, bottom 4: sqrt(1/3 * 2/4). On a side: 0.
    priors = torch.tensor([[0.0, 0, 8, 8]]).expand(3, 4)
    boxes = torch.tensor([[0.0, 0, 8, 8], [3, 2, 7, 8], [4, 0, 8, 8]])
    torch.testing.assert_close(centerness(priors, boxes), torch.tensor([1.0, (1 / 6) ** 0.5, 0.0]))


class Fixed(BaseAssigner):
    """Gives the same objects to the same priors, whatever comes."""

    def __init__(self, gt_index):
        self.gt_index = torch.tensor(gt_index)

    def assign_image(self, priors, objects, predictions):
        return Assignment(self.gt_index, torch.zeros(len(self.gt_index)))


def small_case():
    """Four priors, two objects, the first object at priors 0 and 3, the second nowhere."""
    priors = AnchorGrid([8], [2], legacy=True)([(2, 2)])
    generator = torch.Generator().manual_seed(0)
    predictions = Predictions(
        torch.randn(1, 4, 3, generator=generator),
        torch.randn(1, 4, 4, generator=generator) / 4,
        torch.randn(1, 4, generator=generator),
    )
    objects = [torch.tensor([[0.0, 1, 10, 12], [2, 2, 6, 6]])], [torch.tensor([2, 0])]
    return priors, predictions, *objects, [(16, 16)]


def test_retinanet__l1_on_deltas_over_positives():
    priors, predictions, boxes, labels, sizes = small_case()
    predictions.quality_logits = None
    coder = DeltaCoder()
    criterion = RetinaNetCriterion(Fixed([0, -1, -2, 0]), FocalLoss(), coder)
    losses = criterion(predictions, priors, boxes, labels, sizes)
    assert set(losses) == {"cls", "box"}
    target = coder.encode(priors.plain()[[0, 3]], boxes[0][[0, 0]])
    want = sum(abs(float(a - b)) for a, b in zip(predictions.box_deltas[0, [0, 3]].flatten(), target.flatten())) / 2
    assert losses["box"].item() == pytest.approx(want, rel=1e-5)
    want_cls = FocalLoss()(predictions.cls_logits[0], torch.tensor([2, -1, -2, 2]), None, 2.0)
    assert losses["cls"].item() == pytest.approx(want_cls.item(), rel=1e-6)


def test_weights_and_centerness__by_hand():
    priors, predictions, boxes, labels, sizes = small_case()
    coder = DeltaCoder()
    criterion = Criterion(
        Fixed([0, -1, -1, 0]), FocalLoss(), coder, target="centerness", box_weight=1.3, quality_weight=0.5
    )
    losses = criterion(predictions, priors, boxes, labels, sizes)
    own, objects_of = priors.plain()[[0, 3]], boxes[0][[0, 0]]
    t = centerness(own, objects_of, 0.5)  # as the released convention has it: half a pixel nearer to every side
    giou = box_ops.giou(coder.decode(own, predictions.box_deltas[0, [0, 3]]), objects_of)
    assert losses["box"].item() == pytest.approx(1.3 * float((t * (1 - giou)).sum() / max(float(t.sum()), 1)), rel=1e-5)
    logits = predictions.quality_logits[0, [0, 3]]
    bce = -(t * logits.sigmoid().log() + (1 - t) * (1 - logits.sigmoid()).log())
    assert losses["quality"].item() == pytest.approx(0.5 * float(bce.sum()) / 2, rel=1e-5)


@pytest.mark.parametrize("recipe", ["released", "retinanet", "official"])
def test_cls_weight__multiplies_loss_gradient_and_both_sums_of_the_statistic(recipe):
    def outcome(weight):
        priors, predictions, boxes, labels, sizes = small_case()
        predictions.cls_logits.requires_grad_()
        loss = EqualizedFocalLoss(predictions.cls_logits.shape[2])
        assigner, coder = Fixed([0, -1, -1, 0]), DeltaCoder()
        if recipe == "released":
            criterion = Criterion(assigner, loss, coder, cls_weight=weight)
        elif recipe == "retinanet":
            criterion = RetinaNetCriterion(assigner, loss, coder, cls_weight=weight)
        else:
            criterion = YOLOXCriterion(assigner, coder, cls_weight=weight)
        losses = criterion(predictions, priors, boxes, labels, sizes)
        losses["cls"].backward()
        return losses, predictions.cls_logits.grad, loss.balance

    plain, plain_gradient, plain_balance = outcome(1.0)
    heavy, heavy_gradient, heavy_balance = outcome(3.0)
    assert heavy["cls"].item() == pytest.approx(3 * plain["cls"].item(), rel=1e-6)
    assert torch.allclose(heavy_gradient, 3 * plain_gradient, rtol=1e-6)
    assert all(torch.equal(heavy[name], plain[name]) for name in plain if name != "cls")
    if recipe != "official":  # whose loss is plain BCE
        assert torch.allclose(heavy_balance.pos_grad, 3 * plain_balance.pos_grad, rtol=1e-6)
        assert torch.allclose(heavy_balance.neg_grad, 3 * plain_balance.neg_grad, rtol=1e-6)
        assert torch.allclose(heavy_balance.ratio, plain_balance.ratio, rtol=1e-6)
        assert heavy_balance.pos_grad.any()


@pytest.mark.parametrize("criterion", [Criterion, RetinaNetCriterion])
def test_batch_without_objects__keeps_every_output_in_the_graph(criterion):
    priors, predictions, _, _, sizes = small_case()
    if criterion is RetinaNetCriterion:
        predictions.quality_logits = None
    leaves = [
        t.requires_grad_()
        for t in (predictions.cls_logits, predictions.box_deltas, predictions.quality_logits)
        if t is not None
    ]
    losses = criterion(Fixed([-1] * 4), EqualizedFocalLoss(3), DeltaCoder())(
        predictions, priors, [torch.zeros(0, 4)], [torch.zeros(0).long()], sizes
    )
    sum(losses.values()).backward()
    assert all(leaf.grad is not None and torch.isfinite(leaf.grad).all() for leaf in leaves)
    assert {name: value.item() for name, value in losses.items() if name != "cls"} == dict.fromkeys(
        set(losses) - {"cls"}, 0.0
    )
