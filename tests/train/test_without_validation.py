"""A run that is not scored: val_ann None."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from tests.tiny import tiny_exp
from yolox_lt.checkpoint import load_checkpoint
from yolox_lt.commands import main
from yolox_lt.errors import UserError
from yolox_lt.train.engine import Trainer
from yolox_lt.train.options import TrainOptions

pytestmark = pytest.mark.xdist_group("without_validation")


@pytest.fixture(scope="module")
def run(data, tmp_path_factory) -> Path:
    """Folder of two epochs, where every epoch would be scored, and the page of the run."""
    folder = tmp_path_factory.mktemp("unscored")
    exp = tiny_exp(data, folder, val_ann=None, max_iter=3, eval_interval=1, no_aug_epochs=1)
    Trainer(exp, TrainOptions(4)).train()
    return folder / "tiny"


def test_run__leaves_its_last_weights_and_a_page(run):
    assert {path.name for path in run.glob("*.pth")} == {"latest.pth"}
    content = load_checkpoint(run / "latest.pth")
    assert (content["iteration"], content["epoch"], content["exp"]["val_ann"]) == (6, 2, None)
    with (run / "metrics.csv").open() as file:
        assert [row["AP"] for row in csv.DictReader(file)] == ["", ""]
    text = (run / "train.log").read_text(encoding="utf-8")
    assert "val_ann is None: nothing is scored, so there is no best.pth" in text
    assert "\r" not in text
    assert (run / "report.html").is_file()


def test_resume__continues_and_may_be_scored_from_now_on(run, data, log):
    exp = tiny_exp(data, run.parent, max_iter=3, max_epoch=3, val_ann="glyphs_val.json")
    Trainer(exp, TrainOptions(4, resume=True)).train()
    assert load_checkpoint(run / "best.pth")["epoch"] == 3
    assert any("val_ann 'glyphs_val.json' from now on, until here None" in line for line in log)


def test_patience__needs_evaluations(data, tmp_path):
    with pytest.raises(UserError, match=r"patience 3 counts evaluations, but val_ann is None"):
        Trainer(tiny_exp(data, tmp_path, val_ann=None, patience=3), TrainOptions(4)).train()


def test_eval__says_what_to_give(run, data, capsys):
    """And its output, which is no terminal, has no bars."""
    words = ["eval", "-c", str(run / "latest.pth"), "--device", "cpu", "-d", "1", "data_num_workers", "0"]
    with pytest.raises(SystemExit) as end:
        main([*words, "val_ann", "None"])
    assert end.value.code == 1
    assert "val_ann is None: there are no annotations to score with; give val_ann FILE" in capsys.readouterr().err
    main([*words, "val_ann", "glyphs_val.json"])
    captured = capsys.readouterr()
    assert "AP" in captured.out
    assert "\r" not in captured.err + captured.out
