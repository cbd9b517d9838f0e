"""Whole runs on a tiny data set: exact resume, one rank against two, mixed precision, what a run leaves behind."""

from __future__ import annotations

import csv
import json
import math

import pytest
import torch
import torch.distributed as dist
from torch.nn.modules.batchnorm import _BatchNorm

from tests.processes import context, start_ranks
from tests.tiny import tiny_data, tiny_exp
from yolox_lt.checkpoint import load_checkpoint
from yolox_lt.data.collate import Collate
from yolox_lt.data.sampling.sampler import SampleSampler
from yolox_lt.distributed.processes import ProcessInfo, free_port
from yolox_lt.errors import UserError
from yolox_lt.losses import EqualizedQualityFocalLoss
from yolox_lt.train.engine import Trainer
from yolox_lt.train.options import TrainOptions

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return tiny_data(tmp_path_factory)


def flat(state, prefix=""):
    """Nested checkpoint content as {path: leaf}."""
    items = state.items() if isinstance(state, dict) else enumerate(state) if isinstance(state, (list, tuple)) else None
    if items is None:
        return {prefix: state}
    return {k: v for key, value in items for k, v in flat(value, f"{prefix}/{key}").items()}


def assert_same_bits(a, b, skip=()):
    a, b = flat(a), flat(b)
    assert a.keys() == b.keys()
    for key, value in a.items():
        if any(s in key for s in skip):
            continue
        if isinstance(value, torch.Tensor):
            assert (value.dtype, value.shape) == (b[key].dtype, b[key].shape), key
            assert value.numpy().tobytes() == b[key].numpy().tobytes(), key
        elif isinstance(value, float) and math.isnan(value):
            assert math.isnan(b[key]), key
        else:
            assert value == b[key], key


class Interrupted(Trainer):
    """Stops as a killed process would, right after the checkpoint of the first epoch."""

    def end_epoch(self):
        super().end_epoch()
        raise KeyboardInterrupt


@pytest.mark.parametrize("workers", [pytest.param(0, marks=pytest.mark.slow), 2])
def test_resume__twenty_steps_equal_ten_and_ten_bit_for_bit(data, tmp_path, workers):
    straight = tiny_exp(data, tmp_path / "straight")
    Trainer(straight, TrainOptions(4)).train()
    parts = tiny_exp(data, tmp_path / "parts", data_num_workers=workers)
    with pytest.raises(KeyboardInterrupt):
        Interrupted(parts, TrainOptions(4)).train()
    assert load_checkpoint(tmp_path / "parts/tiny/latest.pth")["iteration"] == 10
    torch.manual_seed(999)  # whatever happened in between
    parts = tiny_exp(data, tmp_path / "parts", seed=None, data_num_workers=workers)
    Trainer(parts, TrainOptions(4, resume=True)).train()
    a, b = (load_checkpoint(tmp_path / f"{name}/tiny/latest.pth") for name in ("straight", "parts"))
    assert a["iteration"] == 20
    assert_same_bits(a, b, skip=("output_dir", "data_num_workers", "/exp/seed"))
    assert a["criterion"]["cls_loss.balance.pos_grad"].sum() > 0
    rows = [list(csv.DictReader((tmp_path / f"{name}/tiny/metrics.csv").open())) for name in ("straight", "parts")]
    timing = ("seconds", "images_per_second", "memory_MB")
    assert [{k: v for k, v in r.items() if k not in timing} for r in rows[0]] == [
        {k: v for k, v in r.items() if k not in timing} for r in rows[1]
    ]


# ------------------------------------------------------------------------------------------------- ranks


class SharedBatches(Trainer):
    """Every rank takes its share of the same global batches of four; BatchNorm stays frozen."""

    def batches(self, data, progress, seed):
        process = self.options.process
        stream = self.exp.get_sampler(data.factors, seed, 0, 1)
        share = 4 // process.world_size
        for draws in SampleSampler(stream, 4, 0, data.total, data.total):
            mine = draws[process.rank * share : (process.rank + 1) * share]
            yield Collate(0)([data.dataset[d] for d in mine])

    def step(self, batches):
        for module in self.run.model.modules():
            if isinstance(module, _BatchNorm):
                module.eval()
        losses = super().step(batches)
        self.history = [*getattr(self, "history", []), losses["loss"]]
        return losses


def run_rank(rank, world, port, data, output, queue):
    torch.set_num_threads(1)
    if world > 1:
        dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=world)
    # The released L1 is a mean over the rank's own positives, so it is left out of the comparison.
    exp = tiny_exp(data, output, l1="never", max_iter=5, max_epoch=1)
    trainer = SharedBatches(exp, TrainOptions(4, ProcessInfo(rank, world, CPU)))
    trainer.train()
    queue.put((rank, trainer.history))
    if world > 1:
        dist.destroy_process_group()


def test_ranks__two_equal_one_on_the_same_global_batches(data, tmp_path):
    histories = {}
    for world in (1, 2):
        queue = context().Queue()
        start_ranks(run_rank, (world, free_port(), data, tmp_path / str(world), queue), world)
        histories[world] = dict(queue.get(timeout=10) for _ in range(world))
    one, two = (load_checkpoint(tmp_path / f"{world}/tiny/latest.pth") for world in (1, 2))
    for step, loss in enumerate(histories[1][0]):
        mean = (histories[2][0][step] + histories[2][1][step]) / 2
        assert mean == pytest.approx(loss, rel=1e-4)
    # As in the reference every rank's loss has a normaliser per rank, so the summed gradients are `ranks` times as
    # large and their ratio is the same.
    for name, factor in (("pos_grad", 2), ("neg_grad", 2), ("ratio", 1)):
        key = f"cls_loss.balance.{name}"
        torch.testing.assert_close(two["criterion"][key], factor * one["criterion"][key], rtol=1e-4, atol=1e-7)
    assert (one["criterion"]["cls_loss.balance.ratio"] > 0).any()
    for part in ("model", "ema"):
        states = [c["ema"]["model"] if part == "ema" else c["model"] for c in (one, two)]
        for key, value in states[0].items():
            torch.testing.assert_close(states[1][key], value, rtol=1e-4, atol=1e-5, msg=lambda m, k=key: f"{k}: {m}")


# ------------------------------------------------------------------------------------------------- precision


def test_bf16__statistic_is_exact_for_the_logits_that_the_network_gives(data, tmp_path):
    """Twenty steps under autocast; a shadow in float64 sees the same logits."""
    exp = tiny_exp(data, tmp_path, max_epoch=1, max_iter=20, warmup_epochs=0)
    trainer = Trainer(exp, TrainOptions(8, amp=torch.bfloat16))
    trainer.evaluate = lambda: None
    shadow = EqualizedQualityFocalLoss(4).double()
    seen = []

    def forward(logits, labels, quality, normalizer):
        seen.append(logits.dtype)
        shadow(logits.detach().double(), labels, quality.double(), normalizer.double())
        return EqualizedQualityFocalLoss.forward(trainer.run.criterion.cls_loss, logits, labels, quality, normalizer)

    exp.on_train_start = lambda run: setattr(run.criterion.cls_loss, "forward", forward)
    trainer.train()
    assert seen == [torch.bfloat16] * 20
    balance = trainer.run.criterion.step_states()[0]
    assert balance.pos_grad.dtype == balance.neg_grad.dtype == torch.float32
    for name in ("pos_grad", "neg_grad", "ratio"):
        want = getattr(shadow.balance, name)
        assert (want > 0).any()
        torch.testing.assert_close(getattr(balance, name).double(), want, rtol=1e-4, atol=1e-9)


# ------------------------------------------------------------------------------------------------- the run folder


def test_run_folder__holds_what_the_contract_names(data, tmp_path):
    exp = tiny_exp(data, tmp_path, max_iter=3, max_epoch=3, eval_interval=1, keep_checkpoints=2, print_interval=2)
    Trainer(exp, TrainOptions(4)).train()
    folder = tmp_path / "tiny"
    names = {p.name for p in folder.iterdir()}
    assert {"train.log", "config.json", "metrics.csv", "metrics.jsonl", "latest.pth", "best.pth"} <= names
    assert {"per_category.csv", "epoch_2.pth", "epoch_3.pth"} <= names
    assert "epoch_1.pth" not in names  # only the latest two are kept
    assert any(n.startswith("events.out.tfevents") for n in names)
    rows = list(csv.DictReader((folder / "metrics.csv").open()))
    assert [r["epoch"] for r in rows] == ["1", "2", "3"]
    assert all(0 <= float(r["AP"]) <= 1 for r in rows)
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["iteration"] for line in lines] == [1, 3, 5, 7, 8]
    config = json.loads((folder / "config.json").read_text())
    assert config["exp"]["num_classes"] == 4
    assert config["batch_size"] == 4
    content = load_checkpoint(folder / "best.pth")
    assert len(content["names"]) == len(content["category_ids"]) == 4
    assert content["best"] == max(float(r["AP"]) for r in rows)


def test_accumulation__counts_the_statistic_once_a_step(data, tmp_path):
    exp = tiny_exp(data, tmp_path, max_iter=2, max_epoch=1, accumulate=2, warmup_epochs=0)
    trainer = Trainer(exp, TrainOptions(8))
    seen = []
    trainer.evaluate = lambda: None
    original = Trainer.update
    trainer.update = lambda: (seen.append(trainer.run.criterion.step_states()[0].ratio.clone()), original(trainer))[1]
    trainer.train()
    assert trainer.run.progress.segment.batch_size == 4
    assert (seen[0] == 1).all()  # both parts of the first step still saw the initial ratio
    assert (seen[1] != 1).any()


def test_fine_tuning__loads_what_fits_and_starts_the_classifier_anew(data, tmp_path):
    Trainer(tiny_exp(data, tmp_path, max_iter=1, max_epoch=1), TrainOptions(4)).train()
    source = tmp_path / "tiny/latest.pth"
    exp = tiny_exp(data, tmp_path / "other", anchor_scales=(3,), max_iter=1, max_epoch=1)
    trainer = Trainer(exp, TrainOptions(4, checkpoint=str(source)))
    trainer.prepare()
    model, average = trainer.run.model, trainer.run.ema.model
    content = load_checkpoint(source)
    stem = "backbone.backbone.stem.conv.conv.weight"
    assert torch.equal(model.state_dict()[stem], content["ema"]["model"][stem])
    assert float(model.head.cls_preds[0].weight.std()) == pytest.approx(0.001, rel=0.3)  # one anchor now, two before
    assert torch.equal(average.state_dict()[stem], content["ema"]["model"][stem])


def test_non_finite_loss__stops_with_the_losses_and_leaves_the_statistic(data, tmp_path):
    exp = tiny_exp(data, tmp_path, max_iter=4, max_epoch=1)
    trainer = Trainer(exp, TrainOptions(4))
    original = Trainer.forward

    def poisoned(batch):
        losses = original(trainer, batch)
        return losses | {"box": losses["box"] * math.nan} if trainer.run.iteration == 2 else losses

    trainer.forward = poisoned
    with pytest.raises(UserError, match=r"not finite at iteration 3 \(cls .*box nan.*images"):
        trainer.train()
    assert torch.isfinite(trainer.run.criterion.step_states()[0].ratio).all()


def test_resume__with_other_precision_or_average(data, tmp_path):
    settings = {"max_iter": 2, "max_epoch": 2}
    with pytest.raises(KeyboardInterrupt):
        Interrupted(tiny_exp(data, tmp_path, **settings), TrainOptions(4)).train()
    with pytest.raises(UserError, match="began with ema True, now it is False"):
        Trainer(tiny_exp(data, tmp_path, ema=False, **settings), TrainOptions(4, resume=True)).train()
    with pytest.raises(UserError, match="began with cls_loss 'eqfl', now it is 'qfl'"):
        Trainer(tiny_exp(data, tmp_path, cls_loss="qfl", **settings), TrainOptions(4, resume=True)).train()
    Trainer(tiny_exp(data, tmp_path, **settings), TrainOptions(4, amp=torch.bfloat16, resume=True)).train()
    assert load_checkpoint(tmp_path / "tiny/latest.pth")["iteration"] == 4


def test_resume__with_another_epoch_length_goes_on_with_the_next_epoch(data, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        Interrupted(tiny_exp(data, tmp_path, max_iter=4, max_epoch=3), TrainOptions(4)).train()
    Trainer(tiny_exp(data, tmp_path, max_iter=2, max_epoch=3), TrainOptions(8, resume=True)).train()
    rows = list(csv.DictReader((tmp_path / "tiny/metrics.csv").open()))
    assert [r["epoch"] for r in rows] == ["1", "2", "3"]
    content = load_checkpoint(tmp_path / "tiny/latest.pth")
    assert (content["epoch"], content["iteration"]) == (3, 6)


def test_plain_yolox__csv_keeps_its_columns_through_the_closing_epochs(data, tmp_path):
    plain = {"quality": "obj", "cls_loss": "sigmoid", "assigner": "simota", "anchor_scales": (1,), "l1": "tail"}
    exp = tiny_exp(data, tmp_path, max_iter=2, max_epoch=3, no_aug_epochs=1, recipe="official", **plain)
    Trainer(exp, TrainOptions(4)).train()
    rows = list(csv.DictReader((tmp_path / "tiny/metrics.csv").open()))
    assert [float(r["l1"]) > 0 for r in rows] == [False, False, True]
    for row in rows:
        parts = sum(float(row[name]) for name in ("cls", "box", "obj", "l1"))
        assert float(row["loss"]) == pytest.approx(parts, rel=1e-5)


def test_old_epoch_files__of_another_run_do_not_push_out_new_ones(data, tmp_path):
    (tmp_path / "tiny").mkdir()
    (tmp_path / "tiny/epoch_300.pth").write_text("older run")
    exp = tiny_exp(data, tmp_path, max_iter=1, max_epoch=1, eval_interval=1, keep_checkpoints=1)
    Trainer(exp, TrainOptions(4)).train()
    assert {p.name for p in (tmp_path / "tiny").glob("epoch_*")} == {"epoch_1.pth", "epoch_300.pth"}


@pytest.mark.parametrize("same_launch", [True, False])
def test_restart_by_the_agent__resumes_its_own_run_alone(data, tmp_path, same_launch):
    device = torch.device("cpu")
    exp = tiny_exp(data, tmp_path, max_iter=2, max_epoch=1)
    Trainer(exp, TrainOptions(4, ProcessInfo(0, 1, device, "first"))).train()
    process = ProcessInfo(0, 1, device, "first" if same_launch else "second", restarted=True)
    exp, started = tiny_exp(data, tmp_path, max_iter=2, max_epoch=1), []
    exp.on_train_start = lambda run: started.append(run.iteration)
    again = Trainer(exp, TrainOptions(4, process))
    again.train()
    assert len(started) == 1
    assert started[0] == (2 if same_launch else 0)
    assert (tmp_path / "tiny/latest.previous.pth").exists() != same_launch


def test_third_run__in_the_same_folder_keeps_the_figures_and_checkpoints_of_both_before(data, tmp_path):
    marks = (".previous", ".previous-2", "")
    for seed in (1, 2, 3):
        exp = tiny_exp(data, tmp_path, max_iter=1, max_epoch=4 - seed, eval_interval=1, seed=seed)
        exp.get_trainer(TrainOptions(4)).train()
    for seed, mark in zip((1, 2, 3), marks):
        rows = (tmp_path / f"tiny/metrics{mark}.csv").read_text().splitlines()
        assert len(rows) == 1 + 4 - seed
        for name in ("latest", "epoch_1"):
            assert load_checkpoint(tmp_path / f"tiny/{name}{mark}.pth")["seed"] == seed
