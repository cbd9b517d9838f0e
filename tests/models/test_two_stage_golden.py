"""Boxes, RoIAlign, proposals and the whole forward pass against arrays of the reference (tests/golden/README.md)."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from yolox_lt import boxes as box_ops
from yolox_lt.coders import DeltaCoder
from yolox_lt.models.priors import AnchorGrid
from yolox_lt.models.roi import roi_align, roi_levels
from yolox_lt.models.two_stage import RegionPredictions, TwoStageDetector, build_two_stage
from yolox_lt.models.two_stage.box_head import BoxHead
from yolox_lt.models.two_stage.pyramid import FinePyramid
from yolox_lt.models.two_stage.rpn_head import RPN_CODER, ProposalRule, RPNHead

STRIDES = (4, 8, 16, 32, 64)
ROI_CODER = DeltaCoder(stds=(0.1, 0.1, 0.2, 0.2), min_log_ratio=-math.log(1000 / 16))


def grid() -> AnchorGrid:
    return AnchorGrid(STRIDES, (8,), ratios=(0.5, 1.0, 2.0))


def rows(maps, values):
    """Level maps [B, A*K, H, W] -> [B, P, K] in the order level, row, column, anchor."""
    flat = [m.transpose(0, 2, 3, 1).reshape(len(m), -1, values) for m in maps]  # [B, H, W, A*K] -> [B, H*W*A, K]
    return torch.from_numpy(np.concatenate(flat, axis=1))


def test_anchors(golden):
    data = golden("two_stage_boxes.npz")
    np.testing.assert_allclose(grid()([(1, 1)] * 5).boxes.reshape(5, 3, 4), data["base_anchors"], atol=1e-3)
    priors = grid()(data["feature_hw"].tolist())
    np.testing.assert_allclose(priors.boxes, data["anchors"], atol=1e-3)
    assert priors.level_sizes == data["anchors_per_level"].tolist()


@pytest.mark.parametrize("precision", ["f32", "f64"])
def test_box_codes(golden, precision):
    data = golden("two_stage_boxes.npz")
    dtype = torch.float32 if precision == "f32" else torch.float64
    proposals, gt, deltas = (torch.from_numpy(data[k]).to(dtype) for k in ("proposals", "gt", "deltas_per_class"))
    for coder, key in ((ROI_CODER, "roi_encoded"), (RPN_CODER, "rpn_encoded")):
        np.testing.assert_allclose(coder.encode(proposals, gt).numpy(), data[key], rtol=1e-4, atol=1e-5)
    per_class = deltas.reshape(80, 30, 4)  # [R, 4C] -> [R, C, 4]
    decoded = ROI_CODER.decode(proposals[:, None], per_class)
    size = (int(data["image_hw"][0]), int(data["image_hw"][1]))
    tolerance = {"rtol": 1e-6 if precision == "f32" else 1e-9, "atol": 1e-3 if precision == "f32" else 1e-9}
    want = data[f"roi_decoded_unclipped_{precision}"].reshape(80, 30, 4)
    np.testing.assert_allclose(decoded.numpy(), want, **tolerance)
    want = data[f"roi_decoded_{precision}"].reshape(80, 30, 4)
    np.testing.assert_allclose(box_ops.clip(decoded, size).numpy(), want, **tolerance)
    rpn = box_ops.clip(RPN_CODER.decode(proposals, deltas[:, :4]), size)
    np.testing.assert_allclose(rpn.numpy(), data[f"rpn_decoded_{precision}"], **tolerance)


def test_roi_levels(golden):
    data = golden("two_stage_boxes.npz")
    np.testing.assert_array_equal(roi_levels(torch.from_numpy(data["level_rois"])).numpy(), data["level_index"])


def test_roi_align(golden):
    data = golden("two_stage_boxes.npz")
    maps = [torch.from_numpy(data[f"roi_feature{k}"]) for k in range(4)]
    rois = torch.from_numpy(data["align_rois"])
    np.testing.assert_array_equal(roi_levels(rois[:, 1:]).numpy(), data["align_level"])
    got = roi_align(maps, rois)
    np.testing.assert_allclose(got.numpy(), data["align_output"], rtol=1e-4, atol=1e-5)
    got = roi_align([m.double() for m in maps], rois.double())
    np.testing.assert_allclose(got.numpy(), data["align_output_f64"], rtol=1e-5, atol=1e-6)  # stored as float32
    assert roi_align(maps, rois[:0]).shape == (0, 2, 7, 7)
    assert roi_align(maps, rois[:1]).shape == (1, 2, 7, 7)


@pytest.mark.parametrize("mode", ["train", "test"])
def test_proposals(golden, mode):
    data = golden("two_stage_rpn.npz")
    priors = grid()(data["feature_hw"].tolist())
    objectness = rows([data[f"objectness_lvl{k}"] for k in range(5)], 1)
    deltas = rows([data[f"deltas_lvl{k}"] for k in range(5)], 4)
    pre, post = data[f"{mode}_pre_post"].tolist()
    rule = ProposalRule(pre, pre, post)
    for i, size in enumerate(data["image_hw"].tolist()):
        got = rule(objectness[i], deltas[i], priors, tuple(size), mode == "train")
        want = data[f"proposals_{mode}{i}_nonempty"]
        np.testing.assert_allclose(got.boxes.numpy(), want[:, :4], atol=1e-3)
        np.testing.assert_allclose(got.scores.numpy(), want[:, 4], rtol=1e-4, atol=1e-6)


# ----------------------------------------------------------------------------------------------- the whole forward pass

NAMES = {
    "neck.lateral_convs.{}.conv": "backbone.lateral.{}",
    "neck.fpn_convs.{}.conv": "backbone.output.{}",
    "rpn_head.rpn_conv": "rpn.conv",
    "rpn_head.rpn_cls": "rpn.objectness",
    "rpn_head.rpn_reg": "rpn.box",
    "bbox_head.shared_fcs.{}": "head.shared.{}",
    "bbox_head.fc_cls": "head.cls_pred",
    "bbox_head.fc_reg": "head.box_pred",
}


def small_detector(data) -> TwoStageDetector:
    """The reference's weights in a detector whose "backbone" is the pyramid alone."""
    state = {}
    for theirs, ours in NAMES.items():
        for i in range(4):
            for part in ("weight", "bias"):
                key = f"w::{theirs.format(i)}.{part}"
                if key in data:
                    state[f"{ours.format(i)}.{part}"] = torch.from_numpy(data[key])
    head = BoxHead(16, 31, 30, width=32, prior_prob=0.001)
    model = TwoStageDetector(FinePyramid((8, 12, 16, 20), 16), RPNHead(16, 3), head, grid(), ProposalRule(25, 25, 80))
    model.load_state_dict(state)
    return model.eval()


def close(got, want):
    np.testing.assert_allclose(got.detach().numpy(), want, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_forward__stage_by_stage(golden):
    data = golden("two_stage_forward.npz")
    model = small_detector(data)
    features = model.backbone([torch.from_numpy(data[f"c{k}"]) for k in range(2, 6)])
    for k, feature in enumerate(features):
        close(feature, data[f"p{k + 2}"])
    objectness, deltas = model.rpn([torch.from_numpy(data[f"p{k}"]) for k in range(2, 7)])
    close(objectness, rows([data[f"objectness_lvl{k}"] for k in range(5)], 1))
    close(deltas, rows([data[f"deltas_lvl{k}"] for k in range(5)], 4))
    rois = torch.from_numpy(data["rois"])
    aligned = roi_align(features[:4], rois)
    close(aligned[:8], data["roi_features_first8"])
    np.testing.assert_allclose(aligned.double().sum(dim=(1, 2, 3)), data["roi_features_sum"], rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(aligned.double().square().sum(dim=(1, 2, 3)), data["roi_features_sqsum"], rtol=1e-4)


@torch.no_grad()
def test_forward__from_maps_to_logits(golden):
    data = golden("two_stage_forward.npz")
    model = small_detector(data)
    features = model.backbone([torch.from_numpy(data[f"c{k}"]) for k in range(2, 6)])
    objectness, deltas = model.rpn(features)
    priors = model.anchors([f.shape[-2:] for f in features])
    predictions = RegionPredictions(objectness, deltas, priors=priors, features=features, model=model)
    proposals = predictions.propose([tuple(s) for s in data["image_hw"].tolist()])
    for i, found in enumerate(proposals):
        np.testing.assert_allclose(found.boxes.numpy(), data[f"proposals{i}"][:, :4], atol=1e-3)
        np.testing.assert_allclose(found.scores.numpy(), data[f"proposals{i}"][:, 4], rtol=1e-4)
    logits, box_deltas = predictions.classify([p.boxes for p in proposals])
    close(logits, data["logits"])
    close(box_deltas, data["deltas"])


def test_start_values(golden):
    data = golden("two_stage_forward.npz")
    head = BoxHead(16, 31, 30, width=32, prior_prob=0.001)
    np.testing.assert_allclose(head.cls_pred.bias.detach().numpy(), data["initial_cls_bias"], rtol=1e-6)
    detections = golden("two_stage_detections.npz")
    for name, prior in (("softmax", None), ("eql", 0.001), ("eqlv2", 0.001), ("bags", None)):
        want = detections[f"{name}_initial_bias"]
        got = BoxHead(16, len(want), 30, width=32, prior_prob=prior).cls_pred.bias
        np.testing.assert_allclose(got.detach().numpy(), want, rtol=1e-6)
    torch.manual_seed(0)
    model = build_two_stage(30, 31, depth=18)
    deviations = {
        "rpn.conv": 0.01,
        "rpn.objectness": 0.01,
        "rpn.box": 0.01,
        "head.cls_pred": 0.01,
        "head.box_pred": 0.001,
        "head.shared.0": math.sqrt(2 / (12544 + 1024)),  # Xavier-uniform: variance 2 / (in + out)
        "head.shared.1": math.sqrt(2 / 2048),
        "backbone.fpn.output.0": math.sqrt(2 / (9 * 512)),
        "backbone.fpn.lateral.3": math.sqrt(2 / (512 + 256)),
    }
    for name, want in deviations.items():
        layer = model.get_submodule(name)
        assert layer.weight.std().item() == pytest.approx(want, rel=0.05), name
        assert (layer.bias == 0).all()


@pytest.mark.parametrize(
    ("depth", "classes", "outputs", "total"), [(50, 1203, 1204, 47_508_431), (101, 1203, 1204, 66_500_559)]
)
def test_parameters__of_the_published_models(depth, classes, outputs, total):
    with torch.device("meta"):
        model = build_two_stage(classes, outputs, depth)
    assert sum(p.numel() for p in model.parameters()) == total
    assert sum(p.numel() for p in model.parameters() if not p.requires_grad) == 225_344
    assert sum(p.numel() for p in model.head.box_pred.parameters()) == 4 * 1203 * 1025
