"""The evaluation of a training and tools/eval.py: one protocol, one precision, one limit."""

from __future__ import annotations

import csv
import shutil

import numpy as np
import pytest
import torch

from tests.tiny import tiny_data, tiny_exp
from yolox_lt.checkpoint import load_checkpoint
from yolox_lt.commands import main
from yolox_lt.data.annotations.index import AnnotationIndex
from yolox_lt.distributed.processes import ProcessInfo
from yolox_lt.evaluate.results import DetectionArrays
from yolox_lt.evaluate.scoring import score
from yolox_lt.train.callbacks.report import ReportCallback
from yolox_lt.train.engine import Trainer
from yolox_lt.train.options import TrainOptions

NONE = DetectionArrays(np.zeros(0, int), np.zeros(0, int), np.zeros((0, 4)), np.zeros(0))


@pytest.mark.parametrize(
    ("more", "name", "limit"), [({}, "COCO AP", 100), ({"neg_category_ids": []}, "LVIS AP", 7), ({}, "LVIS AP", 7)]
)
def test_report__carries_its_protocol(more, name, limit):
    index = AnnotationIndex.load(
        {
            "images": [{"id": 1, "width": 9, "height": 9, "file_name": "a.jpg", **more}],
            "categories": [{"id": 1, "name": "a"}],
        }
    )
    report = score(index, NONE, "lvis" if not more and name == "LVIS AP" else "auto", max_detections=7)
    assert (report.rules.name, report.rules.max_dets) == (name, limit)
    assert len(report.to_find) == 0


def test_eval__of_a_run_in_mixed_precision_repeats_its_own_evaluation(tmp_path_factory, tmp_path, monkeypatch, capsys):
    """By LVIS's protocol with 7 detections an image: the same number of each category took part, the same AP."""
    monkeypatch.setattr(ReportCallback, "write_report", lambda self: None)
    data = tiny_data(tmp_path_factory)
    exp = tiny_exp(data, tmp_path, max_epoch=1, max_detections=7)
    Trainer(exp, TrainOptions(4, ProcessInfo(0, 1, torch.device("cpu")), amp=torch.bfloat16)).train()
    assert load_checkpoint(tmp_path / "tiny/best.pth")["amp"] == "bfloat16"
    own = tmp_path / "own.csv"
    shutil.copy(tmp_path / "tiny/per_category.csv", own)
    tables = {}
    for words in ((), ("--fp32",)):
        again = tmp_path / f"again{len(words)}.csv"
        given = ("-c", str(tmp_path / "tiny/best.pth"), "--device", "cpu", "-d", "1", "-b", "5", "--csv", str(again))
        main(["eval", *given, *words])
        captured = capsys.readouterr()
        assert "LVIS AP, 7 detections per image" in captured.out
        assert ("evaluated in bfloat16, as in its training" in captured.err) != bool(words)
        with again.open() as file:
            tables[words] = list(csv.DictReader(file))
    with own.open() as file:
        rows = list(csv.DictReader(file))
    columns = ("name", "boxes", "detections", "AP", "AP50", "AR", "threshold")
    assert [[row[c] for c in columns] for row in rows] == [[row[c] for c in columns] for row in tables[()]]
    assert 0 < sum(int(row["detections"]) for row in rows) <= 7 * 12
