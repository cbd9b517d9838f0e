"""Score a checkpoint (-f EXP -c CKPT) or a result file of any framework (--ann ANN.json --results RESULTS.json)."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from loguru import logger

from yolox_lt.api import read_checkpoint, weights_of
from yolox_lt.commands import common
from yolox_lt.data.index import AnnotationIndex
from yolox_lt.errors import UserError
from yolox_lt.evaluate import DetectionArrays, Report, evaluate_lvis, evaluate_openimages
from yolox_lt.evaluate.coco import evaluate_coco
from yolox_lt.evaluate.collect import write_results
from yolox_lt.exp import get_exp
from yolox_lt.train.checkpoint import load_weights
from yolox_lt.train.dist import Place, count_processes, gather_to_main, launch, launched_externally, object_group


def make_parser() -> argparse.ArgumentParser:
    parser = common.parser(__doc__)
    common.add_exp(parser)
    parser.add_argument("-c", "--ckpt", help="checkpoint; best.pth of the run folder if not given")
    parser.add_argument("-b", "--batch-size", type=int, default=64, help="images of one forward pass over all devices")
    common.add_devices(parser)
    common.add_precision(parser)
    parser.add_argument("--conf", type=float, help="lowest score that counts; the experiment's test_conf if not given")
    parser.add_argument("--nms", type=float, help="NMS threshold; the experiment's nmsthre if not given")
    parser.add_argument("--tsize", type=int, help="side of a square test size; the experiment's test_size if not given")
    parser.add_argument("--split", choices=("val", "test"), default="val", help="annotation file: val_ann or test_ann")
    parser.add_argument("--save", metavar="FILE", help="write the detections as a COCO results file")
    parser.add_argument("--csv", metavar="FILE", help="write one line per category")
    parser.add_argument("--ann", metavar="PATH", help="annotations, to score --results without a model")
    parser.add_argument("--results", metavar="FILE", help="result file in COCO's format")
    common.add_source(parser)
    parser.add_argument(
        "--protocol",
        choices=("auto", "lvis", "coco", "openimages"),
        default="auto",
        help="lvis: 300 detections an image; coco: 100 an image and category; openimages: mAP at IoU 0.5 over its "
        "hierarchy; auto: openimages for a file with hierarchy or groups, lvis for one with federated lists, else coco",
    )
    parser.add_argument(
        "--expand-detections",
        action="store_true",
        help="openimages: let every detection count for the ancestors of its category too",
    )
    common.add_overrides(parser)
    return parser


def evaluate(place: Place, args: argparse.Namespace) -> None:
    """One rank of the evaluation."""
    common.setup_process(place)
    exp = get_exp(args.exp_file, args.name)
    exp.merge(args.opts)
    checkpoint = args.ckpt or str(Path(exp.output_dir) / (args.experiment_name or exp.exp_name) / "best.pth")
    content = read_checkpoint(checkpoint)
    for attribute, value in (("test_conf", args.conf), ("nmsthre", args.nms)):
        if value is not None:
            setattr(exp, attribute, value)
    if args.tsize is not None:
        exp.test_size = (args.tsize, args.tsize)
    if args.split == "test":
        exp.val_ann, exp.val_images, exp.val_subset = exp.test_ann, exp.test_images, None
    model = exp.get_model()
    load_weights(model, weights_of(content), checkpoint)
    model.to(place.device).to(memory_format=torch.channels_last)
    evaluator = exp.get_evaluator(max(args.batch_size // place.world, 1), place.rank, place.world)
    if evaluator.index.category_ids.tolist() != content["category_ids"]:
        raise UserError(f"{checkpoint}: was trained on other categories than those of {evaluator.index.path}")
    found = evaluator.detect(model, place.device, common.amp_type(args), progress=place.is_main)
    parts = gather_to_main(found, object_group())
    if parts is None:
        return
    detections = DetectionArrays.concatenate(parts)
    unlabelled = len(evaluator.index.labels) == 0
    target = args.save
    if unlabelled and target is None:  # a test split: what was found is all there is
        target = str(Path(checkpoint).with_name(f"{Path(str(evaluator.index.path)).stem}_results.json"))
    if target is not None:
        write_results(target, detections)
        logger.info(f"{len(detections):,} detections written to {target}")
    if unlabelled:
        print(
            f"{evaluator.index.path} has no annotations, so there is nothing to score; the detections are in {target}"
        )
        return
    args.expand_detections |= evaluator.expand_detections
    show(score(evaluator.index, detections, args, evaluator.groups, evaluator.train_boxes), args)


def score(
    index: AnnotationIndex,
    detections: str | DetectionArrays,
    args: argparse.Namespace,
    groups: np.ndarray | None = None,
    train_boxes: np.ndarray | None = None,
) -> Report:
    """By the protocol of Open Images, LVIS or COCO."""
    if args.protocol == "openimages" or (args.protocol == "auto" and index.open_images):
        return evaluate_openimages(index, detections, args.expand_detections, groups, train_boxes)
    if args.expand_detections:
        raise UserError("--expand-detections: only the protocol of Open Images knows ancestors; leave the option out")
    if args.protocol == "lvis" or (args.protocol == "auto" and index.federated):
        return evaluate_lvis(index, detections, groups=groups)
    return evaluate_coco(index, detections, groups=groups)


def check_outputs(args: argparse.Namespace) -> None:
    """Refuse a file that cannot be written before anything is computed."""
    for path in (args.save, args.csv):
        if path is not None and not Path(path).absolute().parent.is_dir():
            raise UserError(f"{path}: its folder does not exist; create it or give another path")


def show(report: Report, args: argparse.Namespace) -> None:
    print(report.table())
    if args.csv:
        report.write_csv(args.csv)
        logger.info(f"one line per category in {args.csv}")


def main(args: argparse.Namespace) -> None:
    check_outputs(args)
    if (args.ann is None) != (args.results is None):
        raise UserError("--ann and --results belong together: the annotation file and the result file to score")
    if args.ann is not None:
        index = AnnotationIndex.load(common.source_of([args.ann], args))
        show(score(index, args.results, args), args)
        return
    exp = get_exp(args.exp_file, args.name)
    exp.merge(args.opts)
    devices = 1 if launched_externally() else count_processes(args.devices, args.device)
    launch(evaluate, devices, args.device, (args,))
