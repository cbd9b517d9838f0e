"""Turn a data set as it is published into one annotation file that training and evaluation read.

A sub-command is a function that adds its options (`add_...`) and one that does the work (`convert_...`).
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from loguru import logger

from yolox_lt.commands import common, own_data
from yolox_lt.data.annotations.index import AnnotationIndex, write_packed
from yolox_lt.data.annotations.openimages_csv import openimages_columns
from yolox_lt.errors import UserError


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = common.parser("Turn a data set as it is published into one annotation file.")
    kinds = parser.add_subparsers(dest="kind", required=True, metavar="KIND", help="what to convert: KIND --help")
    add_openimages(kinds)
    own_data.add_coco_options(
        add_kind(kinds, "coco", "COCO, LVIS, VOC or YOLO annotations -> one COCO json", own_data.coco)
    )
    own_data.add_split_options(
        add_kind(
            kinds, "split", "one annotated set -> train.json and val.json, rare categories in both", own_data.split
        )
    )
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
    """Run the sub-command."""
    args.main(args)


def add_openimages(kinds: Any) -> None:
    """The sub-command for Open Images."""
    made = add_kind(kinds, "openimages", "Open Images Challenge 2019: csv files -> one index", convert_openimages)
    made.add_argument("--boxes", required=True, metavar="CSV", help="boxes (*-detection-bbox.csv)")
    made.add_argument("--labels", metavar="CSV", help="verified image labels (*-human-imagelabels.csv), for scoring")
    made.add_argument("--classes", required=True, metavar="CSV", help="MID and name (*-classes-description-500.csv)")
    made.add_argument("--hierarchy", required=True, metavar="JSON", help="tree of the classes (*-hierarchy.json)")
    made.add_argument("--images", required=True, metavar="DIR", help="folder of the images, <ImageID>.jpg")
    made.add_argument("--sizes", metavar="CSV", help="ImageID,Width,Height; the images' headers are read if not given")
    made.add_argument("--out", required=True, metavar="FILE", help="index to write, for example train.index")


def convert_openimages(args: argparse.Namespace) -> None:
    """Open Images' csv files as one index."""
    labels, sizes = (Path(path) if path is not None else None for path in (args.labels, args.sizes))
    check_folder(args.out)
    if labels is None:
        logger.warning("without --labels every category counts as verified in every image: not the challenge's scoring")
    columns = openimages_columns(
        Path(args.boxes), labels, Path(args.classes), Path(args.hierarchy), Path(args.images), sizes
    )
    write_packed(Path(args.out), columns)
    describe(AnnotationIndex.load(args.out))


def check_folder(path: str) -> None:
    """Refuse a file that cannot be written before anything is read."""
    if not Path(path).absolute().parent.is_dir():
        raise UserError(f"{path}: its folder does not exist; create it or give another path")


def describe(index: AnnotationIndex) -> None:
    """What was written, in a few lines."""
    with_boxes = int((index.image_counts > 0).sum())
    print(
        f"{index.path}: {len(index):,} images, {len(index.labels):,} boxes ({int(index.usable.sum()):,} to train on), "
        f"{with_boxes:,} of {len(index.category_ids):,} categories with boxes to train on"
    )
    for name, count in index.problems.items():
        if count:
            print(f"  {count:,} {name}")
