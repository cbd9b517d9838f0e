"""Score a checkpoint (-f EXP -c CKPT) or a result file of any framework (--ann ANN.json --results RESULTS.json)."""

from __future__ import annotations

import argparse
import functools
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from loguru import logger

from yolox_lt.api import calibrated, experiment_of, read_checkpoint, weights_of
from yolox_lt.checkpoint import load_weights, portable, save_checkpoint
from yolox_lt.commands import common
from yolox_lt.data.annotations.index import AnnotationIndex
from yolox_lt.data.dataset import ImageStore
from yolox_lt.distributed.collectives import gather_to_main, main_first, rank_groups
from yolox_lt.distributed.processes import ProcessInfo, count_processes, launch, use_fast_products
from yolox_lt.errors import UserError
from yolox_lt.evaluate import DetectionArrays, Report, evaluate_lvis
from yolox_lt.evaluate.bootstrap import Matched, bootstrap, interval_table
from yolox_lt.evaluate.collect import Limits, best_of_images, write_results
from yolox_lt.evaluate.evaluator import Evaluator
from yolox_lt.evaluate.lvis import DETS_PER_CATEGORY
from yolox_lt.evaluate.results import labels_and_images, load_detections
from yolox_lt.evaluate.scoring import PROTOCOLS, protocol_name, score
from yolox_lt.exp import DetectorExp, get_exp
from yolox_lt.exp.agreement import adopt_given
from yolox_lt.report.analysis.after_training import write_thresholds
from yolox_lt.report.analysis.balance_file import balance_columns
from yolox_lt.report.analysis.category_thresholds import category_thresholds, thresholds_text
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
    common.add_precision(parser).add_argument(
        "--fp32", action="store_true", help="float32 for a checkpoint that was trained in mixed precision"
    )
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
        choices=PROTOCOLS,
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
        help="AP-fixed too: the best 10,000 of every category, no limit per image; keeps more detections",
    )
    parser.add_argument(
        "--pool",
        action="store_true",
        help="AP-pool too: the detections of AP-fixed, ranked in one list",
    )
    parser.add_argument(
        "--report", metavar="DIR", help="folder for a page of this evaluation: curves, errors, thresholds, images"
    )
    parser.add_argument(
        "--thresholds",
        action="store_true",
        help="store in the checkpoint the threshold of every category with the best F1; demo and API use them",
    )
    parser.add_argument(
        "--precision", type=common.share, metavar="P", help="with --thresholds: those that reach this precision instead"
    )
    parser.add_argument("--bootstrap", type=int, metavar="N", help="95 %% intervals over N resamples of the images")
    parser.add_argument(
        "--against", metavar="FILE", help="with --bootstrap: second result file; the interval of the difference"
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
    if args.ckpt is not None:
        return str(args.ckpt)
    best = Path(exp.output_dir) / (args.experiment_name or exp.exp_name) / "best.pth"
    latest = best.with_name("latest.pth")
    if latest.is_file() and not best.is_file():
        raise UserError(f"{best}: not there, the run was not scored so far; give -c {latest} for its last weights")
    return str(best)


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
    args.fixed |= "calibrator" in content and args.protocol != "openimages"  # re-ranking alone can raise AP
    for attribute, value in (("test_conf", args.conf), ("nmsthre", args.nms)):
        if value is not None:
            setattr(exp, attribute, value)
    if args.tsize is not None:
        exp.test_size = (args.tsize, args.tsize)
    if args.split == "test":
        exp.evaluate_on(exp.test_ann, exp.test_images)
    per_image = exp.max_detections
    limits = None
    if args.fixed or args.pool:
        exp.max_detections = NO_LIMIT
        limits = Limits(per_image, DETS_PER_CATEGORY)
        if exp.test_conf > 0 and process.is_main:
            logger.warning(f"test_conf {exp.test_conf:g} keeps lower scores out of AP-fixed and AP-pool; use --conf 0")
    use_fast_products(process.device, exp.tf32, fixed_size=False)
    model = exp.get_model()
    load_weights(model, weights_of(content), checkpoint)
    model, calibrator = calibrated(model, content, exp, checkpoint)
    model.to(process.device).to(memory_format=torch.channels_last)
    ranks = rank_groups()
    share = max(args.batch_size // process.world_size, 1)
    make = functools.partial(exp.get_evaluator, share, process.rank, process.world_size, names=content.get("names"))
    evaluator = main_first(make, ranks.objects)
    if calibrator is not None:
        evaluator.predictor = replace(evaluator.predictor, calibrator=calibrator)
    index = evaluator.index
    amp = evaluation_amp(args, content, process)
    found = evaluator.detect(model, process.device, amp, process.is_main, limits)
    parts = gather_to_main(found, ranks.objects)
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
    check_expansion(index, args)
    evaluator.expand_detections, evaluator.max_detections = args.expand_detections, per_image
    report = evaluator.score(detections, args.protocol)
    show(report, extra_scores(index, everything, args, evaluator.groups))
    show_intervals(index, detections, args, report)
    if args.thresholds:
        keep_thresholds(Path(checkpoint), evaluator, detections, report, args.precision)
    columns = training_facts(exp, content, evaluator) if args.csv or args.report else {}
    keep(args, index, detections, report, columns, exp.get_store("val"), content.get("epoch"))


def check_expansion(index: AnnotationIndex, args: argparse.Namespace) -> None:
    """Refuse ancestors where there are none."""
    if args.expand_detections and protocol_name(index, args.protocol) != "openimages":
        raise UserError("--expand-detections: only the protocol of Open Images knows ancestors; leave the option out")


def extra_scores(
    index: AnnotationIndex, detections: DetectionArrays, args: argparse.Namespace, groups: np.ndarray | None = None
) -> list[Report]:
    """Those of --fixed and --pool."""
    names = [name for name in ("fixed", "pool") if getattr(args, name)]
    return [evaluate_lvis(index, detections, groups=groups, protocol=name) for name in names]  # type: ignore[arg-type]


def evaluation_amp(args: argparse.Namespace, content: dict[str, Any], process: ProcessInfo) -> torch.dtype | None:
    """Type of mixed precision: as given, else as in the evaluations of the checkpoint's own training; None: float32."""
    trained = content.get("amp")
    if args.fp16 or args.bf16 or args.fp32 or trained is None:
        return common.amp_type(args)
    if process.device.type == "cpu" and trained == "float16":
        if process.is_main:
            logger.info("evaluated in float32; the training's own evaluations, on a GPU, were in float16")
        return None
    if process.is_main:
        logger.info(f"evaluated in {trained}, as in its training; --fp32 for float32")
    amp: torch.dtype = getattr(torch, trained)
    return amp


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


def show_intervals(
    index: AnnotationIndex, detections: DetectionArrays, args: argparse.Namespace, report: Report
) -> None:
    """Print what --bootstrap and --against ask for."""
    if args.bootstrap is None:
        return
    ours = args.results or "this checkpoint"
    named = [(ours, detections)]
    if args.against is not None:
        named.append((args.against, load_detections(args.against)))
    matched = [Matched.of(index, found, report.rules, report.groups) for _, found in named]
    samples = bootstrap(matched, args.bootstrap)
    values = [each.metrics(np.ones(len(index), np.int64)) for each in matched]
    for (name, _), value, sample in zip(named, values, samples):
        print(interval_table(value, sample, str(name)))
    if args.against is not None:
        print(interval_table(values[0] - values[1], samples[0] - samples[1], f"{ours} less {args.against}"))


def keep_thresholds(
    path: Path, evaluator: Evaluator, detections: DetectionArrays, report: Report, precision: float | None
) -> None:
    """Store thresholds in the checkpoint, and print what they give."""
    content = read_checkpoint(path)
    names = content.get("names", list(report.category_names))
    made = category_thresholds(evaluator.index, detections, report, evaluator.labels, precision)
    save_checkpoint(path, content | {"exp": portable(content["exp"]), "thresholds": made.state(names)})
    # Groups are those of the annotation file's categories.
    groups = report.groups if evaluator.labels is None else None
    same = category_thresholds(evaluator.index, detections, report, evaluator.labels, fixed=0.3)
    print("\n".join(thresholds_text(each, tuple(names), groups) for each in (made, same)))
    write_thresholds(path, evaluator.index, detections, report, precision)
    logger.info(f"{path}: thresholds stored; demo and API use them by default")


def check_options(args: argparse.Namespace) -> None:
    """Refuse options that do not go together."""
    if args.bootstrap is not None and args.bootstrap < 2:
        raise UserError(f"--bootstrap {args.bootstrap}: give at least 2 resamples, for example 1000")
    if args.against is not None and args.bootstrap is None:
        raise UserError("--against compares under --bootstrap; give both, for example --bootstrap 1000")
    if args.precision is not None and not args.thresholds:
        raise UserError("--precision says which thresholds are stored; give it together with --thresholds")
    if args.thresholds and args.ann is not None:
        raise UserError("--thresholds are stored in a checkpoint; give -c CKPT instead of --ann and --results")


def show(report: Report, extra: Sequence[Report]) -> None:
    """Print the tables."""
    print("\n".join(each.table() for each in (report, *extra)))


def main(args: argparse.Namespace) -> None:
    """Score a result file, or start the ranks that score a checkpoint."""
    check_outputs(args)
    check_options(args)
    if (args.ann is None) != (args.results is None):
        raise UserError("--ann and --results belong together: the annotation file and the result file to score")
    if args.ann is not None:
        index = AnnotationIndex.load(common.source_of([args.ann], args))
        check_expansion(index, args)
        detections = load_detections(args.results)
        labels_and_images(detections, index, args.results)  # an unknown id is told with the name of the file
        report = score(index, detections, args.protocol, expand_detections=args.expand_detections)
        show(report, extra_scores(index, detections, args))
        show_intervals(index, detections, args, report)
        keep(args, index, detections, report, {})
        return
    find_checkpoint(args)
    devices = count_processes(args.devices, args.device)
    launch(evaluate, devices, args.device, (args,))
