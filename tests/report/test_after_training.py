"""Scan and thresholds of a run's folder: what is written is what the page shows."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
import torch

from tests.report.made_run import make_run
from yolox_lt.calibrate.calibrator_state import Thresholds
from yolox_lt.errors import UserError
from yolox_lt.report.analysis.after_training import MEANS, SCAN, THRESHOLDS, read_scans, write_scan
from yolox_lt.report.analysis.category_thresholds import group_means
from yolox_lt.report.page.after_section import after_training, scan_charts
from yolox_lt.report.page.page import write_page

NAN = float("nan")

COLUMNS = {
    "strength": [NAN, 0.5],
    "held_out": [np.array([0.2, NAN, 0.1, 0.3]), np.array([0.25, NAN, 0.2, 0.3])],
    "fixed": [np.array([0.3, NAN, 0.3, 0.3]), np.array([0.3, NAN, 0.3, 0.3])],
    "places": [np.array([0.0, 0.25, 0.75]), np.array([0.0, 0.5, 0.5])],
}


def write_files(folder):
    """A scan and thresholds of best.pth in a run's folder."""
    write_scan(folder / "best_prior.pth", "prior", 1, 300, COLUMNS)
    rule = {"rule": "best F1", "group": "", "categories": 8}
    (folder / f"best{THRESHOLDS}").write_text(
        json.dumps({"checkpoint": "best.pth", "rows": [rule | dict(zip(MEANS, (0.25, 0.5, None, 0.4)))]})
    )


def test_page__holds_what_the_scan_found(tmp_path):
    make_run(tmp_path / "run")
    assert after_training(tmp_path / "run") == {"scans": [], "thresholds": []}
    write_files(tmp_path / "run")
    text = write_page(tmp_path / "run").read_text()
    data = json.loads(re.findall(r'id="data">(.*?)</script>', text, re.DOTALL)[0])
    (scan,), (thresholds,) = (data["runs"][0]["after"][name] for name in ("scans", "thresholds"))
    assert (scan["checkpoint"], scan["method"], scan["chosen"], scan["cap"]) == ("best_prior.pth", "prior", 1, 300)
    assert scan["strength"] == [None, 0.5]
    assert scan["held_out"] == [[0.2, None, 0.1, 0.3], [0.25, None, 0.2, 0.3]]
    ap, fixed, places = scan["charts"]
    assert [(s["name"], s["color"], s["x"], s["y"]) for s in ap["series"]] == [
        ("AP", "all", [0, 0.5], [20, 25]),
        ("APc", "c", [0, 0.5], [10, 20]),
        ("APf", "f", [0, 0.5], [30, 30]),
    ]
    assert [s["y"] for s in fixed["series"]] == [[30, 30]] * 3
    assert [(s["name"], s["y"]) for s in places["series"]] == [
        ("rare", [0, 0]),
        ("common", [25, 50]),
        ("frequent", [75, 50]),
    ]
    assert thresholds["rows"][0]["recall"] is None


def test_scan_charts__without_any_calibrator_at_zero():
    scan = {"method": "tau", "cap": 20, "strength": [None], "held_out": [[None] * 4], "fixed": [[0.1] * 4]}
    ap, fixed, places = scan_charts(scan | {"places": [[0, 0, 1]]})
    assert ap.empty
    assert fixed.series[0].x.tolist() == [0]
    assert places.title == "Who takes the 20 places"


def test_group_means__by_hand():
    """F1 = 2 PR / (P + R): 2/3 and 0 (recall 0, no precision); the third has no boxes, the fourth no threshold."""
    made = Thresholds(
        "best F1",
        torch.tensor([0.5, 0.25, 0.25, NAN]),
        torch.tensor([1.0, NAN, NAN, NAN]),
        torch.tensor([0.5, 0.0, NAN, 0.0]),
    )
    every, rare, frequent = group_means(made, np.array(["r", "r", "f", "f"]))
    assert every[:2] == ("", 4)
    assert every[2] == pytest.approx([1 / 3, 1, 1 / 6, 2 / 9])
    assert rare[:2] == ("r", 2)
    assert rare[2] == pytest.approx([0.375, 1, 0.25, 1 / 3])
    assert frequent[2] == pytest.approx([0.25, NAN, 0, 0], nan_ok=True)
    assert [group for group, *_ in group_means(made, None)] == [""]


@pytest.mark.parametrize(
    "change",
    [
        {"chosen": 2},
        {"held_out": [[0.1] * 4]},
        {"places": [[0.1] * 3, [0.1] * 4]},
        {"fixed": [[0.1] * 4, ["x"] * 4]},
        {"method": None},
        {"strength": None},
    ],
)
def test_read_scans__refuses_what_is_none(tmp_path, change):
    write_scan(tmp_path / "a.pth", "prior", 1, 300, COLUMNS)
    path = tmp_path / f"a{SCAN}"
    assert len(read_scans(tmp_path)) == 1
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(UserError, match=r"a\.scan\.json: .*; delete it"):
        read_scans(tmp_path)


def test_after_training__refuses_broken_files(tmp_path):
    for name, text in (
        ("b" + THRESHOLDS, "{"),
        ("b" + THRESHOLDS, '{"checkpoint": "b", "rows": [{}]}'),
        ("b" + SCAN, "[]"),
    ):
        (tmp_path / name).write_text(text)
        with pytest.raises(UserError, match=f"{name}: .*; delete it"):
            after_training(tmp_path)
        (tmp_path / name).unlink()
