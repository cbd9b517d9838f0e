"""FPN, RetinaNet head and the whole ResNet detector: released outputs, names and channel layout."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.models.released_resnet_names import convert, our_name
from tests.models.test_blocks import randomize_batch_norm
from yolox_lt.errors import UserError
from yolox_lt.models import Detector, RetinaHead, build_resnet
from yolox_lt.models.resnet_fpn import FPN

C, A = 30, 2
RTOL = ATOL = 1e-4
VALUES = {"cls": C, "loc": 4, "iou": 1}
SIZES = [(3, 5), (2, 3), (1, 2), (2, 1), (1, 2)]  # not square, so that rows and columns cannot be exchanged unnoticed
LEVEL_ROWS = [rows * columns * A for rows, columns in SIZES]


def part_of(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}


@pytest.fixture
def released(golden) -> tuple[FPN, RetinaHead, dict[str, np.ndarray]]:
    data = golden("efl_retina_narrow.npz")
    state = convert({k.removeprefix("w::"): torch.from_numpy(v) for k, v in data.items() if k.startswith("w::")})
    assert len(state) == 46
    fpn, head = FPN((32, 48, 64), 64), RetinaHead(C, A, 64)
    fpn.load_state_dict(part_of(state, "backbone.fpn."), strict=True)
    head.load_state_dict(part_of(state, "head."), strict=True)
    return fpn, head, data


def expected_rows(data: dict[str, np.ndarray], output: str) -> np.ndarray:
    """Reference level maps with channel a*K + k, moved by explicit loops -> [B, P, K]."""
    k = VALUES[output]
    rows = []
    for level in range(5):
        level_map = data[f"{output}_{level}"]
        _, channels, height, width = level_map.shape
        for i in range(height):
            for j in range(width):
                for a in range(channels // k):
                    rows.append(level_map[:, a * k : (a + 1) * k, i, j])
    return np.stack(rows, axis=1)


def test_fpn__released_outputs(released):
    fpn, _, data = released
    with torch.no_grad():
        levels = fpn([torch.from_numpy(data[f"c{i}"]) for i in (3, 4, 5)])
    assert len(levels) == 5
    for i, level in enumerate(levels, start=3):
        np.testing.assert_allclose(level.numpy(), data[f"p{i}"], rtol=RTOL, atol=ATOL, err_msg=f"p{i}")


def test_head__released_outputs(released):
    _, head, data = released
    with torch.no_grad():
        predictions = head([torch.from_numpy(data[f"p{i}"]) for i in range(3, 8)])
    quality = predictions.quality_logits[..., None]
    for output, got in [("cls", predictions.cls_logits), ("loc", predictions.box_deltas), ("iou", quality)]:
        np.testing.assert_allclose(got.numpy(), expected_rows(data, output), rtol=RTOL, atol=ATOL, err_msg=output)


def test_head__released_start_values(released):
    data = released[2]
    head = RetinaHead(C, A, 64)
    np.testing.assert_allclose(head.cls_pred.bias.detach().numpy(), np.full(60, data["init_cls_bias"]), rtol=1e-6)
    np.testing.assert_array_equal(head.quality_pred.bias.detach().numpy(), np.full(2, data["init_iou_bias"]))
    assert data["init_iou_bias"] == 0
    assert not head.box_pred.bias.any()
    weights = torch.cat([m.weight.detach().flatten() for m in head.modules() if isinstance(m, nn.Conv2d)])
    assert weights.mean().item() == pytest.approx(0, abs=1e-4)  # 335,232 values: standard error 1.7e-5
    assert weights.std().item() == pytest.approx(0.01, rel=0.01)


def test_head__prior_probability_is_the_start_score():
    bias = RetinaHead(3, 1, 32, prior_prob=0.2).cls_pred.bias
    torch.testing.assert_close(bias.sigmoid(), torch.full((3,), 0.2))


def narrow_head(**options: Any) -> RetinaHead:
    torch.manual_seed(0)
    head = RetinaHead(C, A, 32, num_convs=2, **options)
    for conv in (head.cls_pred, head.box_pred, head.quality_pred):
        if conv is not None:
            nn.init.normal_(conv.weight, std=0.2)  # large enough to see every change downstream
    return head


def features(batch: int = 2) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(batch, 32, h, w, generator=generator) for h, w in SIZES]


@pytest.mark.parametrize("anchor", [0, 1])
@pytest.mark.parametrize("category", [0, 7, C - 1])
def test_cls_channel__changes_one_anchor_and_one_category_in_every_cell(anchor, category):
    head = narrow_head()
    with torch.no_grad():
        before = head(features())
        head.cls_pred.bias[anchor * C + category] += 1.0
        after = head(features())
    want = torch.zeros_like(before.cls_logits)
    want[:, anchor::A, category] = 1.0
    torch.testing.assert_close(after.cls_logits - before.cls_logits, want, rtol=0, atol=1e-5)
    assert torch.equal(after.box_deltas, before.box_deltas)
    assert torch.equal(after.quality_logits, before.quality_logits)


@pytest.mark.parametrize("anchor", [0, 1])
def test_box_and_quality_channels__anchor_major(anchor):
    head = narrow_head()
    with torch.no_grad():
        before = head(features())
        head.box_pred.bias[anchor * 4 + 3] += 1.0
        head.quality_pred.bias[anchor] += 2.0
        after = head(features())
    boxes, quality = torch.zeros_like(before.box_deltas), torch.zeros_like(before.quality_logits)
    boxes[:, anchor::A, 3] = 1.0
    quality[:, anchor::A] = 2.0
    torch.testing.assert_close(after.box_deltas - before.box_deltas, boxes, rtol=0, atol=1e-5)
    torch.testing.assert_close(after.quality_logits - before.quality_logits, quality, rtol=0, atol=1e-5)


@pytest.mark.parametrize("level", range(5))
def test_head__a_level_reaches_its_own_rows_only_finest_first(level):
    head = narrow_head()
    inputs = features()
    with torch.no_grad():
        before = head(inputs)
        inputs[level] = -inputs[level]
        after = head(inputs)
    start = sum(LEVEL_ROWS[:level])
    want = list(range(start, start + LEVEL_ROWS[level]))
    for name in ("cls_logits", "box_deltas", "quality_logits"):
        difference = (getattr(after, name) - getattr(before, name)).abs().reshape(2, sum(LEVEL_ROWS), -1)  # [B, P, K]
        changed = difference.amax(dim=(0, 2)) > 1e-4
        assert changed.nonzero().flatten().tolist() == want, name


def test_quality__comes_from_the_box_tower():
    head = narrow_head()
    with torch.no_grad():
        before = head(features())
        head.box_tower[4].bias += 0.5  # norm of the second convolution
        after = head(features())
    assert torch.equal(after.cls_logits, before.cls_logits)
    assert not torch.allclose(after.box_deltas, before.box_deltas, atol=1e-3)
    assert not torch.allclose(after.quality_logits, before.quality_logits, atol=1e-3)


def test_quality__absent():
    head = narrow_head(quality=False)
    predictions = head(features())
    assert predictions.quality_logits is None
    assert predictions.box_deltas.shape == (2, sum(LEVEL_ROWS), 4)
    assert not any("quality" in name for name in head.state_dict())


def test_head__one_value_per_group_is_normalised_to_zero():
    """A batch of one with a 1x1 map of 32 channels, as the coarsest level of a small model has it."""
    head = narrow_head()
    bias = head.box_tower[4].bias.detach().uniform_(0.5, 1.5)  # norm of the second convolution: all its output is
    with torch.no_grad():
        predictions = head([torch.randn(1, 32, 1, 1, generator=torch.Generator().manual_seed(2))])
    want = head.box_pred.weight.detach()[:, :, 1, 1] @ bias  # [8, 32] @ [32]; anchor-major, one cell
    torch.testing.assert_close(predictions.box_deltas[0].flatten(), want, rtol=1e-3, atol=1e-3)


def test_head__logits_keep_the_dtype_of_autocast():
    with torch.autocast("cpu", dtype=torch.bfloat16):
        predictions = narrow_head()(features())
    dtypes = {predictions.cls_logits.dtype, predictions.box_deltas.dtype, predictions.quality_logits.dtype}
    assert dtypes == {torch.bfloat16}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_classes": 0}, "num_classes is 0"),
        ({"num_anchors": 0}, "num_anchors is 0"),
        ({"channels": 48}, "channels 48.*multiple of 32"),
        ({"channels": 0}, "channels 0.*multiple of 32"),
        ({"num_convs": 0}, "num_convs is 0"),
        ({"prior_prob": 1.0}, "between 0 and 1"),
    ],
)
def test_head__values_out_of_range_are_refused(arguments, message):
    with pytest.raises(UserError, match=message):
        RetinaHead(**({"num_classes": 3, "num_anchors": 2, "channels": 32} | arguments))


def build_on_meta(num_classes: int, **options: Any) -> Detector:
    with torch.device("meta"):
        return build_resnet(num_classes, **options)


@pytest.mark.parametrize(("depth", "trainable_tensors"), [(50, 172), (101, 325)])
def test_state_dict__released_models_map_one_to_one(golden, depth, trainable_tensors):
    model = build_on_meta(1203, depth=depth)
    released = golden(f"eod_checkpoint_keys_r{depth}.json")
    want = {}
    for entry in released["entries"]:
        name = our_name(entry["key"])
        if name is not None:
            assert name not in want
            want[name] = (entry["shape"], entry["dtype"], entry["trainable"])
    assert [our_name(entry["key"]) for entry in released["alias_entries"]] == [None] * 6
    parameters = dict(model.named_parameters())
    ours = {
        name: (
            list(tensor.shape),
            str(tensor.dtype).removeprefix("torch."),
            parameters[name].requires_grad if name in parameters else None,
        )
        for name, tensor in model.state_dict().items()
    }
    assert ours == want
    assert sum(parameter.numel() for parameter in parameters.values()) == released["num_parameters"]
    assert sum(parameter.requires_grad for parameter in parameters.values()) == trainable_tensors


def test_parameters__millions_of_the_released_models():
    counts = [sum(p.numel() for p in build_on_meta(1203, depth=depth).parameters()) for depth in (50, 101)]
    assert [round(count / 1e6, 2) for count in counts] == [37.67, 56.66]


def test_build__defaults_are_the_released_model():
    model = build_on_meta(5)
    anchors = model.anchors
    assert (anchors.strides, anchors.scales, anchors.ratios) == ([8, 16, 32, 64, 128], [6.0, 8.0], [1.0])
    assert anchors.legacy
    assert (model.backbone.depth, model.backbone.trainable_layers, model.backbone.freeze_bn) == (50, 3, True)


def test_build__options_reach_their_parts():
    model = build_on_meta(
        5, depth=18, channels=64, anchor_scales=(4,), anchor_ratios=(0.5, 1, 2), quality=False, legacy=False,
        prior_prob=0.01, trainable_layers=5, freeze_bn=False,
    )  # fmt: skip
    assert (model.backbone.depth, model.backbone.trainable_layers, model.backbone.freeze_bn) == (18, 5, False)
    assert model.backbone.fpn.lateral[0].weight.shape == (64, 128, 1, 1)
    assert model.head.cls_pred.weight.shape == (3 * 5, 64, 3, 3)
    assert model.head.quality_pred is None
    assert (model.anchors.scales, model.anchors.ratios, model.anchors.legacy) == ([4.0], [0.5, 1.0, 2.0], False)
    head = build_resnet(5, depth=18, channels=32, prior_prob=0.01).head
    torch.testing.assert_close(head.cls_pred.bias.sigmoid(), torch.full((10,), 0.01))


@pytest.mark.parametrize("size", [(20, 33), (1, 1), (128, 96)])
def test_detector__images_of_any_size(size):
    torch.manual_seed(0)
    model = build_resnet(C, depth=18, channels=32).eval()
    with torch.no_grad():
        predictions, priors = model(torch.rand(1, 3, *size))
    cells = [(-(-size[0] // stride), -(-size[1] // stride)) for stride in (8, 16, 32, 64, 128)]
    assert priors.feature_sizes == cells
    assert predictions.cls_logits.shape == (1, 2 * sum(h * w for h, w in cells), C)
    assert predictions.cls_logits.isfinite().all()


def test_detector__batched_and_channels_last_equal_plain():
    torch.manual_seed(0)
    model = build_resnet(C, depth=18, channels=32, anchor_ratios=(0.5, 1, 2)).double().eval()
    randomize_batch_norm(model)
    images = torch.rand(2, 3, 40, 72, dtype=torch.float64)
    with torch.no_grad():
        batched, priors = model(images)
        single, _ = model(images[1:])
        model.channels_last = False
        plain, _ = model(images)
    assert priors.num_anchors == 6
    assert priors.legacy
    for name in ("cls_logits", "box_deltas", "quality_logits"):
        torch.testing.assert_close(getattr(single, name)[0], getattr(batched, name)[1], rtol=1e-8, atol=1e-8)
        torch.testing.assert_close(getattr(plain, name), getattr(batched, name), rtol=1e-8, atol=1e-8)
