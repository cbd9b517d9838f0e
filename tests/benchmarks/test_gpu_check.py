"""The GPU check: what its verdicts follow from, that a hanging part ends, and a rehearsal of one part."""

from __future__ import annotations

import io
import json
import sys
import time
from pathlib import Path

import pytest

from benchmarks.gpu.report import FAIL, MISSED, NOT_RUN, PASS, Report
from benchmarks.gpu_check import PARTS, main, missing, watch

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("check", "reach", "reason", "verdict"),
    [
        (True, 2.0, "", PASS),
        (True, 1.0, "", MISSED),
        (False, 2.0, "", FAIL),
        (False, 1.0, "", FAIL),  # what does not hold counts more than what is slow
        (None, None, "torch sees no GPU", NOT_RUN),
        (True, 2.0, "no loader", PASS),  # something was measured
    ],
)
def test_verdict__follows_from_checks_and_reaches(check, reach, reason, verdict):
    report = Report(io.StringIO())
    if check is not None:
        report.check("equal", check)
        report.reach("speed", reach, 1.5)
    if reason:
        report.not_run(reason)
    assert report.verdict() == verdict


def test_reach__at_most():
    report = Report(io.StringIO())
    report.reach("waits", 3, 3, at_least=False)
    assert report.missed == []
    report.reach("waits", 4, 3, at_least=False)
    report.reach("nan never meets a reach", float("nan"), 3, at_least=False)
    assert report.missed == ["waits", "nan never meets a reach"]


def test_watch__ends_a_hanging_part_and_keeps_its_lines():
    """The part's own child, which holds the pipe open, ends too."""
    code = (
        "import subprocess, sys, time; print('first', flush=True); "
        "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']); time.sleep(60)"
    )
    lines: list[str] = []
    start = time.monotonic()
    assert watch([sys.executable, "-c", code], 1.5, lines.append) == "ended after its 2 s"
    assert time.monotonic() - start < 10
    assert lines == ["first"]


def test_watch__says_the_status_of_a_crash():
    assert watch([sys.executable, "-c", "raise SystemExit(3)"], 30, print) == "ended with status 3"


def test_missing__names_what_cannot_be_imported(tmp_path, monkeypatch):
    (tmp_path / "broken_package.py").write_text("raise RuntimeError('half installed')")
    monkeypatch.syspath_prepend(tmp_path)
    assert missing(("json", "broken_package", "no_such_package")) == ["broken_package", "no_such_package"]


def test_main__rehearsal_of_two_parts(tmp_path, monkeypatch, capsys):
    """Five equal steps are equal on the CPU to the last digit; a part without time left is not run, by name."""
    monkeypatch.chdir(ROOT)
    words = ["--device", "cpu", "--tiny", "--out", str(tmp_path / "out"), "--work", str(tmp_path / "work")]
    assert main([*words, "--parts", "2"]) == 0
    results = json.loads((tmp_path / "out/gpu_check.json").read_text())
    assert results["parts"]["2"]["verdict"] == PASS
    assert results["parts"]["2"]["figures"]["lr 1e-05: losses of step 5, largest relative difference"] == 0
    assert results["machine"]["torch"]
    assert main([*words, "--parts", "1", "--limit", "5"]) == 0
    results = json.loads((tmp_path / "out/gpu_check.json").read_text())
    assert results["parts"]["1"] == {"verdict": NOT_RUN, "reason": "no time left", "figures": {}}
    text = (tmp_path / "out/gpu_check.txt").read_text()
    assert "2| lr 1e-05, step 5: cpu" in text
    assert f"| 1 {PARTS[1].title} | {NOT_RUN} | no time left |" in text
    assert f"| 2 {PARTS[2].title} | {PASS} |  |" in capsys.readouterr().out
