"""Box arithmetic and coders: golden arrays of both references, hand-worked cases."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from yolox_lt import boxes as box_ops
from yolox_lt.coders import DeltaCoder, grid_coder
from yolox_lt.losses import giou_loss, square_iou_loss


@pytest.fixture(params=["aligned", "legacy"])
def setting(request):
    return request.param


def tensors(data, *names, dtype=torch.float32):
    return [torch.from_numpy(data[n]).to(dtype) for n in names]


def test_golden__decode_encode_clip(golden, setting):
    data = golden("boxes.npz")
    coder, pixel = DeltaCoder(), torch.tensor([0, 0, 1, 1]) * (setting == "legacy")
    boxes, deltas, gt = tensors(data, "boxes", "deltas", "gt")
    boxes, gt = boxes + pixel, gt + pixel  # the arrays' last pixel is x2, ours lies one further
    decoded = coder.decode(boxes, deltas)
    np.testing.assert_allclose((decoded - pixel).numpy(), data[f"{setting}_decoded"], rtol=1e-5, atol=1e-3)
    np.testing.assert_allclose(coder.encode(boxes, gt).numpy(), data[f"{setting}_encoded"], rtol=1e-4, atol=1e-5)
    back = coder.decode(boxes, coder.encode(boxes, gt))
    np.testing.assert_allclose((back - pixel).numpy(), data[f"{setting}_decode_of_encoded"], rtol=1e-5, atol=1e-3)
    if setting == "aligned":
        clipped = box_ops.clip(decoded, tuple(data["clip_hw"].tolist()))
        np.testing.assert_allclose(clipped.numpy(), data["aligned_clipped"], rtol=1e-5, atol=1e-3)


def test_golden__iou_of_pairs_and_matrix(golden, setting):
    data = golden("boxes.npz")
    legacy = setting == "legacy"
    boxes, gt = tensors(data, "boxes", "gt")
    np.testing.assert_allclose(
        box_ops.iou(boxes, gt, legacy).numpy(), data[f"{setting}_pair_iou"], rtol=1e-5, atol=1e-6
    )
    matrix = box_ops.pairwise_iou(boxes[:40], gt[:30], legacy, min_union=float(legacy))
    np.testing.assert_allclose(matrix.numpy(), data[f"{setting}_matrix_iou"], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("precision", "dtype", "rtol"), [("f64", torch.float64, 1e-9), ("f32", torch.float32, 1e-4)])
def test_golden__giou_loss_and_gradient(golden, setting, precision, dtype, rtol):
    data = golden("boxes.npz")
    boxes, gt = (
        t + torch.tensor([0, 0, 1, 1]) * (setting == "legacy") for t in tensors(data, "boxes", "gt", dtype=dtype)
    )
    boxes.requires_grad_()
    loss = giou_loss(boxes, gt)
    loss.sum().backward()
    np.testing.assert_allclose(
        loss.detach().numpy(), data[f"{setting}_giou_loss_{precision}"], rtol=rtol, atol=rtol / 100
    )
    want = data[f"{setting}_giou_grad_{precision}"]
    np.testing.assert_allclose(boxes.grad.numpy(), want, rtol=rtol, atol=rtol * 1e-2 * np.abs(want).max())


def test_golden__weighted_giou_through_the_coder_with_and_without_l1(golden, setting):
    data = golden("boxes.npz")
    coder, pixel = DeltaCoder(), torch.tensor([0, 0, 1, 1]) * (setting == "legacy")
    boxes, deltas, gt, weights = tensors(data, "boxes", "deltas", "gt", "weights")
    boxes, gt = boxes + pixel, gt + pixel
    rows = [i for i in range(len(boxes)) if i != 9]  # row 9 is smaller than a pixel: the reference leaves it out
    boxes, gt, weights = boxes[rows], gt[rows], weights[rows]
    for name, with_l1 in (("weighted_giou_module", False), ("compose", True)):
        free = deltas.clone().requires_grad_()
        target = coder.encode(boxes, gt)
        decoded = coder.decode(boxes, free[rows])
        loss = (weights * giou_loss(decoded, coder.decode(boxes, target))).sum() / weights.sum()
        if with_l1:
            loss = loss + (free[rows] - target).abs().mean()
        loss.backward()
        np.testing.assert_allclose(loss.item(), data[f"{setting}_{name}_loss"], rtol=1e-5)
        want = data[f"{setting}_{name}_grad"]
        np.testing.assert_allclose(free.grad.numpy(), want, rtol=1e-4, atol=1e-6 * np.abs(want).max())


def test_golden_yolox__iou_and_losses(golden):
    data = golden("yolox_boxes.npz")
    a, b = (box_ops.cxcywh_to_xyxy(t) for t in tensors(data, "boxes_a_cxcywh", "boxes_b_cxcywh"))
    for name in ("iou_cxcywh", "iou_xyxy"):
        np.testing.assert_allclose(box_ops.pairwise_iou(a, b).numpy(), data[name], rtol=1e-4, atol=1e-6)
    for name, function in (("iou", square_iou_loss), ("giou", lambda p, t: giou_loss(p, t))):
        pred, target = tensors(data, "pred", "target")
        pred.requires_grad_()
        loss = function(box_ops.cxcywh_to_xyxy(pred), box_ops.cxcywh_to_xyxy(target))
        loss.sum().backward()
        np.testing.assert_allclose(loss.detach().numpy(), data[f"loss_{name}"], rtol=1e-4, atol=1e-5)
        want = data[f"grad_{name}"]
        np.testing.assert_allclose(pred.grad.numpy(), want, rtol=1e-3, atol=1e-5 * max(1, np.abs(want).max()))


def test_grid_coder__is_the_yolox_decoding():
    # Cell (row 2, column 3) of stride 8: centre = (3 + .25) * 8, (2 - .5) * 8; size = e * 8, 1 * 8.
    prior = torch.tensor([[20.0, 12.0, 28.0, 20.0]])  # around the corner (24, 16)
    decoded = grid_coder().decode(prior, torch.tensor([[0.25, -0.5, 1.0, 0.0]]))
    cx, cy, w, h = 26.0, 12.0, 8 * np.e, 8.0
    np.testing.assert_allclose(decoded.numpy()[0], [cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2], rtol=1e-6)


def test_decode__caps_growth_from_above_without_gradient():
    deltas = torch.tensor([[0.0, 0.0, 9.0, -9.0]], requires_grad=True)
    decoded = DeltaCoder().decode(torch.tensor([[0.0, 0.0, 16.0, 16.0]]), deltas)
    assert (decoded[0, 2] - decoded[0, 0]).item() == pytest.approx(1000, rel=1e-5)
    decoded.square().sum().backward()
    assert deltas.grad[0, 2] == 0
    assert deltas.grad[0, 3] != 0


def test_decode__half_precision_deltas_keep_whole_pixels():
    prior = torch.tensor([[1000.0, 1000.0, 1016.0, 1016.0]])
    decoded = DeltaCoder().decode(prior, torch.zeros(1, 4, dtype=torch.bfloat16))
    torch.testing.assert_close(decoded, prior)


def test_iou__boxes_without_area_and_disjoint_boxes_are_zero():
    point, box, far = torch.tensor([5.0, 5, 5, 5]), torch.tensor([0.0, 0, 10, 10]), torch.tensor([20.0, 20, 30, 30])
    assert box_ops.iou(point, point, min_union=0.0).item() == 0
    assert box_ops.iou(box, far).item() == 0
    assert box_ops.giou(box, far, min_union=1.0).item() == pytest.approx((200 - 900) / 900)


def test_conversions__there_and_back():
    boxes = torch.tensor([[1.0, 2, 5, 10], [0, 0, 1, 1]])
    torch.testing.assert_close(box_ops.xywh_to_xyxy(box_ops.xyxy_to_xywh(boxes)), boxes)
    torch.testing.assert_close(box_ops.cxcywh_to_xyxy(box_ops.xyxy_to_cxcywh(boxes)), boxes)
    assert box_ops.xyxy_to_cxcywh(boxes)[0].tolist() == [3, 6, 4, 8]
    assert box_ops.area(boxes).tolist() == [32, 1]
    assert box_ops.area(boxes, legacy=True).tolist() == [45, 4]
    assert box_ops.scale(boxes, 2.0, 0.5)[0].tolist() == [2, 1, 10, 5]
