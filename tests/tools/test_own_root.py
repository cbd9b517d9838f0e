"""A run whose experiment finds its data by a method of its own, scored without the experiment's file."""

from __future__ import annotations

import pytest

from tests.tiny import tiny_data, tiny_exp
from yolox_lt.commands import main
from yolox_lt.exp import GlyphExp
from yolox_lt.train.callbacks.report import ReportCallback
from yolox_lt.train.engine import Trainer
from yolox_lt.train.options import TrainOptions


def test_eval__without_the_file_finds_the_data_beside_the_run(tmp_path_factory, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(ReportCallback, "write_report", lambda self: None)
    data = tiny_data(tmp_path_factory)
    monkeypatch.setattr(GlyphExp, "data_root", lambda self: data)
    monkeypatch.setattr(GlyphExp, "prepare_data", lambda self: None)
    Trainer(tiny_exp(data, tmp_path, data_dir=None, max_epoch=1, max_iter=2), TrainOptions(4)).train()
    words = ["eval", "-c", str(tmp_path / "tiny/best.pth"), "--device", "cpu", "-d", "1"]
    main(words)
    assert "12 images, 4 of 4 categories with boxes" in capsys.readouterr().out
    (tmp_path / "tiny/config.json").unlink()  # a checkpoint that was given away
    with pytest.raises(SystemExit):
        main(words)
    assert "glyphs_val.json: annotation file not found; set data_dir" in capsys.readouterr().err
    main([*words, "data_dir", str(data)])
    assert "12 images, 4 of 4 categories with boxes" in capsys.readouterr().out
