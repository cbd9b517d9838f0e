"""Every row of the paper's tables has a file: the list of rows against docs/reproduce.md and exps/."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from yolox_lt.exp import get_exp

ROOT = Path(__file__).resolve().parents[2]

LVIS = {
    "RetinaNet R-50": "18.5 / 9.6 / 16.1 / 25.0",
    "RetinaNet R-101": "19.6 / 10.1 / 17.3 / 26.2",
    "RetinaNet + EQLv2&Focal": "20.5 / 12.6 / 19.2 / 25.4",
    "RetinaNet + EFL": "20.5 / 15.2 / 18.6 / 24.8",
    "FCOS*": "22.6 / 12.7 / 20.9 / 28.9",
    "FCOS* + EQLv2&Focal": "23.0 / 14.1 / 21.3 / 28.7",
    "FCOS* + EFL": "23.4 / 14.9 / 21.9 / 28.7",
    "PAA": "23.7 / 14.2 / 21.6 / 30.2",
    "PAA + EQLv2&Focal": "24.1 / 16.5 / 22.1 / 29.8",
    "PAA + EFL": "25.6 / 19.8 / 23.8 / 30.2",
    "ATSS": "24.7 / 13.7 / 23.4 / 31.1",
    "ATSS + EQLv2&Focal": "25.2 / 15.0 / 24.3 / 30.8",
    "ATSS + EFL, no improvements": "25.8 / 18.1 / 24.5 / 30.6",
    "improved baseline R-50": "25.7 / 14.3 / 23.8 / 32.7",
    "improved baseline R-101": "27.0 / 14.4 / 25.7 / 34.0",
    "EFL R-50": "27.5 / 20.2 / 26.1 / 32.4",
    "EFL R-101": "29.2 / 23.5 / 27.4 / 33.8",
    "Faster R-CNN R-50": "24.1 / 14.7 / 22.2 / 30.5",
    "Faster R-CNN R-101": "25.7 / 15.1 / 24.1 / 32.0",
    "EQL R-50": "25.1 / 15.7 / 24.4 / 30.1",
    "EQLv2 R-50": "25.5 / 16.4 / 23.9 / 31.2",
    "EQLv2 R-101": "26.9 / 18.2 / 25.4 / 32.4",
    "Seesaw R-50": "26.4 / 17.5 / 25.3 / 31.5",
    "Seesaw R-101": "27.8 / 18.7 / 27.0 / 32.8",
    "cRT R-50": "24.8 / 15.9 / 23.6 / 30.1",
    "BAGS R-50": "26.0 / 17.2 / 24.9 / 31.1",
    "BAGS R-101": "27.6 / 18.7 / 26.5 / 32.6",
    "EFL, weighting alone": "26.1 / 15.6 / 24.5 / 32.6",
    "EFL, focusing alone": "26.2 / 17.7 / 24.7 / 31.5",
    "EFL, s = 1": "26.3 / 16.3 / 24.6 / 32.6",
    "EFL, s = 2": "26.6 / 17.6 / 24.6 / 32.7",
    "EFL, s = 4": "27.3 / 19.9 / 25.5 / 32.6",
    "EFL, s = 12": "26.5 / 19.9 / 24.6 / 31.6",
    "ATSS + EFL, stabilised": "26.1 / 18.6 / 24.8 / 30.8",
    "ATSS + EFL, stabilised, IoU branch": "26.8 / 18.7 / 25.4 / 31.9",
    "ATSS + EFL, stabilised, anchors": "26.5 / 20.0 / 24.8 / 31.1",
    "YOLOX-S": "15.2 / 2.9 / 11.6 / 24.7",
    "YOLOX-S* FL": "18.5 / 3.6 / 15.7 / 28.2",
    "YOLOX-S* EFL": "23.3 / 18.1 / 21.2 / 28.0",
    "YOLOX-S* QFL": "22.5 / 11.0 / 20.6 / 29.7",
    "YOLOX-S* EQFL": "24.2 / 16.3 / 22.7 / 29.4",
    "YOLOX-M": "20.9 / 5.3 / 17.6 / 31.5",
    "YOLOX-M* FL": "25.0 / 7.1 / 23.5 / 34.4",
    "YOLOX-M* EFL": "30.0 / 23.8 / 28.2 / 34.7",
    "YOLOX-M* QFL": "28.9 / 16.8 / 27.2 / 36.1",
    "YOLOX-M* EQFL": "31.0 / 24.0 / 29.1 / 36.2",
}
OPEN_IMAGES = {
    "Faster R-CNN R-50": "43.1: 26.3 / 42.5 / 45.2 / 48.2 / 52.6",
    "RetinaNet R-50": "32.1: 21.0 / 34.0 / 35.4 / 35.6 / 34.2",
    "improved baseline R-50": "43.3: 19.4 / 44.3 / 49.5 / 50.6 / 52.2",
    "EFL R-50": "51.5: 52.8 / 52.9 / 50.8 / 50.2 / 50.9",
    "Faster R-CNN R-101": "46.0: 29.2 / 45.5 / 49.3 / 50.9 / 54.7",
    "RetinaNet R-101": "35.8: 26.4 / 38.9 / 38.3 / 38.1 / 36.8",
    "improved baseline R-101": "44.7: 19.6 / 46.6 / 51.1 / 52.3 / 53.4",
    "EFL R-101": "52.6: 53.4 / 53.8 / 51.4 / 51.8 / 52.3",
}
COCO = {
    "FL": "42.3 / 61.0 / 45.7 / 26.7 / 46.2 / 53.0",
    "EFL s=2": "42.4 / 61.0 / 46.1 / 26.5 / 46.2 / 53.2",
    "EFL s=4": "42.3 / 61.2 / 45.6 / 26.6 / 46.1 / 52.9",
    "EFL s=8": "42.2 / 60.8 / 45.6 / 26.4 / 46.1 / 52.7",
}
FOLDERS = {"lvis": LVIS, "openimages": OPEN_IMAGES, "coco": COCO}


def documented_rows() -> list[tuple[str, list[str], str]]:
    """(file, overrides, the paper's figures) of every row of docs/reproduce.md."""
    rows = []
    for line in (ROOT / "docs" / "reproduce.md").read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        found = re.findall(r"`([^`]+)`", cells[1]) if len(cells) == 4 else []
        if found and found[0].startswith("exps/"):
            rows.append((found[0], " ".join(found[1:]).split(), cells[2]))
    return rows


ROWS = documented_rows()


@pytest.mark.parametrize("folder", FOLDERS)
def test_rows__each_has_a_file(folder):
    figures = {paper for file, _, paper in ROWS if file.startswith(f"exps/{folder}/")}
    assert [name for name, paper in FOLDERS[folder].items() if paper not in figures] == []


@pytest.mark.parametrize(("file", "overrides"), [(file, pairs) for file, pairs, _ in ROWS])
def test_rows__files_and_overrides_are_what_an_experiment_takes(file, overrides):
    exp = get_exp(ROOT / file)
    exp.merge(overrides)
    assert ("r101" in file) == (getattr(exp, "resnet_depth", None) == 101)
    if getattr(exp, "first_stage", None) is not None:
        base = get_exp((ROOT / file).parent / exp.first_stage)
        assert base.cls_loss == "softmax"
        assert base.resnet_depth == exp.resnet_depth
        assert exp.max_iter * exp.max_epoch == 75_000
        assert exp.sampler == "class_balanced"
        assert exp.classifier_only


def test_rows__two_stage_models_have_the_width_of_their_loss():
    """No data is read for it: 1204, 1203, 1204, 1205 and 1209 outputs for 1203 categories."""
    widths = {"softmax": 1204, "eql": 1203, "eqlv2": 1204, "seesaw": 1205, "bags": 1209}
    files = sorted((ROOT / "exps" / "lvis").glob("faster_rcnn_*.py"))
    assert len(files) == 10
    for file in files:
        exp = get_exp(file)
        assert exp.num_outputs() == widths[exp.cls_loss]
        assert exp.normed_classifier == (exp.cls_loss == "seesaw")
        lr = exp.get_lr_scheduler(0.02, 5000)
        assert lr(0) == pytest.approx(0.02 * 0.001)
        assert lr(250) == pytest.approx(0.02 * (1 - 0.999 * 0.5))
        assert lr(500) == pytest.approx(0.02)
        assert lr(499) < 0.02
