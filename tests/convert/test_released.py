"""Released EFL/EQFL files: names, channel orders, the doubled stem, and the outputs of the reference."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import yolox_lt
from tests.convert.files import category_major, doubled_stem, equal_states, expected, released
from tests.models.test_released_golden import expected_rows
from tests.models.test_retina_golden import expected_rows as expected_retina_rows
from yolox_lt.checkpoint import load_checkpoint
from yolox_lt.convert import convert
from yolox_lt.convert.mapped import Mapped
from yolox_lt.convert.released import STATISTIC, map_resnet, map_yolox, rename, resnet_name
from yolox_lt.errors import UserError
from yolox_lt.exp import get_exp
from yolox_lt.models import RetinaHead
from yolox_lt.models.resnet_fpn import FPN

ROOT = Path(__file__).resolve().parents[2]

# our name of the model, family, number of tensors written
MODELS = {
    "yolox_s": ("YOLOX-S*", "yolox", 462),
    "yolox_m": ("YOLOX-M*", "yolox", 606),
    "r50": ("ResNet-50", "resnet", 364),
    "r101": ("ResNet-101", "resnet", 670),
}
STEM = "backbone.backbone.stem.conv.conv.weight"


@pytest.mark.parametrize("size", MODELS)
def test_file__fills_the_model_and_every_tensor_has_its_place(golden, tmp_path, size):
    state = released(golden, size)
    torch.save({"model": state, "epoch": 300, "metric_val": 0.233}, tmp_path / "in.pth")
    done = convert(tmp_path / "in.pth", tmp_path / "out.pth")
    model, family, count = MODELS[size]
    assert (done.model, done.num_classes, len(done.matched)) == (model, 1203, count)
    assert (done.missing, done.unexpected) == ((), ())
    assert set(done.dropped) == set(STATISTIC)
    assert set(done.reordered) == ({STEM} if family == "yolox" else set())
    content = load_checkpoint(tmp_path / "out.pth")
    assert equal_states(content["model"], expected(golden, size))
    assert (content["family"], content["names"][1202], content["category_ids"][1202]) == (family, "category 1203", 1203)
    loaded = yolox_lt.load(tmp_path / "out.pth").model.state_dict()  # strict
    assert equal_states(loaded, content["model"])


def test_settings__are_those_of_the_released_models(golden, tmp_path):
    for size in ("yolox_m", "r50"):
        torch.save({"model": released(golden, size)}, tmp_path / "in.pth")
        convert(tmp_path / "in.pth", tmp_path / f"{size}.pth")
    yolox = load_checkpoint(tmp_path / "yolox_m.pth")["exp"]
    assert (yolox["depth"], yolox["width"], yolox["neck_shortcut"], yolox["quality"]) == (0.67, 0.75, True, "iou")
    assert (yolox["anchor_scales"], yolox["test_size"], yolox["nmsthre"], yolox["pre_nms"]) == (
        [3, 4],
        [640, 640],
        0.65,
        1000,
    )
    resnet = load_checkpoint(tmp_path / "r50.pth")["exp"]
    assert (resnet["resnet_depth"], resnet["anchor_scales"], resnet["legacy"]) == (50, [6, 8], True)
    assert (resnet["test_size"], resnet["nmsthre"], resnet["pre_nms"]) == ([800, 1333], 0.5, 6000)
    assert (resnet["cls_loss"], yolox["cls_loss"]) == ("efl", "eqfl")


def test_commands__give_the_published_ap_beside_the_experiment(golden, tmp_path):
    torch.save({"model": released(golden, "yolox_s")}, tmp_path / "in.pth")
    done = convert(tmp_path / "in.pth", tmp_path / "out.pth")
    for line, (loss, ap) in zip(done.commands(), [("efl", 23.3), ("eqfl", 24.2)]):
        assert line.startswith(f"python tools/eval.py -f exps/lvis/yolox_s_{loss}.py -c {tmp_path / 'out.pth'}")
        assert f"published AP {ap} if trained with {loss.upper()}, to be confirmed" in line
    assert done.commands("mine.py")[0] == f"python tools/eval.py -f mine.py -c {tmp_path / 'out.pth'}"
    assert "cannot be distinguished" in done.text()


@pytest.mark.parametrize("size", MODELS)
def test_experiments__that_the_commands_name_take_the_file(golden, tmp_path, size):
    torch.save({"model": released(golden, size)}, tmp_path / "in.pth")
    done = convert(tmp_path / "in.pth", tmp_path / "out.pth")
    named = [line.split()[3] for line in done.commands() if "tools/eval.py" in line]
    assert len(named) == (2 if size.startswith("yolox") else 1)
    for file in named:
        exp = get_exp(ROOT / file)
        exp.data_dir = str(tmp_path)
        assert convert(tmp_path / "in.pth", tmp_path / "again.pth", exp).model == done.model


@pytest.mark.parametrize("wrap", ["plain", "module", "state_dict", "ema", "ema module"])
def test_places__averaged_weights_first_prefix_stripped(golden, tmp_path, wrap):
    state = released(golden, "yolox_s")
    prefixed = {f"module.{name}": tensor for name, tensor in state.items()}
    raw = {name: tensor + 1 for name, tensor in state.items()}
    content = {
        "plain": state,
        "module": {"model": prefixed},
        "state_dict": {"state_dict": state},
        "ema": {"model": raw, "ema": {"ema_state_dict": state, "decay": 0.9998, "warmup": 2000, "inner_T": 1}},
        "ema module": {"model": raw, "ema": {"ema_state_dict": prefixed}},
    }[wrap]
    torch.save(content, tmp_path / "in.pth")
    done = convert(tmp_path / "in.pth", tmp_path / "out.pth")
    assert equal_states(load_checkpoint(tmp_path / "out.pth")["model"], expected(golden, "yolox_s"))
    if wrap.startswith("ema"):
        assert done.place == "ema.ema_state_dict"
        assert "left out: model" in done.notes
        assert "weights under ema.ema_state_dict" in done.text()


def test_doubled_stem__is_dropped_when_equal_and_refused_when_not(golden, tmp_path):
    state = doubled_stem(released(golden, "r50"))
    assert len(state) == 367 + 6
    torch.save({"model": state}, tmp_path / "in.pth")
    done = convert(tmp_path / "in.pth", tmp_path / "out.pth")
    assert equal_states(load_checkpoint(tmp_path / "out.pth")["model"], expected(golden, "r50"))
    assert done.dropped["backbone.conv1.weight"] == "copy of backbone.layer0.0.weight"
    assert len(done.dropped) == 6 + 3
    state["backbone.bn1.running_mean"] = state["backbone.bn1.running_mean"] + 1e-6
    torch.save({"model": state}, tmp_path / "in.pth")
    with pytest.raises(UserError, match=r"in\.pth: backbone\.bn1\.running_mean and backbone\.layer0\.1\.running_mean"):
        convert(tmp_path / "in.pth", tmp_path / "none.pth")
    assert not (tmp_path / "none.pth").exists()


def test_outputs__are_the_released_network_s(golden, tmp_path):
    """The narrow reference network through a file, its channels in either order."""
    data = golden("efl_yolox_narrow.npz")
    state = {k[3:]: torch.from_numpy(v) for k, v in data.items() if k.startswith("w::")}
    state |= {name: torch.rand(30) for name in STATISTIC}
    other = {
        name: category_major(tensor) if ".cls_preds." in name or ".reg_preds." in name else tensor
        for name, tensor in state.items()
    }
    moved = {
        f"head.{kind}_preds.{i}.{part}" for kind in ("cls", "reg") for i in range(3) for part in ("weight", "bias")
    }
    torch.save({"model": state}, tmp_path / "anchor-major.pth")
    torch.save({"model": other}, tmp_path / "category-major.pth")
    for order in ("anchor-major", "category-major"):
        done = convert(tmp_path / f"{order}.pth", tmp_path / "out.pth", channels=order)
        assert set(done.reordered) == {STEM} | (moved if order == "category-major" else set())
        detector = yolox_lt.load(tmp_path / "out.pth")
        with torch.no_grad():
            predictions, _ = detector.model(torch.from_numpy(data["image"]).float())
        quality = predictions.quality_logits[..., None]
        outputs = [("cls", predictions.cls_logits), ("reg", predictions.box_deltas), ("obj", quality)]
        for output, got in outputs:
            want = expected_rows(data, "eval", output)
            np.testing.assert_allclose(got.numpy(), want, rtol=1e-4, atol=1e-4, err_msg=f"{order} {output}")


def test_outputs__are_the_released_retina_head_s(golden):
    """FPN and head of the reference have no backbone, so its 46 tensors pass the renaming alone."""
    data = golden("efl_retina_narrow.npz")
    mapped = Mapped("released", "resnet")
    rename({k[3:]: torch.from_numpy(v) for k, v in data.items() if k.startswith("w::")}, resnet_name, mapped)
    assert (len(mapped.state), mapped.unexpected, mapped.dropped) == (46, [], {})
    fpn, head = FPN((32, 48, 64), 64), RetinaHead(30, 2, 64)
    for module, start in ((fpn, "backbone.fpn."), (head, "head.")):
        part = {k.removeprefix(start): v for k, v in mapped.state.items() if k.startswith(start)}
        module.load_state_dict(part, strict=True)
    with torch.no_grad():
        levels = fpn([torch.from_numpy(data[f"c{i}"]) for i in (3, 4, 5)])
        predictions = head(levels)
    for i, level in enumerate(levels, start=3):
        np.testing.assert_allclose(level.numpy(), data[f"p{i}"], rtol=1e-4, atol=1e-4)
    quality = predictions.quality_logits[..., None]
    for output, got in [("cls", predictions.cls_logits), ("loc", predictions.box_deltas), ("iou", quality)]:
        np.testing.assert_allclose(got.numpy(), expected_retina_rows(data, output), rtol=1e-4, atol=1e-4)


def alike_head(shape: tuple[int, ...]) -> torch.Tensor:
    """Anchor-major weights whose two anchors resemble each other."""
    rng = torch.Generator().manual_seed(0)
    category = torch.randn(1, shape[0] // 2, *shape[1:], generator=rng)
    return (category + 0.5 * torch.randn(2, *category.shape[1:], generator=rng)).flatten(0, 1)


@pytest.mark.parametrize("size", ["yolox_s", "r50"])
def test_auto__gives_the_same_model_from_either_order(golden, size):
    state = released(golden, size)
    predictions = {n for n in state if any(p in n for p in ("cls_preds.", "reg_preds.", "subnet_pred."))}
    for name in predictions:
        shape = (60, 16, *state[name].shape[2:]) if "cls_" in name else (8, 16, *state[name].shape[2:])
        state[name] = alike_head(shape) if name.endswith("weight") else torch.arange(float(shape[0]))
    other = {n: category_major(t) if n in predictions else t for n, t in state.items()}
    map_released = map_yolox if size.startswith("yolox") else map_resnet
    first, second = map_released(state), map_released(other)
    assert equal_states(first.state, second.state)
    assert len(second.reordered) - len(first.reordered) == len(predictions) == (12 if size == "yolox_s" else 4)
    assert any("higher by more than 0.1: anchor-major" in note for note in first.notes)
    assert any("category-major, reordered" in note for note in second.notes)


def test_other_width__of_the_fpn_and_open_images_categories(golden):
    mapped = map_resnet(released(golden, "r50"))
    assert mapped.settings["fpn_channels"] == 256
    state = released(golden, "r101")
    for name in ("roi_head.cls_subnet_pred.weight", "roi_head.cls_subnet_pred.bias"):
        state[name] = state[name][:1000]
    mapped = map_resnet(state)
    assert (mapped.settings["num_classes"], mapped.settings["resnet_depth"]) == (500, 101)


@pytest.mark.parametrize(
    ("name", "tensor", "message"),
    [
        ("roi_head.obj_preds.0.weight", torch.zeros(1, 128, 1, 1), r"the head has 1 anchor\(s\) a cell instead of 2"),
        ("roi_head.obj_preds.0.weight", None, r"the weights have no head\.obj_preds\.0\.weight"),
        ("backbone.stem.conv_block.conv.weight", torch.zeros(32, 3, 3, 3), r"stem's weight is \(32, 3, 3, 3\)"),
        (
            "roi_head.cls_preds.1.bias",
            torch.zeros(2405),
            r"head\.cls_preds\.1\.bias is \(2405,\), which is no prediction",
        ),
        (
            "roi_head.cls_preds.1.bias",
            torch.zeros(2400),
            r"cls_preds\.1\.bias is \(2400,\) instead of \(2406,\); 1 diff",
        ),
        ("neck.C3_p4.conv1.conv.weight", None, r"no backbone\.C3_p4\.conv1\.conv\.weight; 1 differences"),
        ("neck.extra.weight", torch.zeros(1), r"unknown backbone\.extra\.weight; 1 differences"),
        ("post_process.other", torch.zeros(1), r"unknown post_process\.other; 1 differences"),
        (
            "neck.lateral_conv0.bn1.weight",
            torch.ones(256, dtype=torch.int64),
            r"is torch\.int64 instead of torch\.float",
        ),
    ],
)
def test_other_tensors__are_named_and_nothing_is_written(golden, tmp_path, name, tensor, message):
    state = released(golden, "yolox_s")
    if tensor is None:
        del state[name]
    else:
        state[name] = tensor
    torch.save({"model": state}, tmp_path / "in.pth")
    with pytest.raises(UserError, match=message):
        convert(tmp_path / "in.pth", tmp_path / "out.pth")
    assert not (tmp_path / "out.pth").exists()
