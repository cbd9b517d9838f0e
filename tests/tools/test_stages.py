"""One command for an experiment that starts from another one's finished run."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.tiny import TINY, tiny_data
from tests.two_stage import two_stage_exp
from yolox_lt.checkpoint import load_checkpoint
from yolox_lt.commands.train import main, make_parser, stages
from yolox_lt.errors import UserError

BASE = """
from yolox_lt.exp import GlyphTwoStageExp
class Exp(GlyphTwoStageExp):
    num_classes = {num_categories}
    glyph_image_size, glyph_train_images, glyph_val_images = {image_size}, {train_images}, {val_images}
    fpn_channels, head_width, short_sides, long_side, test_size = 32, 64, (64,), 64, (64, 64)
    max_epoch, max_iter, eval_interval, data_num_workers, seed = 2, 2, 100, 0, 0
"""
SECOND = (
    BASE
    + """    first_stage = "base.py"
    classifier_only, sampler, max_epoch = True, "class_balanced", 1
"""
)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "base.py").write_text(BASE.format(**TINY))
    (tmp_path / "second.py").write_text(SECOND.format(**TINY))
    return tmp_path


def arguments(folder: Path, *words: str):
    return make_parser().parse_args(["-f", str(folder / "second.py"), "-d", "1", "-b", "2", *words])


def test_stages__overrides_that_both_have_alike_count_for_both(folder):
    first, second = stages(arguments(folder, "data_dir", "/data", "output_dir", str(folder), "max_epoch", "5"))
    assert first.exp_file == str(folder / "base.py")
    assert first.opts == ["data_dir", "/data", "output_dir", str(folder)]
    assert second.opts[-2:] == ["start_from", str(folder / "base" / "latest.pth")]
    assert second.opts[:-2] == ["data_dir", "/data", "output_dir", str(folder), "max_epoch", "5"]
    assert not first.resume


def test_stages__a_start_given_otherwise_leaves_the_second_alone(folder):
    assert len(stages(arguments(folder, "start_from", "some.pth"))) == 1
    given = make_parser().parse_args(["-f", str(folder / "second.py"), "-c", "some.pth"])
    assert stages(given) == [given]
    plain = make_parser().parse_args(["-f", str(folder / "base.py")])
    assert stages(plain) == [plain]


def test_stages__processes_of_torchrun_train_one_run(folder, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    args = make_parser().parse_args(["-f", str(folder / "second.py"), "output_dir", str(folder)])
    with pytest.raises(UserError, match=r"not finished; train .*base\.py first"):
        stages(args)


@pytest.mark.usefixtures("without_report")
def test_main__trains_both_and_then_only_what_is_missing(folder, tmp_path_factory):
    data = tiny_data(tmp_path_factory)
    words = ("data_dir", str(data), "output_dir", str(folder / "out"))
    main(arguments(folder, *words))
    first, second = (load_checkpoint(folder / "out" / name / "latest.pth") for name in ("base", "second"))
    assert (first["iteration"], second["iteration"]) == (4, 2)
    moved = [name for name, value in second["model"].items() if not torch.equal(value, first["model"][name])]
    assert sorted(moved) == ["head.cls_pred.bias", "head.cls_pred.weight"]
    assert len(stages(arguments(folder, *words))) == 1  # the first is finished
    resumed = arguments(folder, *words)
    resumed.resume = True
    assert stages(resumed) == [resumed]


def test_second__without_a_first_says_what_to_give(folder, tmp_path_factory):
    exp = two_stage_exp(tiny_data(tmp_path_factory), folder, classifier_only=True)
    with pytest.raises(UserError, match="start_from or -c"):
        exp.load_pretrained(exp.get_model())
