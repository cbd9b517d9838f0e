"""Turn a foreign checkpoint into one of this project: official YOLOX, released EFL/EQFL files, torchvision ResNets."""

from __future__ import annotations

import argparse

from yolox_lt.commands import common
from yolox_lt.convert import convert
from yolox_lt.convert.conversion import CHANNELS
from yolox_lt.exp import get_exp


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = common.parser(__doc__)
    parser.add_argument("source", metavar="SRC", help="file to convert; what it is is recognised by its content")
    parser.add_argument("target", metavar="DST", help="file to write")
    parser.add_argument(
        "-f",
        "--exp-file",
        "--exp_file",
        dest="exp_file",
        help="experiment whose settings, category names and ids are stored (Python, is executed); those that belong to "
        "the file if not given",
    )
    parser.add_argument(
        "--channels",
        choices=CHANNELS,
        default="auto",
        help="order of a released head's channels; auto decides by the weights and prints why",
    )
    return parser


def main(args: argparse.Namespace) -> None:
    """Convert, and say what to do next."""
    exp = get_exp(args.exp_file) if args.exp_file is not None else None
    conversion = convert(args.source, args.target, exp, args.channels)
    print(conversion.text())
    print("next:", *conversion.commands(args.exp_file), sep="\n  ")
