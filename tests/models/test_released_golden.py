"""Every output, gradient and BatchNorm buffer of the released YOLOX network at width 0.25, depth 0.33.

The arrays are float32. In training mode they differ from a float64 run by 2.8e-4 (outputs up to 22) and 7e-5 of the
largest gradient, more than two correct float32 runs on one machine may; so that side is compared in float64.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.models.released_names import convert
from yolox_lt.models import Detector, build_yolox

C = 30
RTOL = ATOL = 1e-4
VALUES = {"cls": C, "reg": 4, "obj": 1}


def section(data: dict[str, np.ndarray], prefix: str) -> dict[str, Tensor]:
    """The entries `<prefix>::<released name>` under our names."""
    start = f"{prefix}::"
    return convert({k.removeprefix(start): torch.from_numpy(v) for k, v in data.items() if k.startswith(start)})


@pytest.fixture
def released(golden) -> tuple[Detector, Tensor, dict[str, np.ndarray]]:
    data = golden("efl_yolox_narrow.npz")
    model = build_yolox(C, 0.33, 0.25, num_anchors=2, anchor_scales=(3, 4), neck_shortcut=True, prior_prob=0.001)
    model.load_state_dict(section(data, "w"), strict=True)
    return model, torch.from_numpy(data["image"]).float(), data


def expected_rows(data: dict[str, np.ndarray], mode: str, output: str) -> np.ndarray:
    """Reference level maps with channel a*K + k, moved by explicit loops -> [B, P, K]."""
    k = VALUES[output]
    rows = []
    for level in range(3):
        level_map = data[f"{mode}_{output}_{level}"]
        _, channels, height, width = level_map.shape
        for i in range(height):
            for j in range(width):
                for a in range(channels // k):
                    rows.append(level_map[:, a * k : (a + 1) * k, i, j])
    return np.stack(rows, axis=1)


@pytest.mark.parametrize(("mode", "dtype", "atol"), [("eval", torch.float32, 1e-4), ("train", torch.float64, 5e-4)])
def test_forward__head_outputs(released, mode, dtype, atol):
    model, images, data = released
    model, images = model.to(dtype).train(mode == "train"), images.to(dtype)
    with torch.no_grad():
        predictions, priors = model(images)
    quality = predictions.quality_logits
    for output, got in [("cls", predictions.cls_logits), ("reg", predictions.box_deltas), ("obj", quality[..., None])]:
        np.testing.assert_allclose(got.numpy(), expected_rows(data, mode, output), rtol=RTOL, atol=atol, err_msg=output)
    assert quality.shape == (2, len(priors.boxes))


def test_forward__backbone_and_neck_outputs(released):
    model, images, data = released
    model.eval()
    with torch.no_grad():
        backbone, neck = model.backbone.backbone(images), model.backbone(images)
    for level in range(3):
        for name, got in [("backbone", backbone[level]), ("neck", neck[level])]:
            np.testing.assert_allclose(got.numpy(), data[f"eval_{name}_{level}"], rtol=RTOL, atol=ATOL)


def test_backward__gradients_and_batch_norm_buffers(released):
    model, images, data = released
    predictions, priors = model.double().train()(images.double())
    total = torch.zeros((), dtype=torch.float64)
    for output in (predictions.cls_logits, predictions.box_deltas, predictions.quality_logits):
        for level in output.split(priors.level_sizes, dim=1):
            total = total + level.square().mean()
    total.backward()
    np.testing.assert_allclose(total.item(), data["train_scalar"], rtol=RTOL)

    parameters = dict(model.named_parameters())
    gradients = section(data, "train_grad")
    assert len(gradients) == 5
    for name, want in gradients.items():
        atol = 1e-4 * want.abs().max().item()
        np.testing.assert_allclose(parameters[name].grad.numpy(), want.numpy(), rtol=1e-3, atol=atol, err_msg=name)

    state = model.state_dict()
    buffers = section(data, "train_after")
    assert len(buffers) == 6
    for name, want in buffers.items():
        np.testing.assert_allclose(state[name].numpy(), want.numpy(), rtol=RTOL, atol=1e-6, err_msg=name)


def test_neck_shortcut__absent_gives_other_outputs(released):
    """The shortcut has no parameters, so only numbers can tell whether it is on."""
    model, images, data = released
    official_neck = build_yolox(C, 0.33, 0.25, num_anchors=2, anchor_scales=(3, 4), neck_shortcut=False)
    official_neck.load_state_dict(model.state_dict(), strict=True)
    official_neck.eval()
    with torch.no_grad():
        backbone, neck = official_neck.backbone.backbone(images), official_neck.backbone(images)
    np.testing.assert_allclose(backbone[2].numpy(), data["eval_backbone_2"], rtol=RTOL, atol=ATOL)
    assert np.abs(neck[0].numpy() - data["eval_neck_0"]).max() > 1e-2


def test_prior_bias__released_start_values(golden):
    data = golden("efl_yolox_narrow.npz")
    head = build_yolox(C, 0.33, 0.25, num_anchors=2, anchor_scales=(3, 4), prior_prob=0.001).head
    for level in range(3):
        np.testing.assert_allclose(head.cls_preds[level].bias.detach().numpy(), data["init_cls_bias"], rtol=1e-6)
        np.testing.assert_allclose(head.obj_preds[level].bias.detach().numpy(), data["init_obj_bias"], rtol=1e-6)
