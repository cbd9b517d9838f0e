"""What is said about a data set before training: tables and sentences, coloured for a terminal or plain."""

from __future__ import annotations

import numpy as np

from yolox_lt.report.data.problems import Problem
from yolox_lt.report.data.summary import GROUP_RULES, SIZE_NAMES, DataSummary, TrainingSettings
from yolox_lt.report.group_names import GROUP_NAMES

COLORS = {"bold": "1", "red": "31", "yellow": "33", "green": "32", "cyan": "36"}
GROUP_COLORS = {"r": "red", "c": "yellow", "f": "cyan"}


def data_report(summary: DataSummary, exp: TrainingSettings, rows: int, colored: bool) -> str:
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
    """How many images and boxes there are."""
    per_image = summary.boxes_per_image
    return (
        f"{len(per_image):,} of {summary.listed:,} images used, {int(per_image.sum()):,} boxes of "
        f"{len(summary.names):,} categories\n"
        f"boxes of an image: mean {per_image.mean():.1f}, median {np.median(per_image):g}, most {per_image.max()}; "
        f"{int((per_image == 0).sum()):,} images without any"
    )


def sampling_lines(summary: DataSummary, exp: TrainingSettings) -> str:
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
    """A factor as 1.23x, - where it is not defined."""
    return "-" if np.isnan(value) else f"{value:.2f}x"


def problem_list(problems: list[Problem], colored: bool) -> str:
    """One line a problem, errors first."""
    if not problems:
        return "\n" + paint("no problems found", "green", colored)
    lines = ["\nfound:"]
    lines += [f"  {problem_line(problem, colored)}" for problem in problems]
    return "\n".join(lines)


def problem_line(problem: Problem, colored: bool = False) -> str:
    """Its weight, split, count, what it is, and a few names."""
    kind = paint("error ", "red", colored) if problem.error else paint("remark", "yellow", colored)
    more = ", ..." if problem.examples and problem.count > len(problem.examples) else ""
    names = f": {', '.join(problem.examples)}{more}" if problem.examples else ""
    return f"{kind} {problem.split:<5} {problem.count:,} {problem.text}{names}"


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
