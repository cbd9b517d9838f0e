"""Sub-commands of convert-dataset for a user's own annotations: write them as json, cut them into two parts."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from yolox_lt.commands import common
from yolox_lt.data.annotations.index import AnnotationIndex
from yolox_lt.data.annotations.split import lost_categories, split_images
from yolox_lt.data.annotations.write_coco import write_coco
from yolox_lt.errors import UserError

NAMED = 5
"""Categories that a message names."""


def add_coco_options(to: argparse.ArgumentParser) -> None:
    """The options of `coco`."""
    _add_sources(to)
    to.add_argument("--out", required=True, metavar="FILE", help="json file to write")


def coco(args: argparse.Namespace) -> None:
    """All annotations as one json file."""
    index = load(args)
    out = Path(args.out)
    if not out.absolute().parent.is_dir():
        raise UserError(f"{out}: its folder does not exist; create it or give another path")
    write_coco(out, index)
    print(f"{out}: {describe(index, np.arange(len(index)))}")


def add_split_options(to: argparse.ArgumentParser) -> None:
    """The options of `split`."""
    _add_sources(to)
    to.add_argument("--out", required=True, metavar="DIR", help="folder to write train.json and val.json into")
    to.add_argument("--val", type=float, default=0.2, metavar="SHARE", help="share of the images for validation")
    to.add_argument("--seed", type=int, default=0, help="of the choice of images")


def split(args: argparse.Namespace) -> None:
    """train.json and val.json, every category that has two images in both."""
    if not 0 < args.val < 1:
        raise UserError(f"--val {args.val:g}: give a share of the images above 0 and below 1")
    index = load(args)
    train, val = split_images(index, args.val, args.seed)
    if not len(train) or not len(val):
        raise UserError(
            f"{index.path}: {len(index)} images cannot be cut into {args.val:g} and the rest; take another --val"
        )
    folder = Path(args.out)
    folder.mkdir(parents=True, exist_ok=True)
    for name, positions in (("train", train), ("val", val)):
        write_coco(folder / f"{name}.json", index, positions)
        print(f"{folder / name}.json: {describe(index, positions)}")
    single = np.flatnonzero(index.image_counts == 1)
    lost = np.setdiff1d(lost_categories(index, val), single)
    say("have one image only and are in train alone", single, index)
    say("could not be kept in val without losing another one in train", lost, index)
    say("could not be kept in train without losing another one in val", lost_categories(index, train), index)


def load(args: argparse.Namespace) -> AnnotationIndex:
    """The annotations that the options of a sub-command name; nothing is written beside them."""
    return AnnotationIndex.load(common.source_of(args.annotations, args), cache=False)


def describe(index: AnnotationIndex, positions: np.ndarray) -> str:
    """Images, boxes and categories of a part, and where the paths of its images begin."""
    boxes = np.diff(index.box_offsets)[positions].sum()
    present = len(index.category_ids) - len(lost_categories(index, positions)) - int((index.image_counts == 0).sum())
    return (
        f"{len(positions):,} images, {boxes:,} boxes, {present:,} of {len(index.category_ids):,} categories; the first "
        f"image is {index.file_name(int(positions[0]))} below data_dir"
    )


def say(what: str, labels: np.ndarray, index: AnnotationIndex) -> None:
    """A line about some categories, nothing about none."""
    if len(labels):
        names = ", ".join(index.category_names[c] for c in labels[:NAMED].tolist())
        print(f"{len(labels)} categories {what}: {names}{', ...' if len(labels) > NAMED else ''}")


def _add_sources(to: argparse.ArgumentParser) -> None:
    to.add_argument(
        "annotations", nargs="+", help="json files, VOC folders or lists, YOLO data.yaml; several are joined"
    )
    common.add_source(to)
