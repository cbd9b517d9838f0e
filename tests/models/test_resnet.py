"""ResNet and FPN: features against torchvision's own forward, start values, frozen parts, weight files."""

from __future__ import annotations

import copy
import urllib.request
from pathlib import Path

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F

from tests.models.test_blocks import randomize_batch_norm
from yolox_lt.errors import UserError
from yolox_lt.models import build_resnet
from yolox_lt.models.resnet_fpn import FPN, ResNetFPN, load_backbone

STAGES = ["stem", "layer1", "layer2", "layer3", "layer4"]
RESNET18_FILE = "resnet18-f37072fd.pth"


def small_model(seed: int = 0, **options: object) -> ResNetFPN:
    torch.manual_seed(seed)
    model = ResNetFPN(18, 32, **options)
    randomize_batch_norm(model)
    return model


def stage_of(name: str) -> str:
    """Stage of a parameter or module of `resnet`."""
    first = name.split(".")[0]
    return "stem" if first in ("conv1", "bn1") else first


def batch_norms(model: ResNetFPN) -> dict[str, nn.BatchNorm2d]:
    return {name: module for name, module in model.resnet.named_modules() if isinstance(module, nn.BatchNorm2d)}


# Features


@pytest.mark.parametrize("size", [(64, 96), (65, 33), (20, 33), (127, 50)])
@pytest.mark.parametrize("depth", [18, 50])
def test_resnet__features_equal_torchvision_bit_for_bit(depth, size):
    torch.manual_seed(0)
    model = ResNetFPN(depth).eval()
    randomize_batch_norm(model)
    reference = torchvision.models.get_model(f"resnet{depth}", weights=None).eval()
    missing, unexpected = reference.load_state_dict(model.resnet.state_dict(), strict=False)
    assert (missing, unexpected) == (["fc.weight", "fc.bias"], [])
    seen: list[Tensor] = []
    for layer in (reference.layer2, reference.layer3, reference.layer4):
        layer.register_forward_hook(lambda module, args, output: seen.append(output))
    images = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        reference(images)
        features = model.resnet_features(images)
    for level, (got, want) in enumerate(zip(features, seen, strict=True)):
        assert torch.equal(got, want)
        stride = 8 << level
        assert got.shape[-2:] == (-(-size[0] // stride), -(-size[1] // stride))


def test_forward__five_levels_of_the_features():
    model = small_model().eval()
    images = torch.randn(1, 3, 20, 33, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        levels = model(images)
        want = model.fpn(model.resnet_features(images))
    assert [tuple(level.shape) for level in levels] == [
        (1, 32, h, w) for h, w in [(3, 5), (2, 3), (1, 2), (1, 1), (1, 1)]
    ]
    assert all(torch.equal(a, b) for a, b in zip(levels, want, strict=True))


def test_fpn__by_formula_at_odd_sizes():
    torch.manual_seed(0)
    fpn = FPN((2, 3, 4), 5)
    for conv in fpn.modules():
        if isinstance(conv, nn.Conv2d):
            nn.init.normal_(conv.bias)
    c3, c4, c5 = torch.randn(1, 2, 7, 9), torch.randn(1, 3, 4, 5), torch.randn(1, 4, 2, 3)

    def nearest(x: Tensor, height: int, width: int) -> Tensor:
        """Pixel (i, j) from (i h / H, j w / W), rounded down."""
        rows = torch.arange(height) * x.shape[2] // height
        columns = torch.arange(width) * x.shape[3] // width
        return x[:, :, rows][:, :, :, columns]

    def conv(module: nn.Conv2d, x: Tensor, stride: int = 1) -> Tensor:
        return F.conv2d(x, module.weight, module.bias, stride=stride, padding=module.weight.shape[-1] // 2)

    m5 = conv(fpn.lateral[2], c5)
    m4 = conv(fpn.lateral[1], c4) + nearest(m5, 4, 5)
    m3 = conv(fpn.lateral[0], c3) + nearest(m4, 7, 9)
    p6 = conv(fpn.extra[0], m5, stride=2)
    want = [conv(fpn.output[0], m3), conv(fpn.output[1], m4), conv(fpn.output[2], m5), p6, conv(fpn.extra[1], p6, 2)]
    for got, expected in zip(fpn([c3, c4, c5]), want, strict=True):
        torch.testing.assert_close(got, expected)


def test_fpn__p6_depends_on_the_coarsest_lateral_only():
    torch.manual_seed(0)
    fpn = FPN((2, 3, 4), 5)
    maps = [torch.randn(1, c, 16 >> i, 16 >> i, requires_grad=True) for i, c in enumerate((2, 3, 4))]
    for level in (3, 4):
        gradients = torch.autograd.grad(
            fpn(maps)[level].sum(), [*maps, *fpn.output.parameters(), *fpn.lateral.parameters()], allow_unused=True
        )
        used = [gradient is not None for gradient in gradients]
        assert used == [False, False, True] + [False] * 6 + [False] * 4 + [True] * 2


def test_fpn__start_values():
    torch.manual_seed(0)
    fpn = FPN((128, 256, 512), 64)
    convs = [module for module in fpn.modules() if isinstance(module, nn.Conv2d)]
    assert len(convs) == 8
    for conv in convs:
        assert not conv.bias.any()
        out_channels, in_channels, height, width = conv.weight.shape
        want = (2 / ((in_channels + out_channels) * height * width)) ** 0.5  # Glorot and Bengio, normal
        assert conv.weight.std().item() == pytest.approx(want, rel=0.05)
        assert conv.weight.abs().max() > 3 * want  # a uniform draw ends at 1.73


# Frozen parts


@pytest.mark.parametrize("trainable_layers", range(6))
def test_trainable_layers__counted_from_the_last(trainable_layers):
    model = small_model(trainable_layers=trainable_layers)
    trained = {stage_of(name) for name, p in model.resnet.named_parameters() if p.requires_grad}
    frozen = {stage_of(name) for name, p in model.resnet.named_parameters() if not p.requires_grad}
    assert trained == set(STAGES[5 - trainable_layers :])
    assert frozen == set(STAGES[: 5 - trainable_layers])
    assert all(p.requires_grad for p in model.fpn.parameters())


@pytest.mark.parametrize("trainable_layers", [0, 3, 5])
@pytest.mark.parametrize("freeze_bn", [True, False])
def test_train__modes(trainable_layers, freeze_bn):
    model = build_resnet(3, depth=18, channels=32, trainable_layers=trainable_layers, freeze_bn=freeze_bn)
    learning = set() if freeze_bn else set(STAGES[5 - trainable_layers :])

    def training_stages() -> set[str]:
        return {stage_of(name) for name, norm in batch_norms(model.backbone).items() if norm.training}

    assert training_stages() == learning  # as built
    assert model.eval() is model
    assert not any(module.training for module in model.modules())
    assert model.train() is model
    assert training_stages() == learning
    assert model.backbone.training
    assert model.backbone.resnet.layer1.training
    assert copy.deepcopy(model).train(True).backbone.train(False).training is False


@pytest.mark.parametrize("freeze_bn", [True, False])
def test_training_step__changes_what_is_trained_and_nothing_else(freeze_bn):
    model = small_model(freeze_bn=freeze_bn).train()
    before = {name: tensor.clone() for name, tensor in model.resnet.state_dict().items()}
    optimizer = torch.optim.SGD((p for p in model.parameters() if p.requires_grad), lr=0.1, weight_decay=1e-4)
    images = torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(1))
    sum(level.square().mean() for level in model(images)).backward()
    optimizer.step()
    after = model.resnet.state_dict()
    changed = {name for name in after if not torch.equal(after[name], before[name])}

    learning = {name for name in after if stage_of(name) in ("layer2", "layer3", "layer4")}
    parameters = {name for name, _ in model.resnet.named_parameters()}
    assert changed & parameters == learning & parameters  # BatchNorm weights and biases among them
    assert "layer2.0.bn1.weight" in changed
    assert changed - parameters == (set() if freeze_bn else learning - parameters)


def test_build__other_values_are_refused():
    with pytest.raises(UserError, match=r"depth is 42: choose one of 18, 34, 50, 101, 152"):
        ResNetFPN(42)
    for layers in (-1, 6):
        with pytest.raises(UserError, match=rf"trainable_layers is {layers}: give 0 to 5"):
            ResNetFPN(18, trainable_layers=layers)
    with pytest.raises(UserError, match="channels 0"):
        ResNetFPN(18, 0)


# Weight files


def torchvision_state(depth: int = 18) -> dict[str, Tensor]:
    """What a file of torchvision holds, classifier included."""
    torch.manual_seed(5)
    reference = torchvision.models.get_model(f"resnet{depth}", weights=None)
    randomize_batch_norm(reference, seed=5)
    return dict(reference.state_dict())


def wrapped(state: dict[str, Tensor], form: str) -> dict[str, object]:
    if form == "module":
        return {f"module.{key}": value for key, value in state.items()}
    if form == "old":
        return {key: value for key, value in state.items() if not key.endswith("num_batches_tracked")}
    return {form: state, "epoch": 3} if form in ("model", "state_dict") else dict(state)


@pytest.mark.parametrize("form", ["plain", "model", "state_dict", "module", "old"])
def test_load_backbone__local_file(tmp_path, form):
    state = torchvision_state()
    torch.save(wrapped(state, form), tmp_path / "resnet.pth")
    model = small_model()
    fpn = {name: tensor.clone() for name, tensor in model.fpn.state_dict().items()}
    load_backbone(model, tmp_path / "resnet.pth")
    loaded = model.resnet.state_dict()
    assert set(state) - set(loaded) == {"fc.weight", "fc.bias"}
    assert all(torch.equal(loaded[name], state[name]) for name in loaded)
    assert all(torch.equal(tensor, fpn[name]) for name, tensor in model.fpn.state_dict().items())
    assert [p.requires_grad for p in model.resnet.conv1.parameters()] == [False]


def test_load_backbone__format_before_zip_archives(tmp_path):
    state = torchvision_state()
    path = tmp_path / "resnet.pth"
    torch.save(state, path, _use_new_zipfile_serialization=False)  # older torchvision files have it
    model = small_model()
    load_backbone(model, str(path))
    assert torch.equal(model.resnet.conv1.weight, state["conv1.weight"])


def assert_refused(model: ResNetFPN, weights: str | Path, message: str) -> None:
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(UserError, match=message):
        load_backbone(model, weights)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize(
    ("depth", "problem"),
    [
        (34, r"unknown layer1\.2\.conv1\.weight"),
        (50, r"unknown layer1\.0\.conv3\.weight"),
    ],
)
def test_load_backbone__another_depth_is_refused(tmp_path, depth, problem):
    torch.save(torchvision_state(depth), tmp_path / "other.pth")
    message = rf"other\.pth: not the weights of a ResNet-18 \({problem}; \d+ differences\); give a file of that depth"
    assert_refused(small_model(), tmp_path / "other.pth", message)


def test_load_backbone__a_shallower_file_is_refused(tmp_path):
    torch.save(torchvision_state(18), tmp_path / "other.pth")
    model = ResNetFPN(34, 32)
    assert_refused(model, tmp_path / "other.pth", r"a ResNet-34 \(no layer1\.2\.conv1\.weight; \d+ differences\)")


def test_load_backbone__one_wrong_shape_is_refused(tmp_path):
    state = torchvision_state()
    state["layer4.1.conv2.weight"] = torch.zeros(512, 512, 1, 1)
    torch.save(state, tmp_path / "r18.pth")
    message = r"layer4\.1\.conv2\.weight is \(512, 512, 1, 1\) instead of \(512, 512, 3, 3\); 1 differences"
    assert_refused(small_model(), tmp_path / "r18.pth", message)


def test_load_backbone__unreadable_files_are_refused(tmp_path):
    model = small_model()
    assert_refused(model, tmp_path / "none.pth", r"none\.pth: backbone weights not found.*backbone_weights")
    assert_refused(model, tmp_path, "backbone weights not found")
    torch.save(torchvision_state(), tmp_path / "whole.pth")
    contents = {
        "text.pth": b"conv1.weight: 0.1\n",
        "empty.pth": b"",
        "half.pth": (tmp_path / "whole.pth").read_bytes()[:100_000],
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
        assert_refused(model, tmp_path / name, rf"{name}: not a readable file of weights \(.+\); give a torchvision")
    torch.save(nn.Linear(2, 2), tmp_path / "module.pth")  # would execute code
    assert_refused(model, tmp_path / "module.pth", r"module\.pth: not a readable file of weights")
    for content in ([1, 2], {"epoch": 3}, {"model": {"conv1.weight": [0.1]}}):
        torch.save(content, tmp_path / "other.pth")
        assert_refused(model, tmp_path / "other.pth", r"other\.pth: holds no state dict")


def test_load_backbone__imagenet_from_the_folder_of_torch_hub(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    state = torchvision_state()
    torch.save(state, folder / RESNET18_FILE)
    model = small_model()
    load_backbone(model, "imagenet")
    assert torch.equal(model.resnet.layer4[1].conv2.weight, state["layer4.1.conv2.weight"])

    (folder / RESNET18_FILE).write_bytes(b"half a download")
    assert_refused(model, "imagenet", rf"{RESNET18_FILE}: the ImageNet weights could not be fetched or read")


def test_load_backbone__imagenet_without_network(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    # A proxy at which nobody listens: the request fails at once, with or without a network.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({"https": "http://127.0.0.1:9"}))
    monkeypatch.setattr(urllib.request, "_opener", opener)
    message = (
        r"^https://download\.pytorch\.org/models/resnet18-f37072fd\.pth: the ImageNet weights could not be fetched or "
        r"read \(.*refused.*\); give a local file \(backbone_weights PATH\), or backbone_weights None to start from "
        r"random weights\.$"
    )
    assert_refused(small_model(), "imagenet", message)
