"""tools/calibrate.py and the thresholds of tools/eval.py on a tiny trained run, in this process."""

from __future__ import annotations

import json
import math
import re

import numpy as np
import pytest
import torch

import yolox_lt
from tests.tiny import tiny_data, tiny_exp
from yolox_lt.calibrate import PriorAdjustment
from yolox_lt.calibrate.calibrator_state import calibrator_of
from yolox_lt.checkpoint import load_checkpoint, save_checkpoint
from yolox_lt.commands import main
from yolox_lt.commands.calibrate import NO_LIMIT, Row, choose_row, halves, scan_strengths
from yolox_lt.evaluate.bootstrap import LVIS, Matched
from yolox_lt.report.analysis.after_training import read_scans, read_thresholds
from yolox_lt.train.callbacks.report import ReportCallback
from yolox_lt.train.engine import Trainer
from yolox_lt.train.options import TrainOptions

pytestmark = pytest.mark.xdist_group("calibrate")


@pytest.fixture(scope="module")
def best(tmp_path_factory):
    """best.pth of a tiny run."""
    output = tmp_path_factory.mktemp("calibrate")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ReportCallback, "write_report", lambda self: None)
        Trainer(tiny_exp(tiny_data(tmp_path_factory), output, max_epoch=1, max_iter=8), TrainOptions(4)).train()
    return output / "tiny/best.pth"


def command(capsys, *words, status=0):
    code = 0
    try:
        main([*map(str, words)])
    except SystemExit as end:
        code = int(end.code or 0)
    out, err = capsys.readouterr()
    assert code == status, err
    return out + err


def test_train__best_has_thresholds_and_every_detector_uses_them(best):
    content = load_checkpoint(best)
    thresholds = content["thresholds"]
    assert thresholds["names"] == content["names"]
    assert thresholds["conf"].shape == (4,)
    assert yolox_lt.load(best).thresholds.rule == "best F1"
    (written,) = read_thresholds(best.parent)  # by group, all first, for the page
    means = [np.nanmean(thresholds[name].double().numpy()) for name in ("conf", "recall")]
    assert [written["rows"][0][name] for name in ("conf", "recall")] == pytest.approx(means, abs=1e-6)
    assert [row["rule"] for row in written["rows"] if not row["group"]] == ["best F1", "0.3 for all"]


def test_calibrate__scan_tables_what_eval_finds(best, capsys, tmp_path):
    """AP-fixed and AP of the whole set from the scan's detections equal those of an evaluation of the written file."""
    target = best.with_name("calibrated.pth")  # beside config.json, which says where the data is
    text = command(capsys, "calibrate", "-c", best, "--method", "prior", "--tau", 1, "-o", target)
    assert "calibrator: prior" in text
    content = load_checkpoint(target)
    assert "thresholds" not in content
    calibrator = calibrator_of(content, target)
    assert isinstance(calibrator, PriorAdjustment)
    assert calibrator.tau == 1
    results = [tmp_path / f"{name}.json" for name in ("raw", "folded")]
    command(capsys, "eval", "-c", best, "-d", 1, "--device", "cpu", "--save", results[0])
    text = command(capsys, "eval", "-c", target, "-d", 1, "--device", "cpu", "--save", results[1], "--thresholds")
    assert "LVIS AP-fixed" in text  # beside AP, without being asked for
    assert "thresholds of the categories by best F1" in text
    assert load_checkpoint(target)["thresholds"]["names"] == content["names"]
    detector = yolox_lt.load(best)
    exp = detector.exp
    rows, evaluator = scan_strengths(
        exp, detector.model, [None, calibrator], (math.nan, 1.0), detector.names, torch.device("cpu"), 4
    )
    assert exp.max_detections < NO_LIMIT
    tuning, held_out = halves(12)
    for row, file in zip(rows, results):
        matched = Matched.of(evaluator.index, file, LVIS, evaluator.groups)
        assert row.tuning == pytest.approx(matched.metrics(tuning), abs=1e-6, nan_ok=True)
        assert row.held_out == pytest.approx(matched.metrics(held_out), abs=1e-6, nan_ok=True)
    assert rows[1].places[0] > rows[0].places[0]  # the rare category takes more places


def test_everywhere__the_same_detections_with_calibrator_and_thresholds(best, capsys, tmp_path):
    """Evaluation, API, demo and an exported file on one image."""
    target, results, shown = best.with_name("fracal.pth"), tmp_path / "r.json", tmp_path / "d.json"
    command(capsys, "calibrate", "-c", best, "--method", "fracal", "-o", target)
    command(capsys, "eval", "-c", target, "-d", 1, "--device", "cpu", "--thresholds", "--save", results, "--conf", 0)
    detector = yolox_lt.load(target)
    conf = detector.thresholds.conf
    index = detector.exp.get_index("val")
    image = detector.exp.get_store("val").path(3)
    ids = index.category_ids.tolist()
    entries = [entry for entry in json.loads(results.read_text()) if entry["image_id"] == index.image_ids[3]]
    want = sorted(e["score"] for e in entries if e["score"] >= conf[ids.index(e["category_id"])])
    found = detector(image)
    assert len(want) > 0
    assert sorted(found.scores.tolist()) == pytest.approx(want, abs=1e-5)
    overlap = detector.exp.nmsthre
    words = ["--path", image, "--save", tmp_path / "drawn", "--json", shown, "--all-labels", "--nms", overlap]
    command(capsys, "demo", "image", "-c", target, "--device", "cpu", *words)
    drawn = json.loads(shown.read_text())[0]["detections"]
    assert sorted(d["score"] for d in drawn) == pytest.approx(want, abs=1e-5)
    file = tmp_path / "f.torchscript"
    command(capsys, "export", "-c", target, "--format", "torchscript", "--nms", "-o", file)
    assert sorted(yolox_lt.load(file)(image).scores.tolist()) == pytest.approx(want, abs=1e-4)


def test_calibrate__scan_writes_a_table_and_a_plot(best, capsys, tmp_path):
    text = command(
        capsys, "calibrate", "-c", best, "--method", "norcal", "--background", "--scan", "-o", tmp_path / "n.pth"
    )
    assert "AP-fixed, other half" in text
    assert "chosen on the tuning half" in text
    assert (tmp_path / "n.png").stat().st_size > 1000
    (written,) = read_scans(tmp_path)
    table = text[text.index("tuning half") : text.index("chosen on")].splitlines()
    lines = [line.split() for line in table if re.match(r" +(none|[0-9.]+) ", line)]
    assert [float(line[5]) for line in lines] == pytest.approx([100 * row[0] for row in written["held_out"]], abs=0.051)
    assert ["none" if tau is None else f"{tau:g}" for tau in written["strength"]] == [line[0] for line in lines]
    text = command(capsys, "calibrate", "-c", best, "--method", "logn", "--images", 8, "-o", tmp_path / "l.pth")
    made = calibrator_of(load_checkpoint(tmp_path / "l.pth"), "l.pth")
    assert made.mean.shape == (4,)
    assert (made.mean < 0).all()
    text = command(capsys, "calibrate", "-c", tmp_path / "l.pth", "--method", "none", "-o", tmp_path / "o.pth")
    assert "calibrator" not in load_checkpoint(tmp_path / "o.pth")
    command(capsys, "calibrate", "-c", best, "--method", "norcal", "-o", tmp_path / "n.pth")
    assert read_scans(tmp_path) == []  # the scan was of another strength


def test_halves__share_no_image():
    tuning, held_out = halves(13)
    assert (tuning + held_out == 1).all()
    assert tuning.sum() == 6


def row(strength, ap, frequent):
    return Row(strength, np.array([ap, 0, 0, frequent]), np.zeros(4), np.zeros(4), np.zeros(3))


def test_choose_row__largest_ap_that_costs_frequent_little():
    rows = [row(math.nan, 0.2, 0.4), row(0.1, 0.22, 0.399), row(0.2, 0.25, 0.398), row(0.3, 0.3, 0.397)]
    assert choose_row(rows).strength == 0.2
    assert math.isnan(choose_row([rows[0], row(0.1, 0.19, 0.4)]).strength)


def test_eval__bootstrap_and_difference(best, capsys, tmp_path):
    file = tmp_path / "r.json"
    command(capsys, "eval", "-c", best, "-d", 1, "--device", "cpu", "--save", file)
    ann = json.loads((best.parent / "config.json").read_text())["exp"]["data_dir"] + "/annotations/glyphs_val.json"
    text = command(
        capsys, "eval", "--ann", ann, "--results", file, "--against", file, "--bootstrap", 20, "--protocol", "lvis"
    )
    assert text.count("20 resamples of the images") == 3
    assert "AP    0.00  [0.00, 0.00]" in text.split("less")[1]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["calibrate", "--method", "none", "--scan"], "--method none has no strength"),
        (["calibrate", "--method", "prior", "-o", "/nowhere/x.pth"], "its folder does not exist"),
        (["eval", "--precision", "0.9"], "together with --thresholds"),
        (["eval", "--bootstrap", "1"], "at least 2 resamples"),
        (["eval", "--against", "x.json"], "--bootstrap 1000"),
    ],
)
def test_commands__refuse(best, capsys, words, sentence):
    assert sentence in command(capsys, *words, "-c", best, status=1)


def test_eval__precision_names_what_is_not_reachable(best, capsys, tmp_path):
    target = tmp_path / "p.pth"
    content = torch.load(best, weights_only=True)
    save_checkpoint(target, content | {"exp": load_checkpoint(best)["exp"]})
    text = command(capsys, "eval", "-c", target, "-d", 1, "--device", "cpu", "--thresholds", "--precision", "0.99")
    conf = load_checkpoint(target)["thresholds"]["conf"]
    missing = [name for name, value in zip(content["names"], conf.tolist()) if math.isnan(value)]
    assert missing
    assert f"not reachable, so nothing is reported: {', '.join(missing)}" in text
    assert load_checkpoint(target)["thresholds"]["rule"] == "precision 0.99"
