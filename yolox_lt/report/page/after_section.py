"""The page's section on calibration and thresholds, as plain values for json: tables and charts of what lies there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from yolox_lt.report.analysis.after_training import read_scans, read_thresholds
from yolox_lt.report.group_names import GROUP_NAMES
from yolox_lt.report.page.chart import Chart, Series

METRICS = {"AP": "all", "APr": "r", "APc": "c", "APf": "f"}


def after_training(folder: Path) -> dict[str, Any]:
    """scans: those of a run's folder with their charts. thresholds: what those of its checkpoints give by group."""
    scans = read_scans(folder)
    charts = [[chart.as_json() for chart in scan_charts(scan) if not chart.empty] for scan in scans]
    return {
        "scans": [scan | {"charts": made} for scan, made in zip(scans, charts)],
        "thresholds": read_thresholds(folder),
    }


def scan_charts(scan: dict[str, Any]) -> list[Chart]:
    """AP, AP-fixed and shares of the places over the strength, 0 without a calibrator."""
    strengths = np.nan_to_num(np.array(scan["strength"], np.float64))
    method = scan["method"]

    def over_strength(key: str, column: str, title: str, label: str, names: dict[str, str]) -> Chart:
        values = 100 * np.array(scan[column], np.float64)
        series = [Series(name, color, strengths, values[:, k]) for k, (name, color) in enumerate(names.items())]
        known = [each for each in series if np.isfinite(each.y).any()]
        note = f"0: without a calibrator. {'All images' if key == 'scan_places' else 'The half not tuned on'}."
        return Chart(key, title, f"tau of {method}", label, known, note)

    groups = {name: letter for letter, name in GROUP_NAMES.items()}
    shown = f"AP, {scan['cap']} detections an image"
    return [
        over_strength("scan_ap", "held_out", shown, "percent", METRICS),
        over_strength("scan_fixed", "fixed", "AP-fixed, no limit an image", "percent", METRICS),
        over_strength("scan_places", "places", f"Who takes the {scan['cap']} places", "percent of places", groups),
    ]
