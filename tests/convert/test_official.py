"""Official YOLOX files: every size is recognised, fills our model and detects as it did."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torchvision.models.detection import RetinaNet_ResNet50_FPN_Weights

import yolox_lt
from tests.convert.files import equal_states, official
from yolox_lt.checkpoint import load_checkpoint
from yolox_lt.convert import convert

# depth, width, depthwise, side of the test image
SIZES = {
    "nano": (0.33, 0.25, True, 416),
    "tiny": (0.33, 0.375, False, 416),
    "s": (0.33, 0.50, False, 640),
    "m": (0.67, 0.75, False, 640),
    "l": (1.0, 1.0, False, 640),
    "x": (1.33, 1.25, False, 640),
}


@pytest.mark.parametrize("size", SIZES)
def test_size__is_read_from_the_shapes_and_every_tensor_has_its_place(golden, tmp_path, size):
    state = official(golden, size)
    torch.save({"start_epoch": 300, "model": state, "optimizer": {"state": {}}}, tmp_path / "any_name.pth")
    done = convert(tmp_path / "any_name.pth", tmp_path / "out.pth")
    content = load_checkpoint(tmp_path / "out.pth")
    exp = content["exp"]
    side = SIZES[size][3]
    assert (exp["depth"], exp["width"], exp["depthwise"], exp["test_size"]) == (*SIZES[size][:3], [side, side])
    assert (exp["num_classes"], exp["anchor_scales"], exp["neck_shortcut"], exp["quality"]) == (80, [1], False, "obj")
    assert (content["family"], content["ema"], content["epoch"]) == ("yolox", None, 0)
    assert equal_states(content["model"], state)
    assert done.model == f"YOLOX-{size.upper() if len(size) == 1 else size.capitalize()}"
    assert (len(done.matched), done.reordered, done.dropped) == (len(state), {}, {})
    assert "left out: start_epoch, optimizer" in done.notes
    assert done.commands()[0] == f"python tools/eval.py -n {done.model.lower()} -c {tmp_path / 'out.pth'}"


def test_names_and_ids__are_cocos(golden, tmp_path):
    """torchvision's COCO detectors know the same names, listed by id with gaps."""
    torch.save(official(golden, "nano"), tmp_path / "in.pth")
    convert(tmp_path / "in.pth", tmp_path / "out.pth")
    content = load_checkpoint(tmp_path / "out.pth")
    listed = RetinaNet_ResNet50_FPN_Weights.COCO_V1.meta["categories"]
    by_id = {number: name for number, name in enumerate(listed) if name not in ("N/A", "__background__")}
    assert list(zip(content["category_ids"], content["names"])) == list(by_id.items())


def test_other_class_count__is_read_and_named_by_number(golden, tmp_path):
    state = official(golden, "tiny")
    for level in range(3):
        for part in ("weight", "bias"):
            name = f"head.cls_preds.{level}.{part}"
            state[name] = state[name][:3]
    torch.save({"model": state}, tmp_path / "in.pth")
    done = convert(tmp_path / "in.pth", tmp_path / "out.pth")
    assert done.num_classes == 3
    assert yolox_lt.load(tmp_path / "out.pth").names == ("category 1", "category 2", "category 3")
    assert load_checkpoint(tmp_path / "out.pth")["category_ids"] == [1, 2, 3]


@pytest.mark.parametrize("name", ["nano", "w025_d033"])
def test_outputs__are_official_yolox_s(golden, tmp_path, name):
    data = golden(f"yolox_forward_{name}.npz")
    state = {f"module.{k[2:]}": torch.from_numpy(v) for k, v in data.items() if k.startswith("w/")}
    torch.save({"model": state, "best_ap": np.float64(0.405)}, tmp_path / "in.pth")
    convert(tmp_path / "in.pth", tmp_path / "out.pth")
    detector = yolox_lt.load(tmp_path / "out.pth")
    with torch.no_grad():
        predictions, _ = detector.model(torch.from_numpy(data["input"]))
    np.testing.assert_allclose(predictions.box_deltas.numpy(), data["output_undecoded_reg"], rtol=0, atol=2e-3)
    want = data["output"][0]
    np.testing.assert_allclose(predictions.quality_logits[0].sigmoid().numpy(), want[:, 4], rtol=0, atol=5e-4)
    np.testing.assert_allclose(predictions.cls_logits[0].sigmoid().numpy(), want[:, 5:], rtol=0, atol=5e-4)


def test_detections__are_the_same_after_converting_again(golden, tmp_path):
    data = golden("yolox_forward_w025_d033.npz")
    torch.save({k[2:]: torch.from_numpy(v) for k, v in data.items() if k.startswith("w/")}, tmp_path / "in.pth")
    convert(tmp_path / "in.pth", tmp_path / "once.pth")
    again = convert(tmp_path / "once.pth", tmp_path / "twice.pth")
    assert again.kind == "checkpoint of this project"
    image = np.random.default_rng(0).integers(0, 256, (120, 160, 3), dtype=np.uint8)
    found = []
    for name in ("once.pth", "twice.pth"):
        detector = yolox_lt.load(tmp_path / name)
        detector.exp.test_size = (128, 160)
        found.append(detector(image, conf=0))
    first, second = found
    assert len(first) > 0
    for attribute in ("boxes", "scores", "labels"):
        assert torch.equal(getattr(first, attribute), getattr(second, attribute))
    assert first.names == second.names
