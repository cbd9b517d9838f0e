"""Whole-model outputs of official YOLOX, plain and depthwise, with its weights loaded strictly."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from yolox_lt.boxes import xyxy_to_cxcywh
from yolox_lt.models import build_yolox

STRIDES = (8, 16, 32)


def decode_by_hand(raw: np.ndarray, image_size: tuple[int, int]) -> np.ndarray:
    """cx = (dx + j) s, cy = (dy + i) s, w = exp(dw) s, h = exp(dh) s, cell by cell; raw and result [P, 4]."""
    rows = []
    for s in STRIDES:
        for i in range(image_size[0] // s):
            for j in range(image_size[1] // s):
                dx, dy, dw, dh = raw[len(rows)]
                rows.append(((dx + j) * s, (dy + i) * s, np.exp(dw) * s, np.exp(dh) * s))
    return np.array(rows)


@pytest.mark.parametrize(("name", "depthwise"), [("nano", True), ("w025_d033", False)])
def test_forward__official_weights(golden, name, depthwise):
    data = golden(f"yolox_forward_{name}.npz")
    model = build_yolox(80, 0.33, 0.25, depthwise=depthwise).eval()
    model.load_state_dict({k[2:]: torch.from_numpy(v) for k, v in data.items() if k.startswith("w/")}, strict=True)
    images = torch.from_numpy(data["input"])
    with torch.no_grad():
        features = model.backbone(images)
        predictions, priors = model(images)
    stats = [[f.double().mean(), f.double().std(), f.abs().max().double()] for f in features]
    np.testing.assert_allclose(np.array(stats), data["fpn_stats"], rtol=1e-3, atol=1e-4)

    raw = predictions.box_deltas[0].numpy()
    np.testing.assert_allclose(raw, data["output_undecoded_reg"][0], rtol=0, atol=2e-3)
    want = data["output"][0]
    np.testing.assert_allclose(predictions.quality_logits[0].sigmoid().numpy(), want[:, 4], rtol=0, atol=5e-4)
    np.testing.assert_allclose(predictions.cls_logits[0].sigmoid().numpy(), want[:, 5:], rtol=0, atol=5e-4)
    np.testing.assert_allclose(decode_by_hand(raw, (192, 256)), want[:, :4], rtol=2e-3, atol=2e-2)

    # The same through the priors: an offset in units of the prior's side, as the delta code has it.
    prior = xyxy_to_cxcywh(priors.boxes).numpy()
    decoded = np.concatenate([prior[:, :2] + raw[:, :2] * prior[:, 2:], np.exp(raw[:, 2:]) * prior[:, 2:]], axis=1)
    np.testing.assert_allclose(decoded, want[:, :4], rtol=2e-3, atol=2e-2)


def test_forward__batch_norm_eps_matters(golden):
    """The arrays were made to notice the framework's default eps; without this the test above would prove less."""
    data = golden("yolox_forward_w025_d033.npz")
    model = build_yolox(80, 0.33, 0.25).eval()
    model.load_state_dict({k[2:]: torch.from_numpy(v) for k, v in data.items() if k.startswith("w/")})
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eps = 1e-5
    with torch.no_grad():
        raw = model(torch.from_numpy(data["input"]))[0].box_deltas
    assert np.abs(raw.numpy() - data["output_undecoded_reg"]).max() > 2e-2
