"""A user's experiment file through train, resume, eval, load, demo and export; nothing in the package knows it."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import torch

import yolox_lt
from tests.tiny import TINY
from yolox_lt.checkpoint import load_checkpoint
from yolox_lt.commands import main
from yolox_lt.errors import UserError
from yolox_lt.types import Detections

SETTINGS = {
    **{"seed": 0, "depth": 0.33, "width": 0.125, "input_size": "(64,64)", "test_size": "(64,64)"},
    **{"multiscale_range": 0, "mosaic_prob": 0.0, "max_epoch": 2, "max_iter": 3, "eval_interval": 1},
    **{"warmup_epochs": 0, "no_aug_epochs": 0, "data_num_workers": 0},
}
"""As `tests.tiny`, two epochs of three iterations, each evaluated."""

GLYPHS = f"""
    num_classes = {TINY["num_categories"]}
    glyph_image_size, glyph_train_images, glyph_val_images = 64, {TINY["train_images"]}, {TINY["val_images"]}
"""
"""What the class body of an experiment on the tiny glyphs says."""


def run(*words: object) -> None:
    """A command of yolox-lt in this process; it must end well."""
    main([str(word) for word in words])  # an error ends it with SystemExit, which no test survives


def train(file: Path, output: Path, *more: object) -> Path:
    """Train on one CPU process; the folder of the run."""
    run("train", "-f", file, "-d", 1, "--device", "cpu", "-b", 4, *more, "output_dir", output)
    return output / file.stem


def walk(file: Path, tmp_path: Path, data: Path, overrides: list[str]) -> Path:
    """The whole way of one file; the folder of its run.

    Args:
        data: folder of the tiny glyphs. overrides: methods without which a checkpoint must not be used.
    """
    settings = [word for pair in (SETTINGS | {"data_dir": data}).items() for word in pair]
    whole = train(file, tmp_path / "whole", *settings)
    resumed = train(file, tmp_path / "resumed", "--resume", "-c", whole / "epoch_1.pth")
    assert_same_run(load_checkpoint(whole / "latest.pth"), load_checkpoint(resumed / "latest.pth"))

    checkpoint = whole / "latest.pth"
    run("eval", "-f", file, "-c", checkpoint, "--device", "cpu", "-d", 1, "-b", 4, "--csv", tmp_path / "scores.csv")
    assert_last_scores(whole, tmp_path / "scores.csv")

    if overrides:
        with pytest.raises(UserError, match=f"its experiment overrides {', '.join(overrides)}, .*-f {file.name}"):
            yolox_lt.load(checkpoint)
    image = next(iter(sorted(data.glob("val2017/*.jpg"))))
    detector = yolox_lt.load(checkpoint, exp=file)
    detector.exp.nmsthre = 0.45  # the demo's
    found = detector(image, conf=1e-6)
    assert len(found) > 5
    assert len(found.names) == TINY["num_categories"]

    records = tmp_path / "found.json"
    run("demo", "image", "--path", image, "-c", checkpoint, "-f", file, "--conf", 1e-6, "--all-labels", "--device",
        "cpu", "--save", tmp_path / "drawn", "--json", records)  # fmt: skip
    (record,) = json.loads(records.read_text())
    assert record["detections"] == found.to_list()
    assert (tmp_path / "drawn" / f"{image.stem}.jpg").is_file()

    exported = tmp_path / "model.onnx"
    run("export", "-c", checkpoint, "-f", file, "--format", "onnx", "-o", exported)
    from_file = yolox_lt.load(exported, exp=file)
    from_file.exp.nmsthre = 0.45
    assert_close(from_file(image, conf=1e-6), found)
    return whole


def assert_same_run(a: dict, b: dict) -> None:
    """Weights, averages, optimiser and the state of the loss are equal to the last bit."""
    assert a["iteration"] == b["iteration"] == 6
    for part in ("model", "criterion"):
        assert a[part].keys() == b[part].keys()
        assert all(torch.equal(value, b[part][name]) for name, value in a[part].items()), part
    assert all(torch.equal(value, b["ema"]["model"][name]) for name, value in a["ema"]["model"].items())


def assert_last_scores(folder: Path, scores: Path) -> None:
    """eval's AP of every category is the one that the training wrote for its last evaluation."""
    with (folder / "metrics.csv").open() as file:
        ap = float(list(csv.DictReader(file))[-1]["AP"])
    with scores.open() as file:
        rows = [float(row["AP"]) for row in csv.DictReader(file) if row["AP"] not in ("", "nan")]
    assert sum(rows) / len(rows) == pytest.approx(ap, abs=1e-6)


def assert_close(found: Detections, want: Detections) -> None:
    """The same detections; those of nearly equal scores may be exchanged by rounding."""
    assert abs(len(found) - len(want)) <= 2
    count = min(len(found), len(want))
    torch.testing.assert_close(found.scores[:count], want.scores[:count], rtol=0, atol=1e-4)
