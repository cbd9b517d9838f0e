"""Two-stage experiments from start to detections: every loss, resume, ranks, evaluation, api, the second training."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
import torch.distributed as dist

import yolox_lt
from tests.processes import start_ranks
from tests.tiny import tiny_data
from tests.two_stage import METHODS, two_stage_exp
from yolox_lt.api import experiment_of
from yolox_lt.checkpoint import load_checkpoint
from yolox_lt.distributed.processes import ProcessInfo, free_port
from yolox_lt.errors import UserError
from yolox_lt.evaluate.collect import to_arrays
from yolox_lt.exp import GlyphTwoStageExp, TwoStageExp
from yolox_lt.train.callbacks.report import ReportCallback
from yolox_lt.train.engine import Trainer
from yolox_lt.train.options import TrainOptions

pytestmark = pytest.mark.xdist_group("two_stage_run")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return tiny_data(tmp_path_factory)


class Noting(Trainer):
    """Keeps the losses of every step, and evaluates nothing."""

    history: list

    def step(self, batches):
        losses = super().step(batches)
        self.history = [*getattr(self, "history", []), losses]
        return losses

    def evaluate(self):
        return None


class OneBatch(Noting):
    """The same images in every step."""

    def batches(self, data, progress, seed):
        batch = next(super().batches(data, progress, seed))
        self.labels = torch.cat(batch.labels).unique()
        return itertools.repeat(batch)


@pytest.fixture(scope="module")
def runs(data, tmp_path_factory):
    """Loss -> (folder of its run of 30 steps on one batch, its losses, its categories); each is trained once."""
    folder, made = tmp_path_factory.mktemp("two_stage"), {}

    def run(cls_loss):
        if cls_loss not in made:
            trainer = OneBatch(two_stage_exp(data, folder, cls_loss, basic_lr_per_img=0.006), TrainOptions(1))
            with pytest.MonkeyPatch.context() as patch:
                if cls_loss != "seesaw":  # one page of this family is enough
                    patch.setattr(ReportCallback, "write_report", lambda self: None)
                trainer.train()
            made[cls_loss] = folder / cls_loss, trainer.history, trainer.labels
        return made[cls_loss]

    return run


@pytest.mark.parametrize("cls_loss", METHODS)
def test_thirty_steps__losses_are_finite_and_fall(runs, cls_loss):
    _, history, _ = runs(cls_loss)
    assert len(history) == 30
    assert all(math.isfinite(value) for losses in history for value in losses.values())
    totals = [losses["loss"] for losses in history]
    assert np.mean(totals[-8:]) < 0.6 * np.mean(totals[:4])
    assert set(history[0]) == {"rpn_cls", "rpn_box", "cls", "box", "loss"}


def test_state__of_the_loss_is_in_the_checkpoint_and_the_history(runs):
    folder, _, labels = runs("seesaw")
    counts = load_checkpoint(folder / "latest.pth")["criterion"]["cls_loss.statistic.counts"]
    assert counts.nonzero().flatten().tolist() == labels.tolist()
    with np.load(folder / "balance.npz") as history:
        np.testing.assert_array_equal(history["counts"][-1], counts.numpy())
    folder, _, _ = runs("eqlv2")
    ratio = load_checkpoint(folder / "latest.pth")["criterion"]["cls_loss.balance.ratio"]
    with np.load(folder / "balance.npz") as history:
        np.testing.assert_array_equal(history["ratio"][-1], ratio.numpy())
    assert (ratio != 100).all()


@pytest.mark.parametrize("cls_loss", ["seesaw", "bags"])
def test_resume__goes_on_bit_for_bit(data, tmp_path, cls_loss):
    """Grouped random choices of anchors and regions too, in the middle of an epoch and with a worker process."""
    for kind, stop_at in (("whole", None), ("parts", 5)):
        changes = {"max_iter": 8, "checkpoint_interval": 5, "data_num_workers": 1}
        trainer = Noting(two_stage_exp(data, tmp_path / kind, cls_loss, **changes), TrainOptions(2))
        if stop_at is None:
            trainer.train()
            continue
        step = trainer.step

        def stop(batches, trainer=trainer, step=step, stop_at=stop_at):
            if trainer.run.iteration == stop_at:
                raise KeyboardInterrupt
            return step(batches)

        trainer.step = stop
        with pytest.raises(KeyboardInterrupt):
            trainer.train()
        resumed = Noting(two_stage_exp(data, tmp_path / kind, cls_loss, **changes), TrainOptions(2, resume=True))
        resumed.train()
        assert len(resumed.history) == 3
    whole, parts = (load_checkpoint(tmp_path / kind / cls_loss / "latest.pth") for kind in ("whole", "parts"))
    assert whole["iteration"] == parts["iteration"] == 8
    for part in ("model", "criterion"):
        assert all(torch.equal(value, parts[part][name]) for name, value in whole[part].items())


def run_rank(rank, port, data, output):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=3)
    exp = two_stage_exp(data, output, "seesaw", max_iter=3, accumulate=2)
    trainer = Noting(exp, TrainOptions(6, ProcessInfo(rank, 3, torch.device("cpu"))))
    trainer.train()
    torch.save({**trainer.run.model.state_dict(), **trainer.run.criterion.state_dict()}, output / f"{rank}.pt")
    dist.destroy_process_group()


def test_ranks__end_with_the_same_weights_and_counts(data, tmp_path):
    start_ranks(run_rank, (free_port(), data, tmp_path), 3)
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in (0, 2))
    names = [name for name in first if not name.endswith(("running_mean", "running_var", "num_batches_tracked"))]
    assert all(torch.equal(first[name], second[name]) for name in names)
    assert first["cls_loss.statistic.counts"].sum() > 0


@pytest.mark.parametrize("cls_loss", ["seesaw", "eqlv2"])
def test_bf16__both_stages_run_in_it_and_the_losses_in_float32(data, tmp_path, cls_loss):
    exp = two_stage_exp(data, tmp_path, cls_loss, max_iter=2)
    trainer = Noting(exp, TrainOptions(2, amp=torch.bfloat16))
    seen = []

    def watch(run):
        run.model.head.register_forward_hook(lambda module, inputs, outputs: seen.append(outputs[0].dtype))

    exp.on_train_start = watch
    trainer.train()
    assert seen == [torch.bfloat16] * 2
    (state,) = trainer.run.criterion.step_states()
    assert all(buffer.dtype in (torch.float32, torch.int64) for buffer in state.buffers())
    assert all(math.isfinite(losses["loss"]) for losses in trainer.history)


@pytest.mark.parametrize("cls_loss", ["eql", "seesaw", "bags"])
def test_loaded__detects_as_the_evaluator_does(data, runs, cls_loss):
    """Without any annotations: what a loss knows of the training data is in the checkpoint."""
    folder, _, _ = runs(cls_loss)
    exp = two_stage_exp(data, folder, cls_loss)
    detector = yolox_lt.load(folder / "latest.pth")
    assert type(detector.exp) is TwoStageExp
    detector.exp.data_dir = "/nowhere"
    exp.test_conf = detector.exp.test_conf = 0.0
    index = exp.get_index("val")
    evaluator = exp.get_evaluator(1)
    evaluated = evaluator.detect(detector.model, torch.device("cpu"))
    store = exp.get_store("val")
    for position in (0, 5):
        image_id = int(index.image_ids[position])
        ours = to_arrays(detector(store.read(position), conf=0), image_id, index.category_ids)
        theirs = evaluated.image_ids == image_id
        assert 0 < len(ours) <= 300
        np.testing.assert_allclose(ours.boxes, evaluated.boxes[theirs], atol=1e-3)
        np.testing.assert_allclose(ours.scores, evaluated.scores[theirs], atol=1e-6)
    assert np.isfinite(evaluator.score(evaluated).metrics["AP"])


def test_loaded__with_another_loss_is_refused(data, runs):
    """softmax and EQLv2 have equally many columns, which mean something else."""
    folder, _, _ = runs("softmax")
    path = folder / "latest.pth"
    with pytest.raises(UserError, match="was trained with cls_loss 'softmax', the experiment has 'eqlv2'"):
        experiment_of(load_checkpoint(path), path, two_stage_exp(data, folder, "eqlv2"))


def test_fine_tuning__a_classifier_of_another_loss_starts_anew(data, runs, tmp_path):
    folder, _, _ = runs("softmax")
    trainer = Noting(
        two_stage_exp(data, tmp_path, "eqlv2", max_iter=1, basic_lr_per_img=0.0),
        TrainOptions(2, checkpoint=str(folder / "latest.pth")),
    )
    trainer.train()
    began = trainer.run.model.state_dict()
    source = load_checkpoint(folder / "latest.pth")["model"]
    assert torch.equal(began["head.box_pred.weight"], source["head.box_pred.weight"])
    assert not torch.equal(began["head.cls_pred.weight"], source["head.cls_pred.weight"])
    assert began["head.cls_pred.bias"].unique().tolist() == pytest.approx([-math.log(99)])


# ------------------------------------------------------------------------------------------------- the second training


def second_exp(data, output, cls_loss="softmax", **changes) -> GlyphTwoStageExp:
    settings = {"classifier_only": True, "sampler": "class_balanced", "exp_name": "second", "max_iter": 20}
    settings |= {"basic_lr_per_img": 0.001, "warmup_iters": 2}
    return two_stage_exp(data, output, cls_loss, **{**settings, **changes})


@pytest.mark.parametrize("cls_loss", ["softmax", "bags"], ids=["cRT", "BAGS"])
def test_second__only_the_classifier_is_new_and_moves(data, runs, tmp_path, cls_loss):
    folder, _, _ = runs("softmax")
    first = load_checkpoint(folder / "latest.pth")["model"]
    start = {}
    exp = second_exp(data, tmp_path, cls_loss, start_from=str(folder / "latest.pth"))
    exp.on_train_start = lambda run: start.update({k: v.clone() for k, v in run.model.state_dict().items()})
    trainer = Noting(exp, TrainOptions(2))
    trainer.train()
    end = load_checkpoint(tmp_path / "second" / "latest.pth")
    for name, value in end["model"].items():
        if name.startswith("head.cls_pred."):
            assert not torch.equal(value, start[name]), name
        else:
            assert torch.equal(value, first[name]), name
    assert start["head.cls_pred.weight"].std().item() == pytest.approx(0.01, rel=0.2)
    assert (start["head.cls_pred.bias"] == 0).all()
    parameters = [p for group in trainer.run.optimizer.param_groups for p in group["params"]]
    assert {id(p) for p in parameters} == {id(p) for p in trainer.run.model.head.cls_pred.parameters()}
    totals = [losses["cls"] for losses in trainer.history]
    assert np.mean(totals[-5:]) < np.mean(totals[:3])
    # The checkpoint says what its columns are, and detects without the data.
    detector = yolox_lt.load(tmp_path / "second" / "latest.pth")
    assert detector.exp.cls_loss == cls_loss
    assert len(detector(exp.get_store("val").read(0), conf=0.0)) > 0


@pytest.mark.parametrize(
    ("cls_loss", "message"),
    [("eql", "two_stage model with cls_loss 'eql'"), ("seesaw", "two_stage model with cls_loss 'seesaw'")],
)
def test_second__from_a_run_of_another_method_is_refused(data, runs, tmp_path, cls_loss, message):
    folder, _, _ = runs(cls_loss)
    exp = second_exp(data, tmp_path, start_from=str(folder / "latest.pth"))
    with pytest.raises(UserError, match=message):
        Noting(exp, TrainOptions(4)).train()
    assert not (tmp_path / "second" / "latest.pth").exists()


def test_second__from_another_structure_or_family_is_refused(data, runs, tmp_path):
    folder, _, _ = runs("softmax")
    path = str(folder / "latest.pth")
    with pytest.raises(UserError, match=r"head_width 64, this run 32.*set head_width 64"):
        Noting(second_exp(data, tmp_path, head_width=32), TrainOptions(4, checkpoint=path)).train()
    content = load_checkpoint(path)
    content["family"] = "resnet"
    torch.save(content, tmp_path / "other.pth")
    with pytest.raises(UserError, match=r"other\.pth: a resnet model"):
        Noting(second_exp(data, tmp_path), TrainOptions(4, checkpoint=str(tmp_path / "other.pth"))).train()
    content["family"], content["names"] = "two_stage", [f"another {i}" for i in range(4)]
    torch.save(content, tmp_path / "renamed.pth")
    with pytest.raises(UserError, match=r"renamed\.pth: has other categories"):
        Noting(second_exp(data, tmp_path), TrainOptions(4, checkpoint=str(tmp_path / "renamed.pth"))).train()
