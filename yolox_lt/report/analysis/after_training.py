"""What calibration and thresholds leave beside a checkpoint for the page: CKPT.scan.json and CKPT.thresholds.json."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from yolox_lt.data.annotations.index import AnnotationIndex
from yolox_lt.errors import UserError
from yolox_lt.evaluate.metrics import Report
from yolox_lt.evaluate.results import DetectionArrays
from yolox_lt.report.analysis.category_thresholds import category_thresholds, group_means

SCAN, THRESHOLDS = ".scan.json", ".thresholds.json"

SCAN_COLUMNS = {"strength": 0, "held_out": 4, "fixed": 4, "places": 3}
"""Columns of a scan and the length of their rows, 0 for plain numbers: strength (None without a calibrator), AP, AP_r,
AP_c, AP_f of the half that was not tuned on, the same of AP-fixed, shares of the places of rare, common and frequent
categories.
"""

MEANS = ("conf", "precision", "recall", "F1")


def write_scan(
    checkpoint: Path, method: str, chosen: int, cap: int, columns: Mapping[str, Sequence[np.ndarray | float]]
) -> None:
    """Beside the checkpoint that a scan has written; columns: SCAN_COLUMNS. chosen: row. cap: detections an image."""
    content = {"checkpoint": checkpoint.name, "method": method, "chosen": chosen, "cap": cap}
    rows = {name: [plain(row) for row in columns[name]] for name in SCAN_COLUMNS}
    checkpoint.with_suffix(SCAN).write_text(json.dumps(content | rows), encoding="utf-8")


def plain(values: np.ndarray | float) -> Any:
    """A number or a row of numbers for json, None for NaN."""
    numbers = np.asarray(values, np.float64)
    found = [round(v, 6) if np.isfinite(v) else None for v in np.atleast_1d(numbers).tolist()]
    return found if numbers.ndim else found[0]


def write_thresholds(
    checkpoint: Path,
    index: AnnotationIndex,
    detections: DetectionArrays,
    report: Report,
    precision: float | None = None,
) -> None:
    """Beside a checkpoint: what its thresholds give by group, and what 0.3 for all gives."""
    rows = []
    for fixed in (None, 0.3):
        made = category_thresholds(index, detections, report, None, precision, fixed)
        for group, count, means in group_means(made, report.groups):
            row = {"rule": made.rule, "group": group, "categories": count}
            rows.append(row | dict(zip(MEANS, plain(means))))
    text = json.dumps({"checkpoint": checkpoint.name, "rows": rows})
    checkpoint.with_suffix(THRESHOLDS).write_text(text, encoding="utf-8")


def read_scans(folder: Path) -> list[dict[str, Any]]:
    """The scans of a run's folder, by name; see `write_scan`.

    Raises:
        UserError: a file that holds no scan.
    """
    return [read_part(path, is_scan) for path in sorted(folder.glob(f"*{SCAN}"))]


def read_thresholds(folder: Path) -> list[dict[str, Any]]:
    """The thresholds of a run's folder, by name; see `write_thresholds`.

    Raises:
        UserError: a file that holds none.
    """
    return [read_part(path, is_thresholds) for path in sorted(folder.glob(f"*{THRESHOLDS}"))]


def read_part(path: Path, fits: Any) -> dict[str, Any]:
    """A json file whose content `fits`.

    Raises:
        UserError: it does not.
    """
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        good = fits(content)
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: cannot be read ({type(error).__name__}: {error}); delete it") from error
    if not good:
        raise UserError(f"{path}: is not what this project writes; delete it")
    return content


def is_scan(content: dict[str, Any]) -> bool:
    """Whether the columns are those of a scan, all of one length."""
    count = len(content["strength"])
    rows = [(row, size) for name, size in SCAN_COLUMNS.items() if size for row in content[name]]
    return (
        0 <= content["chosen"] < count
        and all(len(content[name]) == count for name in SCAN_COLUMNS)
        and all(len(row) == size and all(v is None or v == v + 0 for v in row) for row, size in rows)
        and all(isinstance(content[name], str) for name in ("checkpoint", "method"))
    )


def is_thresholds(content: dict[str, Any]) -> bool:
    """Whether every row has what the page shows."""
    return isinstance(content["checkpoint"], str) and all(
        {"rule", "group", "categories", *MEANS} <= set(row) for row in content["rows"]
    )
