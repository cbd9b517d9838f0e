#!/usr/bin/env python
"""Look at an experiment's training data before training: frequencies, repeat factors, epoch length, problems,
pictures.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import common
import numpy as np
from loguru import logger

from yolox_lt.data.dataset import BadImageError, ImageStore
from yolox_lt.exp import DetectorExp, get_exp
from yolox_lt.report.data_summary import (
    category_rows,
    draw_samples,
    format_rows,
    group_rows,
    plot_counts,
    summarize,
)


def make_parser() -> argparse.ArgumentParser:
    parser = common.parser(__doc__)
    common.add_exp(parser)
    parser.add_argument(
        "-b", "--batch-size", type=int, help="images of one step; the experiment's batch_size if not given"
    )
    parser.add_argument("--rows", type=int, default=20, help="categories listed, rarest and most frequent; 0 for all")
    parser.add_argument("--pictures", type=int, default=8, help="training images drawn with their boxes")
    parser.add_argument("--check-images", action="store_true", help="read every image, not a sample of file names")
    parser.add_argument("--strict", action="store_true", help="exit status 1 if any problem was found")
    common.add_overrides(parser)
    return parser


def main(args: argparse.Namespace) -> None:
    exp = get_exp(args.exp_file, args.name)
    exp.merge(args.opts)
    exp.exp_name = args.experiment_name or exp.exp_name
    store = exp.get_store("train")
    index = store.index
    positions = exp.train_positions(index)
    factors = exp.get_factors(index, positions)
    batch_size = args.batch_size or exp.batch_size
    summary = summarize(index, positions, factors, exp.epoch_images(factors), batch_size)
    print(f"{summary.path}")
    print(
        f"{summary.images:,} of {len(index):,} images used, {summary.boxes:,} boxes "
        f"({summary.boxes_per_image:.1f} an image), {len(summary.names):,} categories\n"
    )
    print(format_rows(group_rows(summary)) + "\n")
    print(format_rows(category_rows(summary, args.rows)) + "\n")
    print(
        f"sampler {exp.sampler}: one pass is {summary.repeated_images:,.0f} images "
        f"({summary.repeated_images / summary.images:.3f}x), largest factor {summary.max_factor:g}"
    )
    print(
        f"epoch ({exp.epoch_length}): {summary.iterations:,} iterations of {batch_size} images; {exp.max_epoch} epochs "
        f"make {exp.max_epoch * summary.iterations * batch_size / summary.repeated_images:.1f} passes\n"
    )
    problems = dict(summary.problems)
    if summary.unused:
        shown = ", ".join(summary.unused[:5]) + (", ..." if len(summary.unused) > 5 else "")
        problems[f"categories without a box ({shown})"] = len(summary.unused)
    problems |= missing_from_train(exp, summary.image_counts)
    if args.check_images:
        problems |= unreadable(store, positions)
    print("problems found:" if problems else "no problems found")
    for name, count in problems.items():
        print(f"  {count:,} {name}")
    folder = Path(exp.output_dir) / exp.exp_name / "pictures"
    folder.mkdir(parents=True, exist_ok=True)
    plot_counts(summary, folder / "labels.png")
    drawn = draw_samples(store, positions, folder, args.pictures)
    print(f"\npictures: {folder / 'labels.png'} and {len(drawn)} labelled images beside it")
    if args.strict and problems:
        sys.exit(1)


def missing_from_train(exp: DetectorExp, image_counts: np.ndarray) -> dict[str, int]:
    """Categories that are to be found in validation but never seen in training."""
    val = exp.get_index("val")
    names = [
        n
        for n, in_val, in_train in zip(val.category_names, val.instance_counts, image_counts)
        if in_val and not in_train
    ]
    return {f"categories in validation but not in training ({', '.join(names[:5])})": len(names)} if names else {}


def unreadable(store: ImageStore, positions: np.ndarray) -> dict[str, int]:
    """Images that cannot be read, named one by one."""
    count = 0
    for position in positions.tolist():
        try:
            store.read(position)
        except BadImageError as error:
            logger.warning(str(error))
            count += 1
    return {"unreadable images": count} if count else {}


if __name__ == "__main__":
    common.run(main, make_parser())
