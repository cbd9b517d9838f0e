"""Write the page of a run, or of several side by side, and draw its images: report YOLOX_outputs/NAME"""

from __future__ import annotations

import argparse
from pathlib import Path

from loguru import logger

from yolox_lt.commands import common
from yolox_lt.errors import UserError
from yolox_lt.report.page.page import write_report
from yolox_lt.report.page.page_data import best_row
from yolox_lt.report.page.run_files import Run, missing_line, read_run

COMPARED = ("AP", "AP50", "APr", "APc", "APf")


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = common.parser(__doc__)
    parser.add_argument("runs", nargs="+", metavar="RUN", help="folders of runs; the first is compared with the others")
    parser.add_argument("-o", "--output", metavar="FILE", help="the page; report.html in the first folder if not given")
    return parser


def main(args: argparse.Namespace) -> None:
    """Write the page of one run or of several."""
    if args.output is not None and not Path(args.output).absolute().parent.is_dir():
        raise UserError(f"{args.output}: its folder does not exist; create it or give another path")
    for folder in args.runs:
        line = missing_line(read_run(folder))
        if line:
            logger.warning(line)
    if len(args.runs) > 1:
        logger.info("best epochs, in percent\n" + comparison([read_run(folder) for folder in args.runs]))
    print(write_report(args.runs[0], args.runs[1:], args.output))


def comparison(runs: list[Run]) -> str:
    """A line for each run with the AP of its best epoch in percent, by group, and the first one minus each other."""
    found = [best_row(run) for run in runs]
    width = max(len(f"{runs[0].name} - {run.name}") for run in runs)
    lines = [" " * width + "".join(f"{metric:>7}" for metric in COMPARED)]

    def line(name: str, values: list[float | None], sign: str) -> None:
        texts = (f"{100 * value:{sign}7.1f}" if value is not None else f"{'-':>7}" for value in values)
        lines.append(f"{name:<{width}}" + "".join(texts))

    for run, row in zip(runs, found):
        line(run.name, [row.get(metric) for metric in COMPARED], "")
    for run, row in zip(runs[1:], found[1:]):
        pairs = [(found[0].get(metric), row.get(metric)) for metric in COMPARED]
        line(f"{runs[0].name} - {run.name}", [None if None in (a, b) else a - b for a, b in pairs], "+")  # type: ignore[operator]
    return "\n".join(lines)
