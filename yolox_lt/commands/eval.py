"""Score a checkpoint (-f EXP -c CKPT) or a result file of any framework (--ann ANN.json --results RESULTS.json)."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from loguru import logger

from yolox_lt.api import experiment_of, read_checkpoint, weights_of
from yolox_lt.checkpoint import load_weights
from yolox_lt.commands import common
from yolox_lt.data.annotations.index import AnnotationIndex
from yolox_lt.data.dataset import ImageStore
from yolox_lt.distributed.collectives import gather_to_main, rank_groups
from yolox_lt.distributed.processes import ProcessInfo, count_processes, launch
from yolox_lt.errors import UserError
from yolox_lt.evaluate import DetectionArrays, Report, evaluate_lvis, evaluate_openimages
from yolox_lt.evaluate.coco import evaluate_coco
from yolox_lt.evaluate.collect import Limits, best_of_images, write_results
from yolox_lt.evaluate.evaluator import Evaluator
from yolox_lt.evaluate.lvis import DETS_PER_CATEGORY
from yolox_lt.evaluate.results import labels_and_images, load_detections
from yolox_lt.exp import DetectorExp, get_exp
from yolox_lt.exp.agreement import adopt_given
from yolox_lt.report.analysis.balance_file import balance_columns
from yolox_lt.report.analysis.evaluation_file import record_evaluation
from yolox_lt.report.analysis.per_category import threshold_column, training_columns
from yolox_lt.report.data.summary import summarize_training
from yolox_lt.report.page.page import write_report

NO_LIMIT = 1_000_000
"""Detections an image; before NMS there are at most `pre_nms` of every level."""


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = common.parser(__doc__)
    common.add_exp(parser)
    parser.add_argument("-c", "--ckpt", help="checkpoint; best.pth of the run folder if not given")
    parser.add_argument("-b", "--batch-size", type=int, default=64, help="images of one forward pass over all devices")
    common.add_devices(parser)
    common.add_precision(parser)
    parser.add_argument(
        "--conf", type=common.share, help="lowest score that counts; the experiment's test_conf if not given"
    )
    parser.add_argument("--nms", type=common.share, help="NMS threshold; the experiment's nmsthre if not given")
    parser.add_argument(
        "--tsize", type=common.side, help="side of a square test size; the experiment's test_size if not given"
    )
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
    parser.add_argument(
        "--fixed",
        action="store_true",
        help="AP-fixed beside AP: the best 10,000 of every category, no limit an image; keeps more detections",
    )
    parser.add_argument(
        "--pool",
        action="store_true",
        help="AP-pool beside AP: the detections of AP-fixed, ranked in one list",
    )
    parser.add_argument(
        "--report", metavar="DIR", help="folder for a page of this evaluation: curves, errors, thresholds, images"
    )
    common.add_overrides(parser)
    return parser


def find_checkpoint(args: argparse.Namespace) -> str:
    """The checkpoint to score: the one given, else best.pth in the folder of the experiment's run.

    Raises:
        UserError: neither checkpoint nor experiment, or an error in the experiment's file or the overrides.
    """
    if args.exp_file is None and args.name is None:
        if args.ckpt is None:
            raise UserError("give a checkpoint with -c, or an experiment with -f whose best.pth is scored")
        return str(args.ckpt)
    exp = get_exp(args.exp_file, args.name)
    exp.merge(args.opts)
    return args.ckpt or str(Path(exp.output_dir) / (args.experiment_name or exp.exp_name) / "best.pth")


def evaluate(process: ProcessInfo, args: argparse.Namespace) -> None:
    """One rank of the evaluation."""
    common.setup_process(process)
    checkpoint = find_checkpoint(args)
    content = read_checkpoint(checkpoint)
    given = None
    if args.exp_file is not None or args.name is not None:
        given = get_exp(args.exp_file, args.name)
        adopt_given(given, content, args.opts[::2])
    exp = experiment_of(content, checkpoint, given, args.opts)
    for attribute, value in (("test_conf", args.conf), ("nmsthre", args.nms)):
        if value is not None:
            setattr(exp, attribute, value)
    if args.tsize is not None:
        exp.test_size = (args.tsize, args.tsize)
    if args.split == "test":
        exp.val_ann, exp.val_images, exp.val_subset = exp.test_ann, exp.test_images, None
    per_image = exp.max_detections
    limits = None
    if args.fixed or args.pool:
        exp.max_detections = NO_LIMIT
        limits = Limits(per_image, DETS_PER_CATEGORY)
        if exp.test_conf > 0 and process.is_main:
            logger.warning(f"test_conf {exp.test_conf:g} keeps lower scores out of AP-fixed and AP-pool; use --conf 0")
    model = exp.get_model()
    load_weights(model, weights_of(content), checkpoint)
    model.to(process.device).to(memory_format=torch.channels_last)
    share = max(args.batch_size // process.world_size, 1)
    evaluator = exp.get_evaluator(share, process.rank, process.world_size, names=content.get("names"))
    index = evaluator.index
    found = evaluator.detect(model, process.device, common.amp_type(args), process.is_main, limits)
    parts = gather_to_main(found, rank_groups().objects)
    if parts is None:
        return
    everything = DetectionArrays.concatenate(parts)
    unlabelled = len(index.labels) == 0
    target = args.save
    if unlabelled and target is None:  # a test split: what was found is all there is
        target = str(Path(checkpoint).with_name(f"{Path(str(index.path)).stem}_results.json"))
    if target is not None:
        write_results(target, everything)
        logger.info(f"{len(everything):,} detections written to {target}")
    if unlabelled:
        print(f"{index.path} has no annotations, so there is nothing to score; the detections are in {target}")
        return
    args.expand_detections |= evaluator.expand_detections
    detections = everything if limits is None else best_of_images(everything, per_image)
    report = score(index, detections, args, evaluator.groups, evaluator.train_boxes)
    show(report, extra_scores(index, everything, args, evaluator.groups))
    columns = training_facts(exp, content, evaluator) if args.csv or args.report else {}
    keep(args, index, detections, report, columns, exp.get_store("val"), content.get("epoch"))


def score(
    index: AnnotationIndex,
    detections: DetectionArrays,
    args: argparse.Namespace,
    groups: np.ndarray | None = None,
    train_boxes: np.ndarray | None = None,
) -> Report:
    """By the protocol of Open Images, LVIS or COCO."""
    check_expansion(index, args)
    if is_open_images(index, args):
        return evaluate_openimages(index, detections, args.expand_detections, groups, train_boxes)
    if args.protocol == "lvis" or (args.protocol == "auto" and index.federated):
        return evaluate_lvis(index, detections, groups=groups)
    return evaluate_coco(index, detections, groups=groups)


def is_open_images(index: AnnotationIndex, args: argparse.Namespace) -> bool:
    """Whether the protocol of Open Images scores."""
    return args.protocol == "openimages" or (args.protocol == "auto" and index.open_images)


def check_expansion(index: AnnotationIndex, args: argparse.Namespace) -> None:
    """Refuse ancestors where there are none."""
    if args.expand_detections and not is_open_images(index, args):
        raise UserError("--expand-detections: only the protocol of Open Images knows ancestors; leave the option out")


def extra_scores(
    index: AnnotationIndex, detections: DetectionArrays, args: argparse.Namespace, groups: np.ndarray | None = None
) -> list[Report]:
    """Those of --fixed and --pool."""
    names = [name for name in ("fixed", "pool") if getattr(args, name)]
    return [evaluate_lvis(index, detections, groups=groups, protocol=name) for name in names]  # type: ignore[arg-type]


def training_facts(exp: DetectorExp, content: dict[str, Any], evaluator: Evaluator) -> dict[str, np.ndarray]:
    """What is known of the checkpoint's training, as columns of per_category.csv."""
    summary, balance = None, {}
    try:
        train = exp.get_index("train")
        if list(train.category_names) == list(content.get("names", train.category_names)):
            summary = summarize_training(exp, train, content.get("batch_size", exp.batch_size))
    except UserError as error:
        logger.warning(f"without columns of the training images: {error}")
    if content.get("criterion"):
        criterion = exp.get_criterion()
        criterion.load_state_dict(content["criterion"])
        balance = balance_columns(criterion.cls_loss)
    columns = training_columns(summary, balance)
    return {name: evaluator.in_order_of_index(column) for name, column in columns.items()}


def keep(
    args: argparse.Namespace,
    index: AnnotationIndex,
    detections: DetectionArrays,
    report: Report,
    columns: dict[str, np.ndarray],
    store: ImageStore | None = None,
    epoch: int | None = None,
) -> None:
    """The files that were asked for: --csv and --report."""
    if not args.csv and not args.report:
        return
    columns = columns | threshold_column(index, detections, report)
    if args.csv:
        report.write_csv(args.csv, columns)
        logger.info(f"one line per category in {args.csv}")
    if args.report:
        folder = Path(args.report)
        folder.mkdir(exist_ok=True)
        train_images = columns.get("train_images")
        counts = None if train_images is None else dict(zip(index.category_ids.tolist(), train_images.tolist()))
        record_evaluation(folder, index, store, detections, report, counts, epoch)
        report.write_csv(folder / "per_category.csv", columns)
        (folder / "pictures").mkdir(exist_ok=True)
        logger.info(f"the page of this evaluation: {write_report(folder)}")


def check_outputs(args: argparse.Namespace) -> None:
    """Refuse a file that cannot be written before anything is computed."""
    for path in (args.save, args.csv, args.report):
        if path is not None and not Path(path).absolute().parent.is_dir():
            raise UserError(f"{path}: its folder does not exist; create it or give another path")


def show(report: Report, extra: Sequence[Report]) -> None:
    """Print the tables."""
    print("\n".join(each.table() for each in (report, *extra)))


def main(args: argparse.Namespace) -> None:
    """Score a result file, or start the ranks that score a checkpoint."""
    check_outputs(args)
    if (args.ann is None) != (args.results is None):
        raise UserError("--ann and --results belong together: the annotation file and the result file to score")
    if args.ann is not None:
        index = AnnotationIndex.load(common.source_of([args.ann], args))
        check_expansion(index, args)
        detections = load_detections(args.results)
        labels_and_images(detections, index, args.results)  # an unknown id is told with the name of the file
        report = score(index, detections, args)
        show(report, extra_scores(index, detections, args))
        keep(args, index, detections, report, {})
        return
    find_checkpoint(args)
    devices = count_processes(args.devices, args.device)
    launch(evaluate, devices, args.device, (args,))
