"""Calibrate a trained detector's scores by category, without training: a new checkpoint with the calibrator in it.

A calibrator decides who gets the places of an image; AP-fixed, printed beside AP, shows what it cannot change.
Thresholds mean other scores afterwards: those of the checkpoint are dropped, tools/eval.py --thresholds makes new ones.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from loguru import logger

from yolox_lt.api import experiment_of, read_checkpoint, weights_of
from yolox_lt.calibrate import Calibrator, LogitNormalization, TauNormalization, fold_into
from yolox_lt.calibrate.calibrator_state import calibrator_state
from yolox_lt.calibrate.fit import STRENGTHS, fitted
from yolox_lt.checkpoint import load_weights, portable, save_checkpoint
from yolox_lt.commands import common
from yolox_lt.data.annotations.index import AnnotationIndex
from yolox_lt.data.dataset import EvalDataset
from yolox_lt.data.loader import eval_loader
from yolox_lt.distributed.processes import pick_device
from yolox_lt.errors import UserError
from yolox_lt.evaluate.bootstrap import COCO, LVIS, Matched
from yolox_lt.evaluate.collect import Limits, best_of_images
from yolox_lt.evaluate.evaluator import Evaluator
from yolox_lt.evaluate.lvis import DETS_PER_CATEGORY
from yolox_lt.evaluate.protocols import Protocol
from yolox_lt.evaluate.results import DetectionArrays
from yolox_lt.evaluate.strengths import Scan, logit_moments, scan
from yolox_lt.exp import DetectorExp
from yolox_lt.exp.agreement import match_categories
from yolox_lt.exp.detection import preprocessor_of
from yolox_lt.report.analysis.after_training import SCAN, SCAN_COLUMNS, THRESHOLDS, write_scan

METHODS = ("prior", "norcal", "fracal", "logn", "tau", "none")
LARGEST_LOSS = 0.002
"""Of AP_f: the strength with the largest AP that costs no more is chosen."""

NO_LIMIT = 1_000_000


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = common.parser(__doc__)
    common.add_exp_of_checkpoint(parser)
    parser.add_argument("-c", "--ckpt", required=True, help="checkpoint of a trained detector")
    parser.add_argument("--method", choices=METHODS, required=True, help="none: take the calibrator out again")
    choice = parser.add_mutually_exclusive_group()
    choice.add_argument("--tau", type=float, help="strength: tau, NorCal's gamma, FRACAL's power")
    choice.add_argument("--scan", action="store_true", help="choose the strength on one half of the validation images")
    parser.add_argument("--background", action="store_true", help="norcal: categories of a prior compete")
    parser.add_argument("--images", type=int, default=5000, help="logn: training images of the moments")
    parser.add_argument("-b", "--batch-size", type=int, default=16, help="images of one forward pass")
    parser.add_argument("--device", choices=("cpu", "cuda"), help="a GPU if there is one")
    parser.add_argument("-o", "--output", metavar="FILE", help="checkpoint to write; CKPT with _METHOD if not given")
    common.add_overrides(parser)
    return parser


@dataclass(frozen=True)
class Row:
    """One strength, NaN without a calibrator.

    tuning, held_out: AP, AP_r, AP_c, AP_f float64 [4] of both halves of the images. fixed: AP-fixed of the other half.
    places: share that rare, common and frequent categories take, [3], over all images.
    """

    strength: float
    tuning: np.ndarray
    held_out: np.ndarray
    fixed: np.ndarray
    places: np.ndarray


def halves(num_images: int) -> tuple[np.ndarray, np.ndarray]:
    """Weights int64 [I] of the images that are tuned on and of the others, drawn once and for all."""
    tuning = np.zeros(num_images, np.int64)
    tuning[np.random.default_rng(0).permutation(num_images)[: num_images // 2]] = 1
    return tuning, 1 - tuning


def make_rows(
    strengths: Sequence[float],
    found: Sequence[DetectionArrays],
    index: AnnotationIndex,
    groups: np.ndarray | None,
    per_image: int,
) -> list[Row]:
    """The table of a scan; found: detections at each strength."""
    tuning, held_out = halves(len(index))
    cap = replace(LVIS, max_dets=per_image) if index.federated else COCO
    fixed = Protocol("AP-fixed", "category", DETS_PER_CATEGORY, lvis=cap.lvis)
    rows = []
    for strength, detections in zip(strengths, found):
        shown = best_of_images(detections, per_image)
        matched = Matched.of(index, shown, cap, groups)
        unlimited = Matched.of(index, detections, fixed, groups).metrics(held_out)
        letters = np.full(len(index.category_ids), "") if groups is None else groups
        taken = letters[np.searchsorted(index.category_ids, shown.category_ids)]
        places = np.array([(taken == letter).mean() if len(taken) else 0.0 for letter in "rcf"])
        rows.append(Row(strength, matched.metrics(tuning), matched.metrics(held_out), unlimited, places))
    return rows


def choose_row(rows: Sequence[Row]) -> Row:
    """The row with the largest AP on the tuning half among those whose AP_f is at most LARGEST_LOSS lower."""
    least = np.nan_to_num(rows[0].tuning[3]) - LARGEST_LOSS
    allowed = [row for row in rows if np.nan_to_num(row.tuning[3]) >= least - 1e-12]
    return max(allowed, key=lambda row: np.nan_to_num(row.tuning[0]))


def table(rows: Sequence[Row]) -> str:
    """Text: a line for each strength, in percent."""
    title = f"{'':8}{'tuning half':^28}{'other half':^28}{'AP-fixed, other half':^28}{'places':^21}"
    names = "".join(f"{name:>7}" for name in ("AP", "APr", "APc", "APf") * 3 + ("r", "c", "f"))
    lines = [title, f"{'tau':>8}{names}"]
    for row in rows:
        values = np.concatenate([row.tuning, row.held_out, row.fixed, row.places])
        name = "none" if math.isnan(row.strength) else f"{row.strength:g}"
        lines.append(f"{name:>8}" + "".join(f"{'-' if np.isnan(v) else f'{100 * v:.1f}':>7}" for v in values))
    return "\n".join(lines)


def plot(rows: Sequence[Row], path: Path) -> None:
    """AP and AP-fixed of the held-out half over the strength."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4))
    strengths = [np.nan_to_num(row.strength) for row in rows]
    for place, (title, values) in enumerate(
        (("AP", [row.held_out for row in rows]), ("AP-fixed", [row.fixed for row in rows])), 1
    ):
        axes = figure.add_subplot(1, 2, place)
        for k, name in enumerate(("all", "rare", "common", "frequent")):
            axes.plot(strengths, [100 * v[k] for v in values], marker="o", label=name)
        axes.set(title=title, xlabel="tau", ylabel="percent")
        axes.legend()
    figure.tight_layout()
    figure.savefig(path)


def moments(exp: DetectorExp, model: Any, device: torch.device, args: argparse.Namespace) -> LogitNormalization:
    """Fit LogN on training images."""
    dataset = EvalDataset(exp.get_store("train"), exp.get_eval_transform(), exp.skip_bad_images)
    loader = eval_loader(dataset, exp.get_collate(), args.batch_size, exp.data_num_workers, False, 0, 1)
    preprocess = preprocessor_of(exp).to(device)
    found = logit_moments(model, exp.get_predictor(), preprocess, loader, device, args.images)
    return LogitNormalization(*found)


def scan_strengths(
    exp: DetectorExp,
    model: Any,
    calibrators: Sequence[Calibrator | None],
    strengths: Sequence[float],
    names: Sequence[str],
    device: torch.device,
    batch_size: int,
) -> tuple[list[Row], Evaluator]:
    """Rows of the table, the first without a calibrator; one in the weights takes a pass for each strength."""
    per_image = exp.max_detections
    exp.max_detections = NO_LIMIT
    evaluator = exp.get_evaluator(batch_size, names=names)
    exp.max_detections = per_image
    limits = Limits(per_image, DETS_PER_CATEGORY)
    preprocess = evaluator.preprocessor.to(device)

    def found(net: Any, some: Sequence[Calibrator | None]) -> list[DetectionArrays]:
        find = Scan(evaluator.predictor, some)
        return scan(net, find, preprocess, evaluator.loader, evaluator.category_ids, device, limits)

    if isinstance(calibrators[-1], TauNormalization):
        own_scores = evaluator.predictor.scores is not None
        models = [model if each is None else fold_into(model, each, own_scores)[0] for each in calibrators]
        parts = [found(each, [None])[0] for each in models]
    else:
        parts = found(model, calibrators)
    return make_rows(strengths, parts, evaluator.index, evaluator.groups, per_image), evaluator


def main(args: argparse.Namespace) -> None:
    """Fit, or scan and choose, then write the new checkpoint."""
    path = Path(args.ckpt)
    target = Path(args.output) if args.output else path.with_name(f"{path.stem}_{args.method}.pth")
    if not target.absolute().parent.is_dir():
        raise UserError(f"{target}: its folder does not exist; create it or give another file with -o")
    if args.method in ("logn", "none") and (args.tau is not None or args.scan):
        raise UserError(f"--method {args.method} has no strength; leave out --tau and --scan")
    content = read_checkpoint(path)
    kept = {name: value for name, value in content.items() if name not in ("calibrator", "thresholds")}
    kept["exp"] = portable(content["exp"])
    calibrator = None
    if args.method != "none":
        exp = experiment_of(content, path, args.exp_file, args.opts)
        names = content.get("names", [])
        calibrator = fit(args, exp, content, names, target)
        if calibrator is not None:
            kept["calibrator"] = calibrator_state(calibrator, names)
    save_checkpoint(target, kept)
    for suffix in (THRESHOLDS,) if args.scan else (SCAN, THRESHOLDS):  # those of what the file held before
        target.with_suffix(suffix).unlink(missing_ok=True)
    if "thresholds" in content:
        logger.warning("the thresholds of the categories were made for other scores and are dropped")
    print(f"{target}: written, calibrator: {'none' if calibrator is None else args.method}")
    print(f"make thresholds for it with python tools/eval.py -c {target} --thresholds")


def fit(
    args: argparse.Namespace, exp: DetectorExp, content: dict[str, Any], names: Sequence[str], target: Path
) -> Calibrator | None:
    """The calibrator that is asked for; None where a scan finds that none is better.

    Raises:
        UserError: training annotations of other categories.
    """
    train = exp.get_index("train")
    where = train.path or "the training annotations"
    if match_categories(names, train.category_names, where, "the model") is not None:
        raise UserError(f"{where}: lists its categories in another order than the model; give those it was trained on")
    empty = [name for name, count in zip(train.category_names, train.image_counts.tolist()) if count == 0]
    if empty:
        logger.warning(f"{where}: no image has {', '.join(empty[:5])}{', ...' if len(empty) > 5 else ''}; counted as 1")
    normalize = "background" if args.background else "none"
    if args.method != "logn" and not args.scan:
        strength = STRENGTHS[args.method][0] if args.tau is None else args.tau
        return fitted(args.method, strength, train, normalize)
    device = pick_device(args.device, 0)
    model = exp.get_model()
    load_weights(model, weights_of(content), args.ckpt)
    model.to(device).eval()
    if args.method == "logn":
        return moments(exp, model, device, args)
    strengths = STRENGTHS[args.method][1]
    calibrators = [None, *(fitted(args.method, strength, train, normalize) for strength in strengths)]
    rows, evaluator = scan_strengths(exp, model, calibrators, (math.nan, *strengths), names, device, args.batch_size)
    print(f"{args.method} over {len(evaluator.index):,} images of {evaluator.index.path}, in percent\n{table(rows)}")
    chosen = choose_row(rows)
    name = "no calibrator" if math.isnan(chosen.strength) else f"tau {chosen.strength:g}"
    print(f"chosen on the tuning half: {name} (largest AP that costs APf at most {100 * LARGEST_LOSS:g})")
    plot(rows, target.with_suffix(".png"))
    place = [row is chosen for row in rows].index(True)
    columns = {name: [getattr(row, name) for row in rows] for name in SCAN_COLUMNS}
    write_scan(target, args.method, place, exp.max_detections, columns)
    return calibrators[place]
