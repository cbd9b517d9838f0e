"""Learning rates, weight averaging and parameter groups against both references."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from torch import nn

from tests.models.released_names import our_name
from yolox_lt.exp import get_exp
from yolox_lt.models import build_yolox
from yolox_lt.optim import schedule
from yolox_lt.optim.ema import ModelEMA
from yolox_lt.optim.groups import param_groups


@pytest.mark.parametrize(
    ("name", "epochs", "per_epoch", "batch", "warmup", "tail"),
    [
        ("yolox_300ep_10it_batch128", 300, 10, 128, 5, 15),
        ("yolox_20ep_37it_batch16_warm2_noaug3", 20, 37, 16, 2, 3),
    ],
)
def test_released_yolox__every_iteration(golden, name, epochs, per_epoch, batch, warmup, tail):
    want = golden("schedules_ema.npz")[name]
    args = 0.0003125 * batch, epochs * per_epoch, warmup * per_epoch, tail * per_epoch
    ours = [schedule.released_yolox(i, *args) for i in range(len(want))]
    np.testing.assert_allclose(ours, want, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize(
    ("name", "per_epoch", "warmup", "milestones"),
    [
        ("retina_24ep_50it_batch16_warm1", 50, 50, (16, 22)),
        ("retina_warmup_iter60_24ep_50it_batch16", 50, 60, (16, 22)),
        # 120k, 160k and 180k iterations at the data set's 104,691 per epoch, scaled to 1,000; warm-up 500 likewise
        ("oids_frac_epochs_1000it_batch16", 1000, 4, (1.146284, 1.528378)),
    ],
)
def test_step__every_iteration(golden, name, per_epoch, warmup, milestones):
    want = golden("schedules_ema.npz")[name]
    drops = [int(m * per_epoch) for m in milestones]
    ours = [schedule.step(i, 0.00125 * 16, drops, warmup) for i in range(len(want))]
    np.testing.assert_allclose(ours, want, rtol=1e-12)


def test_official__every_scheduler(golden):
    data = golden("yolox_lr_schedule.npz")
    for k, config in enumerate(json.loads(str(data["configs_json"]))):
        per_epoch = config["iters_per_epoch"]
        total = per_epoch * config["total_epochs"]
        warmup = per_epoch * config.get("warmup_epochs", 0)
        for i, want in zip(data[f"cfg{k}_iters"].tolist(), data[f"cfg{k}_lr"].tolist()):
            if config["name"] == "yoloxwarmcos":
                tail = per_epoch * config["no_aug_epochs"]
                got = schedule.official_yolox(
                    i, config["lr"], total, warmup, tail, config["min_lr_ratio"], config["warmup_lr_start"]
                )
            elif config["name"] == "multistep":
                drops = [int(total * m / config["total_epochs"]) for m in config["milestones"]]
                got = schedule.step(i, config["lr"], drops, gamma=config["gamma"])
            else:
                got = schedule.warm_cosine(i, config["lr"], total, warmup, config.get("warmup_lr_start", 0))
            assert got == pytest.approx(want, rel=1e-12), (config["name"], i)


def toy_model() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1))


def load_arrays(model: nn.Module, data: dict, prefix: str) -> None:
    state = {k.removeprefix(prefix): torch.from_numpy(np.asarray(v)) for k, v in data.items() if k.startswith(prefix)}
    model.load_state_dict(state)


@pytest.mark.parametrize("config", range(3))
def test_official_ema__six_updates(golden, config):
    data = golden("yolox_ema.npz")
    prefix = f"cfg{config}/"
    model = toy_model()
    load_arrays(model, data, f"{prefix}init/")
    ema = ModelEMA(model, float(data[f"{prefix}decay"]), first=int(data[f"{prefix}start_updates"]) + 1)
    for t in range(6):
        assert ema.decay_at(ema.next) == pytest.approx(float(data[f"{prefix}effective_decay"][t]), rel=1e-12)
        load_arrays(model, data, f"{prefix}model_step{t}/")
        ema.update(model)
        for name, value in ema.model.state_dict().items():
            np.testing.assert_allclose(value.numpy(), data[f"{prefix}ema_step{t}/{name}"], rtol=1e-6, atol=1e-7)


def test_released_ema__given_steps(golden):
    data = golden("schedules_ema.npz")
    model = nn.ModuleDict({"c": nn.Conv2d(2, 3, 1, bias=False), "bn": nn.BatchNorm2d(3)})

    def load(prefix):
        arrays = {
            k.removeprefix(prefix): torch.from_numpy(np.asarray(v)) for k, v in data.items() if k.startswith(prefix)
        }
        assert not model.load_state_dict(arrays, strict=False).unexpected_keys
        return arrays

    load("ema_init::")
    ema = ModelEMA(model, first=0)
    for k, step in enumerate(data["ema_steps"].tolist()):
        assert ema.decay_at(step) == pytest.approx(float(data["ema_decay"][k]), rel=1e-12, abs=1e-15)
        ema.next = step
        load(f"ema_model_step{step}::")
        ema.update(model)
        averaged = ema.model.state_dict()
        for name in ("c.weight", "bn.running_mean", "bn.num_batches_tracked"):
            want = data[f"ema_after_step{step}::{name}"]
            np.testing.assert_allclose(averaged[name].numpy(), want, rtol=1e-6, atol=1e-7)


def test_ema__first_released_update_copies_and_integers_stay():
    model = toy_model()
    ema = ModelEMA(model, first=0)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(1.0)
    model[1].num_batches_tracked += 7
    ema.update(model)
    for name, value in ema.model.state_dict().items():
        if name.endswith("num_batches_tracked"):
            assert value == 0
        else:
            torch.testing.assert_close(value, model.state_dict()[name], rtol=0, atol=1e-6)


def names_by_decay(model: nn.Module, groups: list[dict]) -> dict[float, set[str]]:
    name_of = {id(p): n for n, p in model.named_parameters()}
    found: dict[float, set[str]] = {}
    for group in groups:
        found.setdefault(group["weight_decay"], set()).update(name_of[id(p)] for p in group["params"])
    return found


def test_groups__released_yolox_s_with_decayed_classifier_bias(golden):
    reference = golden("optimizer_groups.json")["yolox_s"]
    with torch.device("meta"):
        model = build_yolox(1203, 0.33, 0.5, num_anchors=2, anchor_scales=(3, 4), neck_shortcut=True)
    groups = param_groups(model, reference["default_weight_decay"], cls_bias_decay=5e-4)
    want: dict[float, set[str]] = {}
    for group in reference["groups"]:
        want.setdefault(group["weight_decay"], set()).update(our_name(n) for n in group["params"])
    assert names_by_decay(model, groups) == want
    assert [len(g["params"]) for g in groups] == [74, 83, 83 - 3, 3]
    paper = names_by_decay(model, param_groups(model, 5e-4, cls_bias_decay=1e-4))
    assert paper[1e-4] == {f"head.cls_preds.{k}.bias" for k in range(3)}


@pytest.mark.parametrize("name", ["yolox-nano", "yolox-s"])
def test_groups__official_models_in_order(golden, name):
    reference = golden("yolox_param_groups.json")[name]
    exp = get_exp(name=name)
    with torch.device("meta"):
        model = exp.get_model()
    name_of = {id(p): n for n, p in model.named_parameters()}
    ours = [[name_of[id(p)] for p in g["params"]] for g in param_groups(model, exp.weight_decay)]
    for got, group in zip(ours, reference if isinstance(reference, list) else reference["groups"]):
        want = group["params"] if isinstance(group, dict) else group
        assert set(got) == set(want)


def test_exp__released_learning_rates():
    exp = get_exp("exps/lvis/yolox_m_eqfl.py")
    assert exp.basic_lr_per_img * 64 == pytest.approx(0.02)
    assert exp.basic_lr_per_img * 128 == pytest.approx(0.04)
    assert get_exp(name="yolox-s").basic_lr_per_img * 64 == pytest.approx(0.01)
