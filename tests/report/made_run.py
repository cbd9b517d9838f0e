"""A run's folder made by hand, of any number of categories and epochs, without training."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import cv2
import numpy as np

from yolox_lt.report.analysis.analysis import Analysis
from yolox_lt.report.page.category_images import FOLDER

METRICS = ("AP", "AP50", "AP75", "APs", "APm", "APl", "APr", "APc", "APf", "AR")


def make_run(folder: Path, num_categories: int = 6, epochs: int = 4, seed: int = 0, images: int = 2) -> Analysis:
    """All files of a run; the evaluation is that of per_category.csv. Every second epoch was evaluated.

    Training images fall from category to category; the second last category has no boxes.
    """
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    write_metrics(folder, rng, epochs)
    config = {
        "exp": {"max_epoch": epochs, "cls_loss": "eqfl", "loss_scale": 4.0 + seed, "test_size": [64, 64], "seed": None},
        "batch_size": 16,
        "device": "cpu",
        "amp": None,
        "command": ["tools/train.py", "-f", "exp.py"],
        "versions": {"torch": "2.6"},
    }
    (folder / "config.json").write_text(json.dumps(config))
    ratio = rng.random((epochs, num_categories)).astype(np.float32)
    gamma = 2 + 4 * (1 - ratio)
    columns = {"pos_grad": ratio * 8, "neg_grad": np.full_like(ratio, 8), "ratio": ratio, "focusing": gamma}
    np.savez(folder / "balance.npz", epochs=np.arange(1, epochs + 1), weight=gamma / 2, **columns)
    found = made_analysis(rng, num_categories)
    found.examples = write_jpegs(folder / FOLDER, rng, num_categories, images)
    found.save(folder / "evaluation.npz")
    write_categories(folder / "per_category.csv", found)
    return found


def write_metrics(folder: Path, rng: np.random.Generator, epochs: int) -> None:
    names = ["epoch", "cls", "box", "loss", "lr", *METRICS, "seconds", "images_per_second"]
    with (folder / "metrics.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(names)
        for epoch in range(1, epochs + 1):
            ap = ["" if epoch % 2 and epochs > 1 else float(v) for v in rng.random(len(METRICS))]
            writer.writerow([epoch, *rng.random(3).tolist(), 0.01 / epoch, *ap, 61.5, 20.25])
    rows = [
        {"iteration": i, "epoch": i // 5 + 1, "cls": float(rng.random()), "box": None, "loss": 1.5, "lr": 0.1 / (i + 1)}
        for i in range(4, 5 * epochs, 5)
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def made_analysis(rng: np.random.Generator, num_categories: int) -> Analysis:
    c = num_categories
    boxes = rng.integers(1, 50, c)
    undefined = np.zeros(c, bool)
    if c > 1:
        boxes[-2], undefined[-2] = 0, True
    values = {name: np.where(undefined, np.nan, rng.random(c)) for name in ("AP", "AP50", "AP75", "AR")}
    counts = np.sort(rng.integers(0, 500, c))[::-1].copy()
    return Analysis(
        protocol="LVIS AP, 300 detections per image",
        epoch=4,
        metrics={"AP": float(np.nanmean(values["AP"])), "APl": float("nan")},
        values=values,
        category_ids=np.arange(c) * 3 + 1,
        names=tuple(f"category_{i}" for i in range(c)),
        groups=np.where(counts <= 10, "r", np.where(counts <= 100, "c", "f")),
        train_counts=counts,
        box_counts=boxes,
        detection_counts=rng.integers(0, 900, c),
        precision=np.sort(rng.random((c, 101)), axis=1)[:, ::-1].astype(np.float32),
        f1=rng.random((c, 101)).astype(np.float32),
        threshold=np.where(undefined, np.nan, rng.random(c)),
        best_f1=np.where(undefined, np.nan, rng.random(c)),
        positive_score=np.where(undefined, np.nan, rng.random(c)),
        negative_score=rng.random(c),
        hits=rng.integers(0, 40, c),
        errors=rng.integers(0, 30, (c, 6)),
        confusion=np.array([[0, c - 1, 7], [c - 1, 0, 3]]),
    )


def write_jpegs(folder: Path, rng: np.random.Generator, num_categories: int, ranks: int) -> list[dict[str, object]]:
    """Pictures of every category, `ranks` of each kind, one and the same photograph of noise."""
    folder.mkdir(parents=True)
    image = rng.integers(0, 256, (72, 96, 3), np.uint8)
    content = cv2.imencode(".jpg", cv2.GaussianBlur(image, (0, 0), 1))[1].tobytes()
    made: list[dict[str, object]] = []
    for c in range(num_categories):
        for kind in ("tp", "fp", "missed"):
            for rank in range(ranks):
                name = f"{c:04d}_{kind}_{rank}.jpg"
                (folder / name).write_bytes(content)
                error = "classification" if kind == "fp" else ""
                score = None if kind == "missed" else 0.75
                other = (c + 1) % num_categories if kind == "fp" else None
                entry = {"file": name, "kind": kind, "label": c, "image": 40 + c}
                made.append(entry | {"score": score, "error": error, "other": other})
    return made


def write_categories(path: Path, found: Analysis) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "name", "group", "images", "instances", "boxes", "detections", *found.values])
        for c, name in enumerate(found.names):
            counts = (found.box_counts[c], found.box_counts[c], found.box_counts[c], found.detection_counts[c])
            values = [f"{column[c]:.6f}" for column in found.values.values()]
            writer.writerow([found.category_ids[c], name, found.groups[c], *counts, *values])
