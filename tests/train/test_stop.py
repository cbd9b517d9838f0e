"""A run that is asked to stop, or that is cut off inside an epoch, and what it does when it continues."""

from __future__ import annotations

import os
import signal

import pytest

from benchmarks.run_difference import differences
from tests.tiny import tiny_exp
from yolox_lt.checkpoint import load_checkpoint
from yolox_lt.data.sampling.sampler import SampleStream
from yolox_lt.distributed.signals import EXIT_STATUS, StopSignals
from yolox_lt.errors import UserError
from yolox_lt.train.callbacks.report import ReportCallback
from yolox_lt.train.engine import Trainer
from yolox_lt.train.options import TrainOptions

pytestmark = pytest.mark.xdist_group("stop")

SETTINGS = {"max_iter": 4, "max_epoch": 2, "eval_interval": 1, "print_interval": 1, "keep_checkpoints": 1}


@pytest.fixture(scope="module")
def straight(data, tmp_path_factory):
    """Folder of the undisturbed run."""
    folder = tmp_path_factory.mktemp("straight")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ReportCallback, "write_report", lambda self: None)
        Trainer(tiny_exp(data, folder, **SETTINGS), TrainOptions(4)).train()
    return folder / "tiny"


def at_step(number, action):
    """A callback on_iteration_end."""
    return lambda trainer, losses: action() if trainer.iteration == number else None


def signals_to_self(number):
    return lambda: os.kill(os.getpid(), number)


def cut_off():
    raise KeyboardInterrupt


def test_signal__the_step_is_finished_and_the_run_goes_on_bit_for_bit(data, straight, tmp_path, log):
    exp = tiny_exp(data, tmp_path, **SETTINGS)
    exp.on_iteration_end = at_step(3, signals_to_self(signal.SIGUSR1))
    with pytest.raises(SystemExit) as stopped:
        Trainer(exp, TrainOptions(4)).train()
    assert stopped.value.code == EXIT_STATUS == 75
    assert "stopped by SIGUSR1 after iteration 3 of 8; continue with --resume" in log
    content = load_checkpoint(tmp_path / "tiny/latest.pth")
    assert (content["epoch"], content["iteration"], content["sampler_position"]) == (0, 3, 12)
    Trainer(tiny_exp(data, tmp_path, **SETTINGS), TrainOptions(4, resume=True)).train()
    assert differences(straight, tmp_path / "tiny") == []


def test_signal__inside_an_evaluation_ends_at_once_and_the_evaluation_is_done_again(data, straight, tmp_path):
    exp = tiny_exp(data, tmp_path, **SETTINGS)
    exp.eval = lambda *arguments, **options: (os.kill(os.getpid(), signal.SIGINT), pytest.fail("continued"))
    with pytest.raises(SystemExit) as stopped:
        Trainer(exp, TrainOptions(4)).train()
    assert stopped.value.code == EXIT_STATUS
    content = load_checkpoint(tmp_path / "tiny/latest.pth")
    assert (content["epoch"], content["iteration"]) == (0, 4)  # all steps of the epoch, its end to come
    Trainer(tiny_exp(data, tmp_path, **SETTINGS), TrainOptions(4, resume=True)).train()
    assert differences(straight, tmp_path / "tiny") == []


def test_cut_off__between_two_checkpoints_of_an_epoch_leaves_no_row_twice(data, straight, tmp_path):
    exp = tiny_exp(data, tmp_path, checkpoint_interval=2, auto_resume=True, **SETTINGS)
    exp.on_iteration_end = at_step(7, cut_off)
    with pytest.raises(KeyboardInterrupt):
        Trainer(exp, TrainOptions(4)).train()
    assert len((tmp_path / "tiny/metrics.jsonl").read_text().splitlines()) == 7
    assert load_checkpoint(tmp_path / "tiny/latest.pth")["iteration"] == 6
    (tmp_path / "tiny/.latest.pth.1.tmp").write_text("half")
    # auto_resume finds latest.pth without --resume.
    exp = tiny_exp(data, tmp_path, checkpoint_interval=2, auto_resume=True, **SETTINGS)
    Trainer(exp, TrainOptions(4)).train()
    found = differences(straight, tmp_path / "tiny")
    assert {line.rpartition("/")[2] for line in found} == {"checkpoint_interval", "auto_resume"}


def test_auto_resume__starts_anew_where_there_is_nothing(data, tmp_path):
    exp = tiny_exp(data, tmp_path, auto_resume=True, max_iter=1, max_epoch=1)
    Trainer(exp, TrainOptions(4)).train()
    assert load_checkpoint(tmp_path / "tiny/latest.pth")["iteration"] == 1


class Noting(Trainer):
    """Keeps the ids of the images of every step."""

    def batches(self, *position):
        self.seen = getattr(self, "seen", [])
        for batch in super().batches(*position):
            self.seen += batch.image_ids.tolist()
            yield batch


def test_resume__with_another_batch_goes_on_at_the_next_image(data, tmp_path, log):
    settings = {"max_iter": 6, "max_epoch": 2}
    exp = tiny_exp(data, tmp_path, **settings)
    first = Noting(exp, TrainOptions(4))
    exp.on_iteration_end = at_step(3, signals_to_self(signal.SIGTERM))
    with pytest.raises(SystemExit):
        first.train()
    second = Noting(tiny_exp(data, tmp_path, **settings), TrainOptions(2, resume=True))
    second.train()
    # 3 of 6 steps of 4 images are 6 steps of 2 images; one step is left, that the epoch may end.
    assert any("resuming a run of 1 ranks and batch 4 with 1 and 2" in line for line in log)
    images = SampleStream(first.run.data.factors, 0).from_position(0)
    ids = first.run.data.index.image_ids[first.run.data.dataset.images]
    drawn = [*first.seen[:12], *second.seen]
    assert drawn == [int(ids[next(images)]) for _ in drawn]
    content = load_checkpoint(tmp_path / "tiny/latest.pth")
    assert (content["epoch"], content["iteration"]) == (2, 12)
    assert content["deals"] == [[1, 4, 3], [1, 2, 7]]
    assert content["sampler_position"] == 12 + 7 * 2 == len(drawn)
    rows = (tmp_path / "tiny/metrics.csv").read_text().splitlines()
    assert [row.split(",")[0] for row in rows] == ["epoch", "1", "2"]


@pytest.mark.parametrize("name", ["SIGNONE", "SIGKILL", "TERM"])
def test_stop_signals__that_cannot_be_caught_are_refused(name):
    with pytest.raises(UserError, match=f"stop_signals: '{name}' is no signal that can be caught"):
        StopSignals(("SIGTERM", name))


def test_stop_signals__are_given_back_and_a_second_sigint_is_obeyed(monkeypatch):
    before = signal.getsignal(signal.SIGINT)
    with StopSignals(("SIGINT",)) as stop:
        stop.at_once = False
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)  # a launcher has passed on the same one
        assert stop.received == signal.SIGINT
        stop.when -= 2
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        with pytest.raises(SystemExit), stop.saved():
            pytest.fail("entered although a signal had come")
    assert signal.getsignal(signal.SIGINT) == before


def test_row_counts__of_the_log_are_cut_whatever_the_iterations_say(tmp_path):
    from yolox_lt.train.callbacks.log import keep_csv_rows, keep_json_rows

    path = tmp_path / "metrics.jsonl"
    path.write_text('{"iteration": 9}\n{"iteration": 4}\n{"iteration": 5}\n{"iterat')
    assert keep_json_rows(path, 2) == 2
    assert path.read_text() == '{"iteration": 9}\n{"iteration": 4}\n'
    table = tmp_path / "metrics.csv"
    table.write_text("epoch,loss\r\n1,0.5\r\n2,0.25\r\n3,0.1")
    keep_csv_rows(table, 2)
    assert table.read_bytes() == b"epoch,loss\r\n1,0.5\r\n2,0.25\r\n"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["metrics.csv", "metrics.jsonl"]
