"""Write the page of a run, or of several side by side, and draw its images: report YOLOX_outputs/NAME"""

from __future__ import annotations

import argparse
from pathlib import Path

from loguru import logger

from yolox_lt.commands import common
from yolox_lt.errors import UserError
from yolox_lt.report.page.page import write_report
from yolox_lt.report.page.run_files import missing_line, read_run


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
    print(write_report(args.runs[0], args.runs[1:], args.output))
