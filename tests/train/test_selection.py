"""best.pth by any metric, and the end of a run whose metric rises no more."""

from __future__ import annotations

import csv
import dataclasses
import math

import numpy as np
import pytest

from tests.tiny import tiny_exp
from yolox_lt.checkpoint import load_checkpoint
from yolox_lt.errors import UserError
from yolox_lt.evaluate.results import DetectionArrays
from yolox_lt.exp import GlyphExp
from yolox_lt.train.engine import Trainer
from yolox_lt.train.options import TrainOptions
from yolox_lt.train.selection import Selection, check_metric, improves, mean_best_f1

NAN = math.nan


class Scripted(GlyphExp):
    """AP of the n-th evaluation as written here."""

    def eval(self, model, evaluator, device, **options):
        report = super().eval(model, evaluator, device, **options)
        self._done = getattr(self, "_done", 0) + 1
        ap = self._script[self._done - 1]
        return dataclasses.replace(report, metrics=report.metrics | {"AP": ap, "AP50": 1 - ap})


def scripted(data, output, script, done=0, **changes):
    exp = tiny_exp(data, output, max_epoch=7, max_iter=1, eval_interval=1, save_history_ckpt=False, **changes)
    exp.__class__ = Scripted
    exp._script, exp._done = script, done
    return exp


@pytest.mark.parametrize(
    ("value", "best", "answer"),
    [
        *((0.0, -1.0, True), (0.0, 0.0, True), (0.3, 0.3, True), (0.29, 0.3, False)),
        *((NAN, 0.0, False), (NAN, 0.3, False), (NAN, -1.0, True)),
    ],
)
def test_best__of_equals_the_latest_and_a_number_before_an_undefined_one(value, best, answer):
    assert improves(value, best) == answer


def test_stale__counts_from_the_first_value_above_zero():
    best, seen = Selection(), []
    for value in (NAN, 0.0, 0.0, 0.2, 0.2, 0.1, NAN, 0.3, 0.1):
        best = best.after(value)
        seen.append((best.value, best.stale))
    assert seen == [(-1, 0), (0, 0), (0, 0), (0.2, 0), (0.2, 1), (0.2, 2), (0.2, 3), (0.3, 0), (0.3, 1)]


def test_patience__ends_the_run_says_why_and_survives_a_resume(data, tmp_path, log):
    script = (0.0, 0.2, 0.3, 0.1, 0.3, 0.9, 0.9)
    scripted(data, tmp_path, script, patience=2, no_aug_epochs=0).get_trainer(TrainOptions(4)).train()
    latest, best = (load_checkpoint(tmp_path / f"tiny/{name}.pth") for name in ("latest", "best"))
    assert (latest["epoch"], latest["best"], latest["stale"]) == (5, 0.3, 2)
    assert best["epoch"] == 5  # as good as the third, and later
    assert any("stopped after epoch 5 of 7: no better AP than 0.3000 in 2 evaluations" in line for line in log)

    class Killed(Trainer):
        def end_epoch(self):
            super().end_epoch()
            if self.run.progress.epochs == 4:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Killed(scripted(data, tmp_path / "killed", script, patience=2), TrainOptions(4)).train()
    scripted(data, tmp_path / "killed", script, done=4, patience=2).get_trainer(TrainOptions(4, resume=True)).train()
    assert load_checkpoint(tmp_path / "killed/tiny/latest.pth")["epoch"] == 5
    # A run that has stopped stops again at once, and continues without patience.
    scripted(data, tmp_path, script, done=5, patience=2).get_trainer(TrainOptions(4, resume=True)).train()
    assert load_checkpoint(tmp_path / "tiny/latest.pth")["epoch"] == 5
    scripted(data, tmp_path, script, done=5).get_trainer(TrainOptions(4, resume=True)).train()
    assert load_checkpoint(tmp_path / "tiny/latest.pth")["epoch"] == 7


def test_patience__says_what_was_not_trained(data, tmp_path, log):
    exp = scripted(data, tmp_path, (0.3, 0.1, 0.1, 0.1), patience=1, no_aug_epochs=2, warmup_epochs=0)
    exp.get_trainer(TrainOptions(4)).train()
    assert any("the 2 closing epochs without mosaic (no_aug_epochs)" in line for line in log)


def test_best_metric__decides_which_evaluation_is_kept(data, tmp_path):
    exp = scripted(data, tmp_path, (0.1, 0.2, 0.3), best_metric="AP50")  # falls: 0.9, 0.8, 0.7
    exp.max_epoch = 3
    exp.get_trainer(TrainOptions(4)).train()
    best = load_checkpoint(tmp_path / "tiny/best.pth")
    assert (best["epoch"], best["best"]) == (1, 0.9)
    rows = list(csv.DictReader((tmp_path / "tiny/metrics.csv").open()))
    assert [float(row["AP"]) for row in rows] == [0.1, 0.2, 0.3]


def test_best_metric__that_the_protocol_lacks_is_refused(data, tmp_path):
    evaluator = tiny_exp(data, tmp_path).get_evaluator(1)
    check_metric("APr", 3, evaluator)
    check_metric("F1", None, evaluator)
    with pytest.raises(UserError, match=r"best_metric 'AP3' is unknown; this evaluation has AP, AP50, .*APf, .*, F1"):
        check_metric("AP3", None, evaluator)


def test_f1__is_1_for_the_truth_and_2_thirds_with_as_many_false_ones_above(data, tmp_path):
    evaluator = tiny_exp(data, tmp_path).get_evaluator(1)
    index = evaluator.index
    images = np.repeat(index.image_ids, np.diff(index.box_offsets))
    truth = DetectionArrays(images, index.category_ids[index.labels], index.boxes, np.full(len(images), 0.5))
    wrong = DetectionArrays(images, truth.category_ids, index.boxes * [0, 0, 0, 0] + [0, 0, 1, 1], truth.scores + 0.1)
    for found, expected in ((truth, 1.0), (DetectionArrays.concatenate([wrong, truth]), 2 / 3)):
        evaluator.detections = found
        assert mean_best_f1(evaluator, evaluator.score(found)) == pytest.approx(expected)
