"""BatchNorm folded into convolutions: the same function with fewer layers, for every detector of both families."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from yolox_lt.models import build_resnet, build_yolox, fuse_conv_bn


def randomize_batch_norm(model: nn.Module) -> None:
    """Weights and statistics away from the start values, so that ignoring one of them shows."""
    generator = torch.Generator().manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor, low in [(module.weight, 0.8), (module.bias, -0.2), (module.running_mean, -0.2)]:
                tensor.data.uniform_(low, low + 0.4, generator=generator)
            module.running_var.uniform_(0.8, 1.2, generator=generator)


def norms(model: nn.Module) -> int:
    return sum(isinstance(module, nn.BatchNorm2d) for module in model.modules())


@pytest.mark.parametrize(("depth", "count"), [(18, 20), (50, 53)])  # basic blocks; bottlenecks
def test_resnet__folds_stem_blocks_and_shortcuts(depth, count):
    model = build_resnet(3, depth, channels=32).eval()
    randomize_batch_norm(model)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    fused = fuse_conv_bn(model)
    assert (norms(model), norms(fused)) == (count, 0)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    images = torch.randn(2, 3, 66, 95, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        for ours, theirs in zip(fused.backbone.resnet_features(images), model.backbone.resnet_features(images)):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4 * theirs.abs().max().item())
        predictions, _ = fused(images)
        want, _ = model(images)
    torch.testing.assert_close(predictions.cls_logits, want.cls_logits, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(predictions.box_deltas, want.box_deltas, rtol=1e-3, atol=1e-3)


def test_resnet__stem_by_the_formula():
    model = build_resnet(1, 18, channels=32).eval()
    randomize_batch_norm(model)
    stem, norm = model.backbone.resnet.conv1, model.backbone.resnet.bn1
    images = torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    y = F.conv2d(images, stem.weight, stride=2, padding=3)
    y = (y - norm.running_mean[:, None, None]) / (norm.running_var[:, None, None] + 1e-5).sqrt()
    want = y * norm.weight[:, None, None] + norm.bias[:, None, None]
    torch.testing.assert_close(fuse_conv_bn(model).backbone.resnet.conv1(images), want, rtol=1e-4, atol=1e-5)


def test_resnet__training_mode_can_be_set_after_folding():
    fused = fuse_conv_bn(build_resnet(1, 18, channels=32)).train()
    assert norms(fused) == 0
    assert fused.training


def test_yolox__nothing_is_left_to_normalise():
    model = build_yolox(2, 0.33, 0.125, depthwise=True)
    fused = fuse_conv_bn(model)
    assert norms(fused) == 0 < norms(model)
    assert all(conv.bias is not None for conv in fused.modules() if isinstance(conv, nn.Conv2d))
