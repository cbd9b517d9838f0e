"""The assembled model: accepted sizes; batched, fused and channels-last runs; what a state dict holds."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from tests.models.test_blocks import randomize_batch_norm
from yolox_lt.errors import UserError
from yolox_lt.models import AnchorGrid, Detector, build_yolox, fuse_conv_bn

C = 11


def small_model(**options: object) -> Detector:
    torch.manual_seed(0)
    model = build_yolox(C, 0.33, 0.125, num_anchors=2, anchor_scales=(3, 4), **options)
    randomize_batch_norm(model)
    return model.double().eval()  # float64: equalities below then hold to 1e-8 on any machine


def random_images(batch: int, height: int = 64, width: int = 96) -> Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.rand(batch, 3, height, width, generator=generator, dtype=torch.float64) * 255


def outputs(model: nn.Module, images: Tensor) -> list[Tensor]:
    with torch.no_grad():
        predictions, _ = model(images)
    return [predictions.cls_logits, predictions.box_deltas, predictions.quality_logits]


def assert_same(got: list[Tensor], want: list[Tensor]) -> None:
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-8)


def test_forward__predictions_and_priors_belong_together():
    model = small_model()
    predictions, priors = model(random_images(2))
    cells = [(8, 12), (4, 6), (2, 3)]
    assert priors.feature_sizes == cells
    assert priors.level_strides == [8, 16, 32]
    assert priors.level_sizes == [192, 48, 12]
    assert priors.boxes.shape == (252, 4)
    assert predictions.cls_logits.shape == (2, 252, C)
    assert predictions.box_deltas.shape == (2, 252, 4)
    assert predictions.quality_logits.shape == (2, 252)


@pytest.mark.parametrize(
    ("size", "suggestion"), [((65, 96), "96x96"), ((64, 97), "64x128"), ((48, 96), "64x96"), ((64, 80), "64x96")]
)
def test_forward__other_sizes_than_multiples_of_32_are_refused(size, suggestion):
    message = f"{size[0]}x{size[1]} pixels .* multiples of 32, for example {suggestion}"
    with pytest.raises(UserError, match=message):
        small_model()(torch.zeros(1, 3, *size))


def test_forward__smallest_and_oblong_sizes():
    model = small_model()
    for height, width in [(32, 32), (32, 160), (96, 32)]:
        _, priors = model(random_images(1, height, width))
        assert len(priors.boxes) == 2 * sum((height // s) * (width // s) for s in (8, 16, 32))


def test_forward__batched_equals_single():
    model = small_model()
    images = random_images(3)
    batched = outputs(model, images)
    for b in range(3):
        single = outputs(model, images[b : b + 1])
        assert_same([output[b : b + 1] for output in batched], single)
    assert not torch.allclose(batched[0][0], batched[0][1])


def test_forward__does_not_change_the_images():
    images = random_images(2)
    before = images.clone()
    outputs(small_model(), images)
    assert torch.equal(images, before)
    assert images.is_contiguous()


@pytest.mark.parametrize("depthwise", [False, True])
def test_channels_last__equals_contiguous(depthwise):
    model = small_model(depthwise=depthwise)
    images = random_images(2)
    seen = []
    model.backbone.register_forward_pre_hook(
        lambda _, args: seen.append(args[0].is_contiguous(memory_format=torch.channels_last))
    )
    last = outputs(model, images)
    weights_too = outputs(model.to(memory_format=torch.channels_last), images)
    model = model.to(memory_format=torch.contiguous_format)
    model.channels_last = False
    contiguous = outputs(model, images)
    assert seen == [True, True, False]
    assert_same(last, contiguous)
    assert_same(weights_too, contiguous)


@pytest.mark.parametrize("depthwise", [False, True])
def test_fuse_conv_bn__whole_model(depthwise):
    model = small_model(depthwise=depthwise)
    names = list(model.state_dict())
    fused = fuse_conv_bn(model)
    assert_same(outputs(fused, random_images(2)), outputs(model, random_images(2)))
    assert not any(isinstance(module, nn.BatchNorm2d) for module in fused.modules())
    assert list(model.state_dict()) == names


def test_state_dict__holds_nothing_of_the_anchors():
    names = small_model().state_dict()
    assert {name.split(".")[0] for name in names} == {"backbone", "head"}


def test_forward__training_after_inference_mode_at_the_same_size():
    """Priors made in inference mode must not be kept: a loss on them could not be differentiated."""
    model = small_model()
    with torch.inference_mode():
        model(random_images(2))
    predictions, priors = model.train()(random_images(2))
    (predictions.box_deltas * priors.boxes).sum().backward()
    assert model.backbone.backbone.stem.conv.conv.weight.grad.abs().sum() > 0


def test_build__defaults_are_official_yolox():
    model = build_yolox(3, 0.33, 0.125).eval()
    assert (model.anchors.strides, model.anchors.scales, model.anchors.legacy) == ([8, 16, 32], [1.0], False)
    assert model.head.num_anchors == 1
    assert not model.backbone.C3_p4.m[0].shortcut
    assert model.backbone.backbone.dark4[1].m[0].shortcut
    assert not model.backbone.backbone.dark5[2].m[0].shortcut


def test_build__neck_shortcut_reaches_all_four_layers():
    neck = build_yolox(3, 0.67, 0.125, neck_shortcut=True).backbone
    assert [b.shortcut for layer in (neck.C3_p4, neck.C3_p3, neck.C3_n3, neck.C3_n4) for b in layer.m] == [True] * 8
    assert not neck.backbone.dark5[2].m[0].shortcut


def test_build__activation_reaches_every_block():
    model = build_yolox(3, 0.33, 0.125, act="relu", depthwise=True)
    assert not any(isinstance(module, nn.SiLU) for module in model.modules())
    blocks = sum(1 for module in model.modules() if isinstance(module, nn.BatchNorm2d))
    assert sum(1 for module in model.modules() if isinstance(module, nn.ReLU)) == blocks


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_anchors": 2}, r"num_anchors is 2 but anchor_scales \[1\] has 1"),
        ({"anchor_scales": (3, 4)}, "num_anchors is 1"),
        ({"act": "mish"}, "act is 'mish'"),
        ({"prior_prob": 0.0}, "0.0.*between 0 and 1"),
        ({"depth": 0.0}, "depth is 0.0"),
        ({"width": 0.0}, "width is 0.0"),
        ({"num_classes": 0}, "num_classes is 0"),
    ],
)
def test_build__values_out_of_range_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        build_yolox(**{"num_classes": 3, "depth": 0.33, "width": 0.125, **options})


def test_forward__head_and_anchors_that_disagree_are_refused():
    model = build_yolox(3, 0.33, 0.125).eval()
    mixed = Detector(model.backbone, model.head, AnchorGrid((8, 16, 32), (3, 4))).eval()
    with pytest.raises(ValueError, match="predicts 21 boxes per image but there are 42 priors"):
        mixed(random_images(1, 32, 32).float())


def test_detector__size_divisor_of_another_backbone():
    model = small_model()
    strict = Detector(model.backbone, model.head, model.anchors, size_divisor=64)
    with pytest.raises(UserError, match="multiples of 64, for example 64x128"):
        strict(random_images(1, 64, 96))
