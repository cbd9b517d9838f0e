"""Blocks against the formula they stand for."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from yolox_lt.errors import UserError
from yolox_lt.models.blocks import (
    Bottleneck,
    ConvBlock,
    CSPLayer,
    DepthwiseConvBlock,
    Focus,
    SPPBottleneck,
    fuse_conv_bn,
    make_activation,
    scale_channels,
)


def randomize_batch_norm(model: nn.Module, seed: int = 0) -> None:
    """Weights and running statistics far from the start values, so that ignoring one of them shows."""
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor, low in [(module.weight, 0.5), (module.bias, -0.5), (module.running_mean, -0.5)]:
                tensor.data.uniform_(low, low + 1.0, generator=generator)
            module.running_var.uniform_(0.01, 1.0, generator=generator)


def test_focus__channel_groups_top_left_bottom_left_top_right_bottom_right():
    focus = Focus(1, 4, 1).eval()
    focus.conv.conv.weight.data = torch.eye(4)[:, :, None, None]  # output channel k = input channel k
    focus.conv.bn = focus.conv.act = nn.Identity()
    image = torch.tensor([[1.0, 2.0, 5.0, 6.0], [3.0, 4.0, 7.0, 8.0]])[None, None]  # [1, 1, 2, 4]
    assert focus(image)[0, :, 0].tolist() == [[1, 5], [3, 7], [2, 6], [4, 8]]


def test_focus__colours_stay_together_within_a_group():
    focus = Focus(3, 12, 1).eval()
    focus.conv.conv.weight.data = torch.eye(12)[:, :, None, None]
    focus.conv.bn = focus.conv.act = nn.Identity()
    image = torch.arange(12.0).reshape(1, 3, 2, 2)  # colour c: 4c + (0 1 / 2 3)
    assert focus(image).flatten().tolist() == [0, 4, 8, 2, 6, 10, 1, 5, 9, 3, 7, 11]


@pytest.mark.parametrize(("stride", "kernel_size"), [(1, 3), (2, 3), (1, 1)])
def test_conv_block__convolution_batch_norm_activation(stride, kernel_size):
    block = ConvBlock(3, 5, kernel_size, stride).eval()
    randomize_batch_norm(block)
    x = torch.randn(2, 3, 7, 9, generator=torch.Generator().manual_seed(1))
    conv, bn = block.conv, block.bn
    y = F.conv2d(x, conv.weight, stride=stride, padding=kernel_size // 2)
    y = (y - bn.running_mean[:, None, None]) / (bn.running_var[:, None, None] + 1e-3).sqrt()
    y = y * bn.weight[:, None, None] + bn.bias[:, None, None]
    torch.testing.assert_close(block(x), y * y.sigmoid(), rtol=1e-4, atol=1e-5)
    assert block(x).shape[-2:] == (-(-7 // stride), -(-9 // stride))
    assert conv.bias is None


def test_batch_norm__momentum_of_a_training_step():
    block = ConvBlock(1, 1, 1)
    nn.init.ones_(block.conv.weight)
    block(torch.tensor([1.0, 3.0]).reshape(1, 1, 1, 2))  # mean 2, variance (divisor n - 1) 2
    assert block.bn.running_mean.item() == pytest.approx(0.03 * 2)
    assert block.bn.running_var.item() == pytest.approx(0.97 + 0.03 * 2)


def test_activation__names_and_values():
    x = torch.tensor([-2.0, 3.0])
    assert make_activation("relu")(x.clone()).tolist() == [0, 3]
    torch.testing.assert_close(make_activation("lrelu")(x.clone()), torch.tensor([-0.2, 3.0]))
    torch.testing.assert_close(make_activation("silu")(x.clone()), x / (1 + torch.exp(-x)))
    with pytest.raises(UserError, match=r"'gelu'.*silu, relu, lrelu"):
        make_activation("gelu")


def test_blocks__leave_their_input_alone():
    x = torch.randn(2, 4, 6, 6, generator=torch.Generator().manual_seed(0))
    before = x.clone()
    for block in (
        ConvBlock(4, 4, 3, act="relu"),
        DepthwiseConvBlock(4, 4, 3),
        Bottleneck(4, shortcut=True),
        CSPLayer(4, 4, 1),
        CSPLayer(4, 4, 0),
        SPPBottleneck(4, 4),
        Focus(4, 4, 3),
    ):
        block(x)
        assert torch.equal(x, before), type(block).__name__


def test_depthwise__one_filter_per_channel_then_1x1():
    block = DepthwiseConvBlock(4, 6, 3, 2)
    assert block.dconv.conv.weight.shape == (4, 1, 3, 3)
    assert block.pconv.conv.weight.shape == (6, 4, 1, 1)
    assert block(torch.zeros(2, 4, 8, 6)).shape == (2, 6, 4, 3)


def test_bottleneck__shortcut_adds_the_input():
    block = Bottleneck(4, shortcut=True).eval()
    x = torch.randn(1, 4, 5, 5, generator=torch.Generator().manual_seed(0))
    with_shortcut = block(x)
    block.shortcut = False
    torch.testing.assert_close(with_shortcut, block(x) + x)


def test_csp_layer__bottleneck_branch_comes_first():
    layer = CSPLayer(4, 6, 2).eval()
    assert [tuple(p.shape[:2]) for n, p in layer.named_parameters() if n.startswith("conv") and p.ndim == 4] == [
        (3, 4),
        (3, 4),
        (6, 6),
    ]
    x = torch.randn(1, 4, 5, 5, generator=torch.Generator().manual_seed(0))
    want = layer.conv3(torch.cat([layer.m[1](layer.m[0](layer.conv1(x))), layer.conv2(x)], dim=1))
    torch.testing.assert_close(layer(x), want)


def test_spp__equals_5_9_13_maxima():
    block = SPPBottleneck(8, 8).eval()
    x = torch.randn(2, 8, 11, 20, generator=torch.Generator().manual_seed(0))
    y = block.conv1(x)
    want = block.conv2(torch.cat([y] + [F.max_pool2d(y, k, 1, k // 2) for k in (5, 9, 13)], dim=1))
    assert torch.equal(block(x), want)


@pytest.mark.parametrize("width", [0.25, 0.375, 0.5, 0.75, 1.0, 1.25, 0.125, 0.0625])
def test_scale_channels__official_rule(width):
    assert [scale_channels(c, width) for c in (64, 256, 512, 1024)] == [int(c * width) for c in (64, 256, 512, 1024)]


def test_scale_channels__levels_fit_together_at_any_width():
    assert [scale_channels(c, 0.3) for c in (64, 256, 512, 1024)] == [19, 76, 152, 304]  # int(c * 0.3) has 153, 307
    with pytest.raises(UserError, match=r"width is 0.01"):
        scale_channels(64, 0.01)


@pytest.mark.parametrize("block", [ConvBlock(4, 6, 3, 2), DepthwiseConvBlock(4, 6, 3), CSPLayer(4, 6, 2, act="lrelu")])
def test_fuse_conv_bn__same_outputs_without_batch_norm(block):
    randomize_batch_norm(block)
    block.train()
    before = {name: tensor.clone() for name, tensor in block.state_dict().items()}
    fused = fuse_conv_bn(block)
    x = torch.randn(2, 4, 9, 7, generator=torch.Generator().manual_seed(2))
    assert not any(isinstance(module, nn.BatchNorm2d) for module in fused.modules())
    assert not fused.training
    assert block.training
    assert all(torch.equal(before[name], tensor) for name, tensor in block.state_dict().items())
    torch.testing.assert_close(fused(x), block.eval()(x), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(fuse_conv_bn(fused)(x), fused(x), rtol=0, atol=0)
