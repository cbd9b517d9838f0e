"""A small data set in the layout of Open Images Challenge 2019: csv files, class list, hierarchy, JPEGs."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from yolox_lt.evaluate.quintiles import CHALLENGE_2019

CHALLENGE = ["ImageID", "LabelName", "XMin", "XMax", "YMin", "YMax", "IsGroupOf"]
V4 = ["ImageID", "Source", "LabelName", "Confidence", "XMin", "XMax", "YMin", "YMax", "IsOccluded", "IsTruncated"]
V4 += ["IsGroupOf", "IsDepiction", "IsInside"]
FOREIGN = "/m/0000zz"
"""A category that is not in the class list, as the files of V4 to V6 have them."""


def mids() -> list[str]:
    """The 500 categories of the challenge in its order."""
    with CHALLENGE_2019.open(newline="") as file:
        return [row["mid"] for row in csv.DictReader(file)]


def hierarchy() -> dict[str, Any]:
    """Categories 0 > 1 > 2, 3 > 2 (two parents), 4 > (no category) > 5; all others below the root."""
    ids = mids()

    def node(mid: str, *below: dict[str, Any]) -> dict[str, Any]:
        return {"LabelName": mid, "Subcategory": list(below)} if below else {"LabelName": mid}

    tops = [
        node(ids[0], node(ids[1], node(ids[2]))),
        node(ids[3], node(ids[2])),
        node(ids[4], node("/m/0between", node(ids[5]))),
    ]
    return {"LabelName": "/m/0bl9f", "Subcategory": [*tops, *(node(mid) for mid in ids[6:])]}


def write_lists(folder: Path) -> None:
    """classes.csv and hierarchy.json. Two categories have one name, as in the real list."""
    names = [f"Category {c}, {mid}" if c % 50 else "Bench" for c, mid in enumerate(mids())]
    with (folder / "classes.csv").open("w", newline="") as file:
        csv.writer(file).writerows(zip(mids(), names))
    (folder / "hierarchy.json").write_text(json.dumps(hierarchy()))


def write_split(
    folder: Path, name: str, header: list[str], seed: int, num_images: int = 8, side: int = 64
) -> tuple[list[dict[str, str]], list[dict[str, str]]]:
    """<name>_boxes.csv, <name>_labels.csv and the folder `name` of images; returns the rows of both files.

    The last image has labels alone. Every row of V4's layout has all its columns.
    """
    rng = np.random.default_rng(seed)
    (folder / name).mkdir()
    ids = [f"{rng.integers(0, 2**62):016x}" for _ in range(num_images)]
    boxes, labels = [], []
    for k, image_id in enumerate(ids):
        height, width = side + 3 * k, side + k % 5
        image = rng.integers(0, 255, (height, width, 3), np.uint8)
        cv2.imwrite(str(folder / name / f"{image_id}.jpg"), image)
        for _ in range(6 if k < num_images - 1 else 0):
            category = int(rng.choice([0, 1, 2, 3, 5, 499, int(rng.integers(500))]))
            x, y = np.sort(rng.random(2)).round(6), np.sort(rng.random(2)).round(6)
            boxes.append(box_row(header, image_id, mids()[category], *x, *y, group=rng.random() < 0.2))
        for label in rng.choice(500, 8, replace=False):
            labels.append(label_row(image_id, mids()[label], int(rng.random() < 0.5)))
    write_rows(folder / f"{name}_boxes.csv", header, boxes)
    write_rows(folder / f"{name}_labels.csv", list(labels[0]), labels)
    return boxes, labels


def box_row(
    header: list[str], image_id: str, mid: str, x1: float, x2: float, y1: float, y2: float, group: bool = False
) -> dict[str, str]:
    edges = {"XMin": f"{x1:.6f}", "XMax": f"{x2:.6f}", "YMin": f"{y1:.6f}", "YMax": f"{y2:.6f}"}
    row = {"ImageID": image_id, "LabelName": mid, **edges, "IsGroupOf": str(int(group))}
    row |= {"Source": "xclick", "Confidence": "1"}
    return {name: row.get(name, "0") for name in header}


def label_row(image_id: str, mid: str, confidence: int) -> dict[str, str]:
    return {"ImageID": image_id, "Source": "verification", "LabelName": mid, "Confidence": str(confidence)}


def write_rows(path: Path, header: list[str], rows: list[dict[str, str]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, header)
        writer.writeheader()
        writer.writerows(rows)


def options(folder: Path, name: str, *more: str) -> list[str]:
    """Words of the converter for a split."""
    words = ["openimages", "--boxes", f"{folder}/{name}_boxes.csv", "--labels", f"{folder}/{name}_labels.csv"]
    words += ["--classes", f"{folder}/classes.csv", "--hierarchy", f"{folder}/hierarchy.json"]
    return [*words, "--images", f"{folder}/{name}", "--out", f"{folder}/{name}.index", *more]
