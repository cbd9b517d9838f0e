"""State dicts of the six official models and of the two released ones, built without memory on the meta device."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.models.released_names import our_name
from yolox_lt.models import Detector, build_yolox

# depth, width, depthwise, number of parameters at 80 classes
OFFICIAL = {
    "yolox-nano": (0.33, 0.25, True, 912_159),
    "yolox-tiny": (0.33, 0.375, False, 5_055_855),
    "yolox-s": (0.33, 0.50, False, 8_968_255),
    "yolox-m": (0.67, 0.75, False, 25_326_495),
    "yolox-l": (1.0, 1.0, False, 54_208_895),
    "yolox-x": (1.33, 1.25, False, 99_071_455),
}
RELEASED = {"s": (0.33, 0.50, 9_870_352), "m": (0.67, 0.75, 26_676_144)}


def build_on_meta(num_classes: int, depth: float, width: float, **options: Any) -> Detector:
    with torch.device("meta"):
        return build_yolox(num_classes, depth, width, **options)


@pytest.mark.parametrize("name", OFFICIAL)
def test_state_dict__names_shapes_and_order_of_official_models(golden, name):
    depth, width, depthwise, _ = OFFICIAL[name]
    state = build_on_meta(80, depth, width, depthwise=depthwise).state_dict()
    assert [[key, list(tensor.shape)] for key, tensor in state.items()] == golden("yolox_checkpoint_keys.json")[name]


@pytest.mark.parametrize("name", OFFICIAL)
def test_parameters__count_of_official_models(name):
    depth, width, depthwise, count = OFFICIAL[name]
    model = build_on_meta(80, depth, width, depthwise=depthwise)
    assert sum(parameter.numel() for parameter in model.parameters()) == count


@pytest.mark.parametrize("size", RELEASED)
def test_state_dict__released_models_map_one_to_one(golden, size):
    depth, width, count = RELEASED[size]
    model = build_on_meta(1203, depth, width, num_anchors=2, anchor_scales=(3, 4), neck_shortcut=True)
    trainable = {name for name, _ in model.named_parameters()}
    released = {}
    for entry in golden(f"eod_checkpoint_keys_yolox_{size}.json")["entries"]:
        name = our_name(entry["key"])
        if name is None:
            continue
        assert name not in released
        released[name] = (entry["shape"], entry["dtype"], entry["kind"] == "param")
    ours = {
        name: (list(tensor.shape), str(tensor.dtype).removeprefix("torch."), name in trainable)
        for name, tensor in model.state_dict().items()
    }
    assert ours == released
    assert sum(parameter.numel() for parameter in model.parameters()) == count


def test_state_dict__class_count_changes_cls_preds_only():
    eighty = build_on_meta(80, 0.33, 0.25).state_dict()
    one = build_on_meta(1, 0.33, 0.25).state_dict()
    changed = {name for name in eighty if eighty[name].shape != one[name].shape}
    assert list(eighty) == list(one)
    assert changed == {f"head.cls_preds.{level}.{part}" for level in range(3) for part in ("weight", "bias")}
