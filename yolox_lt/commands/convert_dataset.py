"""Turn a data set as it is published into one annotation file that training and evaluation read.

A sub-command is a function that adds its options (`add_...`) and one that does the work (`convert_...`).
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from yolox_lt.commands import common


def make_parser() -> argparse.ArgumentParser:
    parser = common.parser("Turn a data set as it is published into one annotation file.")
    kinds = parser.add_subparsers(dest="kind", required=True, metavar="KIND", help="what to convert: KIND --help")
    add_openimages(kinds)
    return parser


def add_kind(kinds: Any, name: str, text: str, main: Callable[[argparse.Namespace], None]) -> argparse.ArgumentParser:
    """A sub-command: `kinds` is what `add_subparsers` gave, `text` its help, `main` what it does."""
    made: argparse.ArgumentParser = kinds.add_parser(
        name, help=text, description=text, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    # The option of the main parser again, so that it may stand behind the others.
    made.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help="show the traceback of an error")
    made.set_defaults(main=main)
    return made


def main(args: argparse.Namespace) -> None:
    args.main(args)


def add_openimages(kinds: Any) -> None:
    made = add_kind(kinds, "openimages", "Open Images Challenge 2019: csv files -> one index", convert_openimages)
    made.add_argument("--boxes", required=True, metavar="CSV", help="*-detection-bbox.csv")
    made.add_argument("--out", required=True, metavar="FILE", help="file to write, for example train.index")


def convert_openimages(args: argparse.Namespace) -> None:
    raise NotImplementedError
