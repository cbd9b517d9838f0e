"""Look at an experiment's data before training: frequencies, draws of an epoch, problems, pictures."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from yolox_lt.commands import common
from yolox_lt.data.sampler import DrawSampler
from yolox_lt.errors import UserError
from yolox_lt.exp import DetectorExp, get_exp
from yolox_lt.report.batch_pictures import draw_samples, draw_train_batch
from yolox_lt.report.data_problems import Problem, find_problems
from yolox_lt.report.data_summary import (
    GROUP_NAMES,
    GROUP_RULES,
    SIZE_NAMES,
    DataSummary,
    Sampling,
    partners_of,
    plot_summary,
    summarize,
)

COLORS = {"bold": "1", "red": "31", "yellow": "33", "green": "32", "cyan": "36"}
GROUP_COLORS = {"r": "red", "c": "yellow", "f": "cyan"}


def make_parser() -> argparse.ArgumentParser:
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
    if args.json not in (None, "-") and not Path(args.json).absolute().parent.is_dir():
        raise UserError(f"{args.json}: its folder does not exist; create it or give another path")
    exp = get_exp(args.exp_file, args.name)
    exp.merge(args.opts)
    exp.exp_name = args.experiment_name or exp.exp_name
    exp.skip_bad_images = True  # missing files are to be counted here, not to stop at the first
    store = exp.get_store("train")
    positions = exp.train_positions(store.index)
    factors = exp.get_factors(store.index, positions)
    batch_size = exp.batch_size if args.batch_size is None else args.batch_size
    if batch_size < 1:
        raise UserError(f"-b {batch_size}: give at least 1")
    iterations, partners = exp.iterations_per_epoch(factors, batch_size, 1), partners_of(exp.get_augment())
    same_partners = exp.partner_factors(store.index, positions) is not None
    sampling = Sampling(factors, iterations, batch_size, partners, same_partners)
    summary = summarize(store.index, positions, sampling)
    problems = find_problems(store, positions, exp.get_store("val"), args.check_images)
    if args.json != "-":
        print(report(summary, exp, args.rows, sys.stdout.isatty()))
        print(problem_list(problems, sys.stdout.isatty()))
    pictures = draw_pictures(exp, summary, args.pictures)
    if args.json is not None:
        write_json(args.json, content(summary, exp, problems, pictures))
    if args.json != "-":
        print(f"\npictures: {', '.join(p.name for p in pictures[:3])}, ... in {pictures[0].parent}")
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
    text = json.dumps(values, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    if target == "-":
        sys.stdout.write(text)
    else:
        Path(target).write_text(text, encoding="utf-8")


# ------------------------------------------------------------------------------------------------------ text


def report(summary: DataSummary, exp: DetectorExp, rows: int, colored: bool) -> str:
    """The tables and sentences that are printed."""
    groups, categories = group_rows(summary), category_rows(summary, rows)
    marks = [None, *GROUP_NAMES, None], [None, *(row[2] for row in categories[1:])]
    return "\n\n".join(
        [
            f"{paint(summary.path, 'bold', colored)}\n{image_lines(summary)}",
            format_rows(groups, marks[0], colored),
            format_rows(categories, marks[1], colored),
            sampling_lines(summary, exp),
        ]
    )


def image_lines(summary: DataSummary) -> str:
    per_image = summary.boxes_per_image
    return (
        f"{len(per_image):,} of {summary.listed:,} images used, {int(per_image.sum()):,} boxes of "
        f"{len(summary.names):,} categories\n"
        f"boxes of an image: mean {per_image.mean():.1f}, median {np.median(per_image):g}, most {per_image.max()}; "
        f"{int((per_image == 0).sum()):,} images without any"
    )


def sampling_lines(summary: DataSummary, exp: DetectorExp) -> str:
    """How an epoch is drawn, and what the last columns of the tables mean."""
    sampling = summary.sampling
    repeated = float(sampling.factors.sum())
    lines = [
        f"sampler {exp.sampler}: the list of one pass has {repeated:,.0f} images "
        f"({repeated / len(sampling.factors):.3f}x), largest factor {sampling.factors.max():g}",
        f"epoch ({exp.epoch_length}): {sampling.iterations:,} iterations of {sampling.batch_size} images; "
        f"{exp.max_epoch} epochs make {exp.max_epoch * sampling.samples / repeated:.1f} passes",
    ]
    if sampling.partners is None:
        lines.append("images that this experiment's own augmentation adds to a sample are not counted in draws")
    elif sampling.partners:
        closing = min(exp.no_aug_epochs, exp.max_epoch)
        how = "drawn as the sampler draws" if sampling.same_partners else "uniform over all images"
        effect = "do not dilute the sampler" if sampling.same_partners else "dilute the sampler"
        lines.append(
            f"mosaic and mixup add {sampling.partners:g} images to a sample on average, {how}: they {effect}"
            + ("" if sampling.same_partners else f", but for the {closing} closing epochs")
        )
    lines.append(
        "draws: expected images with the category in one epoch; gain: how often a category is seen, over uniform "
        "sampling"
    )
    return "\n".join(lines)


def group_rows(summary: DataSummary) -> list[list[str]]:
    """Table: one row per frequency group and one for all."""
    rows = [["group", "train images", "categories", "images", "boxes", *SIZE_NAMES, "draws", "gain"]]
    for group in (*GROUP_NAMES, None):
        of = summary.select(group)
        boxes = int(summary.instance_counts[of].sum())
        rows.append(
            [
                "all" if group is None else GROUP_NAMES[group],
                "" if group is None else GROUP_RULES[group],
                f"{of.sum():,}",
                f"{summary.image_counts[of].sum():,}",
                f"{boxes:,}",
                *(f"{100 * count / max(boxes, 1):.0f}%" for count in summary.sizes[of].sum(axis=0)),
                f"{summary.draws[of].sum():,.0f}",
                times(summary.group_gain(group)),
            ]
        )
    return rows


def category_rows(summary: DataSummary, most: int = 20) -> list[list[str]]:
    """Table: the rarest and the most frequent categories, at most `most` rows (0: all)."""
    order = np.argsort(summary.image_counts, kind="stable")
    if most and len(order) > most:
        order = np.concatenate([order[: most // 2], order[-(most - most // 2) :]])
    rows = [["id", "name", "group", "images", "boxes", *SIZE_NAMES, "repeat", "draws", "gain"]]
    for c in order.tolist():
        rows.append(
            [
                str(summary.category_ids[c]),
                summary.names[c],
                str(summary.groups[c]),
                f"{summary.image_counts[c]:,}",
                f"{summary.instance_counts[c]:,}",
                *(f"{count:,}" for count in summary.sizes[c]),
                times(summary.repeats[c]),
                f"{summary.draws[c]:,.1f}",
                times(summary.gain[c]),
            ]
        )
    return rows


def times(value: float) -> str:
    return "-" if np.isnan(value) else f"{value:.2f}x"


def problem_list(problems: list[Problem], colored: bool) -> str:
    """One line a problem, errors first."""
    if not problems:
        return "\n" + paint("no problems found", "green", colored)
    lines = ["\nfound:"]
    for problem in problems:
        kind = paint("error ", "red", colored) if problem.error else paint("remark", "yellow", colored)
        more = ", ..." if problem.examples and problem.count > len(problem.examples) else ""
        names = f": {', '.join(problem.examples)}{more}" if problem.examples else ""
        lines.append(f"  {kind} {problem.split:<5} {problem.count:,} {problem.text}{names}")
    return "\n".join(lines)


def format_rows(rows: list[list[str]], marks: list[str | None], colored: bool) -> str:
    """Aligned text: the first two columns to the left, numbers to the right; rows of a group in its colour."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = []
    for row, mark in zip(rows, marks):
        cells = [c.ljust(w) if i < 2 else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths))]
        line = "  ".join(cells).rstrip()
        lines.append(line if mark is None else paint(line, GROUP_COLORS[mark], colored))
    return "\n".join(lines)


def paint(text: str, color: str, colored: bool) -> str:
    """The text in a colour of COLORS on a terminal, as it is elsewhere."""
    return f"\033[{COLORS[color]}m{text}\033[0m" if colored else text


# ------------------------------------------------------------------------------------------------------ pictures


def draw_pictures(exp: DetectorExp, summary: DataSummary, count: int) -> list[Path]:
    """labels.png, train_batch.jpg (as the network sees it) and `count` labelled images in the run's pictures/."""
    folder = Path(exp.output_dir) / exp.exp_name / "pictures"
    folder.mkdir(parents=True, exist_ok=True)
    plot_summary(summary, folder / "labels.png")
    seed = exp.seed or 0
    dataset = exp.get_dataset(seed=seed)
    index = dataset.store.index
    stream = exp.get_sampler(summary.sampling.factors, seed, 0, 1)
    draws = DrawSampler(stream, min(16, len(dataset)), 0, 1, 1, exp.batch_groups(index, dataset.images))
    batch = exp.get_collate()([dataset[draw] for draw in next(iter(draws))])
    legacy = bool(getattr(exp, "legacy", False))
    draw_train_batch(batch, index.category_names, folder / "train_batch.jpg", legacy=legacy)
    labelled = draw_samples(dataset.store, dataset.images, folder, count)
    return [folder / "labels.png", folder / "train_batch.jpg", *labelled]
