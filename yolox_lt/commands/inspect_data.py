"""Look at an experiment's data before training: frequencies, draws of an epoch, problems, images."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from yolox_lt.commands import common
from yolox_lt.data.sampling.sampler import SampleSampler
from yolox_lt.errors import UserError
from yolox_lt.exp import DetectorExp, get_exp
from yolox_lt.report.data.batch_images import render_samples, render_train_batch
from yolox_lt.report.data.problems import Problem, find_problems
from yolox_lt.report.data.summary import DataSummary, plot_summary, summarize_training
from yolox_lt.report.data.text import data_report, problem_list


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = common.parser(__doc__)
    common.add_exp(parser)
    parser.add_argument(
        "-b", "--batch-size", type=int, help="images of one step; the experiment's batch_size if not given"
    )
    parser.add_argument("--rows", type=int, default=20, help="categories listed, rarest and most frequent; 0 for all")
    parser.add_argument("--pictures", type=int, default=8, help="training images drawn with their boxes")
    parser.add_argument("--check-images", action="store_true", help="read every image instead of looking for its file")
    parser.add_argument("--json", metavar="FILE", help="write everything as json; - prints it in place of the tables")
    parser.add_argument("--strict", action="store_true", help="exit status 1 if an error was found in the data")
    common.add_overrides(parser)
    return parser


def main(args: argparse.Namespace) -> None:
    """Say what the training set looks like and what is wrong with it."""
    if args.json not in (None, "-") and not Path(args.json).absolute().parent.is_dir():
        raise UserError(f"{args.json}: its folder does not exist; create it or give another path")
    exp = get_exp(args.exp_file, args.name)
    exp.merge(args.opts)
    exp.exp_name = args.experiment_name or exp.exp_name
    exp.skip_bad_images = True  # missing files are to be counted here, not to stop at the first
    batch_size = exp.batch_size if args.batch_size is None else args.batch_size
    if batch_size < 1:
        raise UserError(f"-b {batch_size}: give at least 1")
    exp.settle(batch_size)
    store = exp.get_store("train")
    summary = summarize_training(exp, store.index, batch_size)
    val = exp.get_store("val") if "val" in exp.splits() else None
    problems = find_problems(store, exp.train_positions(store.index), val, args.check_images)
    if args.json != "-":
        print(data_report(summary, exp, args.rows, sys.stdout.isatty()))
        print(problem_list(problems, sys.stdout.isatty()))
    try:
        pictures = render_images(exp, summary, args.pictures)
    except UserError as error:
        if not any(p.error for p in problems):
            raise
        raise UserError(f"no images were drawn ({error}); fix the errors of the list first") from error
    if args.json is not None:
        write_json(args.json, content(summary, exp, problems, pictures))
    if args.json != "-":
        print(f"\nimages: {', '.join(p.name for p in pictures[:3])}, ... in {pictures[0].parent}")
    if args.strict and any(p.error for p in problems):
        sys.exit(1)


def content(summary: DataSummary, exp: DetectorExp, problems: list[Problem], pictures: list[Path]) -> dict[str, Any]:
    """What --json writes."""
    return {
        "experiment": exp.exp_name,
        "sampler": exp.sampler,
        "epoch_length": exp.epoch_length,
        "partners": exp.partners,
        **summary.to_dict(),
        "problems": [problem.to_dict() for problem in problems],
        "pictures": [str(path) for path in pictures],
    }


def write_json(target: str, values: dict[str, Any]) -> None:
    """Write everything as json into a file, or to standard output for "-"."""
    text = json.dumps(values, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    if target == "-":
        sys.stdout.write(text)
    else:
        Path(target).write_text(text, encoding="utf-8")


def render_images(exp: DetectorExp, summary: DataSummary, count: int) -> list[Path]:
    """labels.png, train_batch.jpg (as the network sees it) and `count` labelled images in the run's pictures/."""
    folder = Path(exp.output_dir) / exp.exp_name / "pictures"
    folder.mkdir(parents=True, exist_ok=True)
    plot_summary(summary, folder / "labels.png")
    seed = exp.seed or 0
    dataset = exp.get_dataset(seed=seed)
    index = dataset.store.index
    stream = exp.get_sampler(summary.sampling.factors, seed, 0, 1)
    draws = SampleSampler(stream, min(16, len(dataset)), 0, 1, 1, exp.batch_groups(index, dataset.images))
    batch = exp.get_collate()([dataset[draw] for draw in next(iter(draws))])
    render_train_batch(batch, index.category_names, folder / "train_batch.jpg")
    labelled = render_samples(dataset.store, dataset.images, folder, count)
    return [folder / "labels.png", folder / "train_batch.jpg", *labelled]
