"""Do calibrators give the tail more, and because of the frequencies? Trained checkpoints, no training.

    python -m studies.calibration RUN_OR_CHECKPOINT ... [-f EXP] [--into FOLDER] [--resamples N]

Every checkpoint is run once over its validation images. Calibrators: PriorAdjustment (both anchors), NorCal with a
background, FRACAL, LogN. Controls: the same shifts permuted over the categories, and shifts by the boxes of one half of
the validation images, scored on the other half alone. Each at 20 and at 300 detections an image, and AP-fixed.
Differences to the uncalibrated model have a 95 % interval over resampled images. A row that is in the file is not made
again: what was interrupted continues.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from studies.compare import estimate
from studies.records import Row, append_rows, read_rows
from yolox_lt.api import experiment_of, read_checkpoint, weights_of
from yolox_lt.calibrate import Calibrator, LogitNormalization, NorCal, PriorAdjustment
from yolox_lt.calibrate.fit import fitted
from yolox_lt.checkpoint import load_weights
from yolox_lt.commands.calibrate import NO_LIMIT, halves
from yolox_lt.data.annotations.index import AnnotationIndex
from yolox_lt.distributed.processes import pick_device
from yolox_lt.evaluate.bootstrap import COCO, LVIS, Matched, bootstrap, intervals
from yolox_lt.evaluate.collect import Limits, best_of_images
from yolox_lt.evaluate.lvis import DETS_PER_CATEGORY
from yolox_lt.evaluate.protocols import Protocol
from yolox_lt.evaluate.results import DetectionArrays
from yolox_lt.evaluate.strengths import Scan, logit_moments, scan
from yolox_lt.exp import DetectorExp
from yolox_lt.exp.detection import preprocessor_of

TAUS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0)
CAPS = (20, 300)
PERMUTATIONS = 3
FILE = "calibration.csv"
SHIFTS = ("prior", "permuted", "half")
WEAKER = tuple(f" {tau:g}" for tau in TAUS[:-1])
"""Ends of the names of cases whose best pairs lie between those of a stronger one and of none."""


def cases(train: AnnotationIndex, half_counts: np.ndarray, moments: LogitNormalization) -> dict[str, Calibrator | None]:
    """Name -> calibrator, "none" first.

    Args:
        half_counts: [C] boxes of the tuning half of the validation images.
    """
    counts = torch.tensor(train.image_counts.tolist())
    made: dict[str, Calibrator | None] = {"none": None, "logn": moments}
    made["fracal"] = fitted("fracal", 2.0, train)
    for gamma in (0.1, 0.25, 0.5):
        made[f"norcal background {gamma:g}"] = NorCal(counts, gamma, "background")
    for tau in TAUS:
        made[f"half of val {tau:g}"] = PriorAdjustment(torch.tensor(half_counts.tolist()), tau)
        for seed in range(PERMUTATIONS):
            order = torch.tensor(np.random.default_rng(seed).permutation(len(counts)))
            made[f"permuted {seed} {tau:g}"] = PriorAdjustment(counts[order], tau)
        made[f"prior mean {tau:g}"] = PriorAdjustment(counts, tau, "mean")
        made[f"prior {tau:g}"] = PriorAdjustment(counts, tau)
    return made


def moments_of(exp: DetectorExp, model: Any, device: torch.device, images: int) -> LogitNormalization:
    """LogN over training images."""
    train = type(exp)()
    train.update(exp.attributes())
    train.val_ann, train.val_images, train.val_subset = exp.train_ann, exp.train_images, None
    loader = train.get_eval_loader(16, 0, 1, False)
    return LogitNormalization(*logit_moments(model, exp.get_predictor(), preprocessor_of(exp), loader, device, images))


def measure(path: Path, device: torch.device, resamples: int, images: int, exp_file: str | None) -> list[Row]:
    """The rows of one checkpoint."""
    content = read_checkpoint(path)
    exp = experiment_of(content, path, exp_file)
    model = exp.get_model()
    load_weights(model, weights_of(content), path)
    model.to(device).eval()
    per_image, exp.max_detections = max(CAPS), NO_LIMIT
    evaluator = exp.get_evaluator(16, names=content["names"])
    index, groups = evaluator.index, evaluator.groups
    tuning, held_out = halves(len(index))
    inside = tuning[np.repeat(np.arange(len(index)), np.diff(index.box_offsets))] > 0
    half_counts = np.bincount(index.labels[inside], minlength=len(index.category_ids))
    exp.max_detections = per_image
    made = cases(exp.get_index("train"), half_counts, moments_of(exp, model, device, images))
    preprocess = evaluator.preprocessor.to(device)
    limits = Limits(per_image, DETS_PER_CATEGORY)
    strongest = tuple(k for k, name in enumerate(made) if not (name.endswith(WEAKER) and name.startswith(SHIFTS)))
    find = Scan(evaluator.predictor, list(made.values()), strongest)
    found = scan(model, find, preprocess, evaluator.loader, evaluator.category_ids, device, limits)
    rows: list[Row] = []
    for protocol, rules in protocols(index).items():
        base: Matched | None = None
        for name, detections in zip(made, found):
            own = capped(detections, rules)
            matched = Matched.of(index, own, rules, groups)
            base = base or matched
            weights = held_out if name.startswith("half") else np.ones(len(index), np.int64)
            rows.append(row_of(path, name, protocol, base, matched, weights, resamples))
    return rows


def protocols(index: AnnotationIndex) -> dict[str, Protocol]:
    """Name -> rules."""
    rules = LVIS if index.federated else replace(LVIS, lvis=COCO.lvis)
    made = {str(cap): replace(rules, max_dets=cap) for cap in CAPS}
    return made | {"fixed": Protocol("AP-fixed", "category", DETS_PER_CATEGORY, lvis=rules.lvis)}


def capped(detections: DetectionArrays, rules: Protocol) -> DetectionArrays:
    """Only what the cap of an image leaves."""
    return best_of_images(detections, rules.max_dets) if rules.cap == "image" else detections


def row_of(
    path: Path, name: str, protocol: str, base: Matched, matched: Matched, weights: np.ndarray, resamples: int
) -> Row:
    """Metrics in percent, differences to `base` and their intervals."""
    value, before = matched.metrics(weights), base.metrics(weights)
    row: Row = {"checkpoint": str(path), "case": name, "protocol": protocol}
    difference = np.full((2, 4), np.nan)
    if matched is not base and not name.startswith("half"):
        ours, theirs = bootstrap([matched, base], resamples)
        difference = intervals(ours - theirs)
    for k, metric in enumerate(("AP", "APr", "APc", "APf")):
        row[metric] = f"{100 * value[k]:.3f}"
        row[f"{metric}_change"] = f"{100 * (value[k] - before[k]):.3f}"
        row[f"{metric}_low"], row[f"{metric}_high"] = (f"{100 * edge:.3f}" for edge in difference[:, k])
    return row


def table(rows: Sequence[dict[str, str]]) -> str:
    """Mean over the checkpoints: changes of AP_r and AP_f with the mean bounds of their intervals, and AP."""
    lines = ["| case | cap | checkpoints | AP | AP_r change | AP_c change | AP_f change |", "|---" * 7 + "|"]
    for protocol in (*map(str, CAPS), "fixed"):
        for name in dict.fromkeys(row["case"] for row in rows):
            own = [row for row in rows if (row["case"], row["protocol"]) == (name, protocol)]
            if not own:
                continue
            cells = [change(own, metric) for metric in ("APr", "APc", "APf")]
            ap = np.mean([float(row["AP"]) for row in own])
            lines.append(f"| {name} | {protocol} | {len(own)} | {ap:.1f} | {' | '.join(cells)} |")
    return "\n".join(lines)


def change(rows: Sequence[dict[str, str]], metric: str) -> str:
    """ "+1.2 (+0.3 to +2.0)": Student's interval over the checkpoints, for a single one its bootstrap interval."""
    values = np.array([float(row[f"{metric}_change"]) for row in rows])
    if len(values) > 1:
        found = estimate(values)
        low, high = found.low, found.high
    else:
        low, high = float(rows[0][f"{metric}_low"]), float(rows[0][f"{metric}_high"])
    bounds = "" if np.isnan(low) else f" ({low:+.1f} to {high:+.1f})"
    return f"{values.mean():+.1f}{bounds}"


def checkpoint_of(text: str) -> Path:
    """The checkpoint itself; of a run's folder its latest.pth, the end of the training."""
    path = Path(text)
    return path / "latest.pth" if path.is_dir() else path


def main(words: Sequence[str] | None = None) -> None:
    """Measure what has no rows yet, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", help="checkpoints, or folders of runs")
    parser.add_argument("-f", "--exp-file", help="their experiment, where checkpoints do not know where the data is")
    parser.add_argument("--into", default="YOLOX_outputs/calibration", help="folder of calibration.csv")
    parser.add_argument("--resamples", type=int, default=200, help="of the images, for the intervals")
    parser.add_argument("--images", type=int, default=1000, help="training images of LogN's moments")
    parser.add_argument("--device", choices=("cpu", "cuda"))
    args = parser.parse_args(words)
    folder = Path(args.into)
    folder.mkdir(parents=True, exist_ok=True)
    device = pick_device(args.device, 0)
    paths = [checkpoint_of(text) for text in args.runs]
    for path in paths:
        if str(path) not in {row["checkpoint"] for row in read_rows(folder / FILE)}:
            append_rows(folder / FILE, measure(path, device, args.resamples, args.images, args.exp_file))
            print(f"{path}: measured", flush=True)
    print(table([row for row in read_rows(folder / FILE) if row["checkpoint"] in map(str, paths)]))


if __name__ == "__main__":
    main()
