"""Report: the table and the file per category."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import pytest

from tests.evaluate.cases import random_case
from yolox_lt.evaluate import evaluate_lvis


def test_table__aligned_values_in_percent() -> None:
    gt, dt = random_case(4, num_categories=2)
    report = evaluate_lvis(gt, dt, max_dets=77)
    report.metrics["AP"], report.metrics["ARl"] = 0.28349, 1.0
    title, names, values, recall_names, recalls = report.table().splitlines()
    assert title == "LVIS AP, 77 detections per image, in percent (12 images, 2 of 2 categories with boxes)"
    assert " ".join(names.split()) == "AP AP50 AP75 APs APm APl APr APc APf"
    assert " ".join(recall_names.split()) == "AR ARs ARm ARl"
    assert values.split()[0] == "28.3"
    assert values.split()[8] == "-"  # APf: no third category
    assert recalls.split()[3] == "100.0"
    assert len(names) == len(values)


def test_write_csv__one_line_per_category(tmp_path: Path) -> None:
    gt, dt = random_case(4, num_categories=3)
    last = gt["categories"][-1]
    last["name"] = 'bow_(weapon), "ä"'
    gt["annotations"] = [entry for entry in gt["annotations"] if entry["category_id"] != last["id"]]
    report = evaluate_lvis(gt, dt)
    path = tmp_path / "per_category.csv"
    report.write_csv(path)
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["id"]) for row in rows] == report.category_ids.tolist()
    assert [row["group"] for row in rows] == ["r", "c", "f"]
    assert rows[2]["name"] == 'bow_(weapon), "ä"'
    assert math.isnan(float(rows[2]["AP"]))
    assert rows[2]["instances"] == rows[2]["images"] == "0"
    for c in (0, 1):
        entries = [entry for entry in gt["annotations"] if entry["category_id"] == report.category_ids[c]]
        assert int(rows[c]["instances"]) == int(rows[c]["boxes"]) == len(entries)
        assert int(rows[c]["images"]) == len({entry["image_id"] for entry in entries})
        for name in ("AP", "AP50", "AR", "APs"):
            assert float(rows[c][name]) == pytest.approx(report.per_category[name][c], abs=1e-6, nan_ok=True)


def test_write_csv__no_groups(tmp_path: Path) -> None:
    gt, dt = random_case(4)
    for category in gt["categories"]:
        del category["frequency"]
    report = evaluate_lvis(gt, dt)
    assert report.groups is None
    report.write_csv(tmp_path / "per_category.csv")
    lines = (tmp_path / "per_category.csv").read_text().splitlines()
    assert lines[0] == "id,name,group,images,instances,boxes,detections,AP,AP50,AP75,APs,APm,APl,AR,ARs,ARm,ARl"
    assert lines[1].split(",")[2] == ""
