"""A threshold of every category against one score for all, as the API and the demo apply them: who finds what.

    python -m studies.thresholds CHECKPOINT [-f EXP] [--conf 0.3]

Runs the detector over the validation images with its stored thresholds and with the score, matches at IoU 0.5 as if
every category had been looked for in every image (of glyphs that is so), and prints precision, recall and F1 of each
frequency group, from the sums over its categories, in percent.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch

import yolox_lt
from yolox_lt.evaluate.coco import evaluate_coco
from yolox_lt.evaluate.collect import to_arrays
from yolox_lt.evaluate.metrics import FALSE_POSITIVE, TRUE_POSITIVE
from yolox_lt.evaluate.results import DetectionArrays
from yolox_lt.inference import LoadedDetector

GROUPS = {"all": "rcf", "rare": "r", "common": "c", "frequent": "f"}


def measured(
    detector: LoadedDetector, conf: float | Literal["auto"], class_agnostic: bool
) -> dict[str, tuple[float, float, float]]:
    """Precision, recall and F1 of each group over the validation images."""
    index, store = detector.exp.get_index("val"), detector.exp.get_store("val")
    parts = []
    for position, image_id in enumerate(index.image_ids.tolist()):
        found = detector(store.read(position), conf, class_agnostic)
        parts.append(to_arrays(found, image_id, index.category_ids))
    everything = DetectionArrays.concatenate(parts)
    report = evaluate_coco(index, everything, detector.exp.max_detections)
    labels = np.searchsorted(index.category_ids, everything.category_ids)
    groups = groups_of(detector)
    rows = {}
    for name, letters in GROUPS.items():
        of = np.isin(groups, list(letters)) if name != "all" else np.ones(len(groups), bool)
        hits = int((report.status[of[labels]] == TRUE_POSITIVE).sum())
        shown = hits + int((report.status[of[labels]] == FALSE_POSITIVE).sum())
        rows[name] = scores_of(hits, shown, int(report.box_counts[of].sum()))
    return rows


def scores_of(hits: int, shown: int, boxes: int) -> tuple[float, float, float]:
    """Precision, recall and F1; NaN where nothing is shown or to be found."""
    nothing = float("nan")
    return (
        hits / shown if shown else nothing,
        hits / boxes if boxes else nothing,
        2 * hits / (shown + boxes) if shown + boxes else nothing,
    )


def groups_of(detector: LoadedDetector) -> np.ndarray:
    """Letters of the categories by their training images, as the evaluator groups them."""
    groups = detector.exp.get_evaluator(1, names=detector.names).groups
    return np.full(len(detector.names), "") if groups is None else groups


def cell(values: tuple[float, float, float]) -> str:
    """Three numbers in percent."""
    return " ".join("-" if np.isnan(v) else f"{100 * v:.0f}" for v in values)


def main(words: Sequence[str] | None = None) -> None:
    """Print the table of a checkpoint."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint")
    parser.add_argument("-f", "--exp-file", help="its experiment, where the checkpoint does not know it")
    parser.add_argument("--conf", type=float, default=0.3, help="the score for all, %(default)s")
    args = parser.parse_args(words)
    torch.set_num_threads(1)
    detector = yolox_lt.load(args.checkpoint, "cpu", args.exp_file)
    print(f"| precision, recall, F1 | {' | '.join(GROUPS)} |\n{'|---' * 5}|")
    for class_agnostic, mode in ((True, "demo"), (False, "API")):
        for conf, name in ((args.conf, f"{args.conf:g} for all"), ("auto", "auto")):
            rows = measured(detector, conf, class_agnostic)  # type: ignore[arg-type]
            print(f"| {mode}, {name} | {' | '.join(map(cell, rows.values()))} |", flush=True)


if __name__ == "__main__":
    main()
