"""The glyph data set: small images of characters with a long tail, written on first use.

What a folder holds:
    train2017/000000000001.jpg ...      val2017/...
    annotations/glyphs_train.json       annotations/glyphs_val.json      (LVIS v1 format)
    glyphs.json                         the specification it was written from

Characters that look alike (O and D, B and 8, S and 5) sit in different frequency groups, so that a detector which lets
the head suppress the tail is seen to do so. The same specification gives the same bytes, whoever writes them (with the
same versions of the libraries that draw, OpenCV and matplotlib).
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from loguru import logger

from yolox_lt.data.glyphs.alphabet import FACES, Glyph, choose_glyphs, glyph_bitmap, open_face
from yolox_lt.data.glyphs.counts import (
    MAX_IMAGE_SHARE,
    PAIRS_PER_OBJECT,
    deal_categories,
    split_look_alikes,
)
from yolox_lt.data.glyphs.drawing import render_image
from yolox_lt.data.glyphs.spec import VERSION, GlyphSpec, Tail, fingerprint, glyph_spec, glyph_tail
from yolox_lt.errors import UserError

SPEC_FILE = "glyphs.json"
TRAIN, VAL, CATEGORIES = 1, 2, 3  # streams of random numbers
SPLIT_NAMES = {TRAIN: "train", VAL: "val"}
JPEG_QUALITY = 92
NOT_EXHAUSTIVE_SHARE = 0.05  # of the images have one category of which a copy is not annotated
NEGATIVE_SHARE, MAX_NEGATIVES = 0.3, 12  # of the categories, per image: verified absent


@dataclass(frozen=True)
class GlyphPaths:
    """Where a glyph data set lies: its folder, the two annotation files, the two image folders."""

    folder: Path
    train_json: Path
    val_json: Path
    train_images: Path
    val_images: Path


def write_glyphs(folder: str | Path, **options: Any) -> GlyphPaths:
    """Writes a glyph data set into a new folder. Options: the fields of GlyphSpec.

    The folder appears at once and complete, by renaming. Raises UserError for an option that is unknown or out of range
    and for a folder that is not empty.
    """
    spec = glyph_spec(options)
    folder = Path(folder)
    try:
        write_folder(folder, spec, glyph_tail(spec))
    except FileExistsError as error:
        raise UserError(f"{folder}: is not empty; give a new folder for the glyph data set or remove it.") from error
    return glyph_paths(folder)


def ensure_glyphs(folder: str | Path, **options: Any) -> GlyphPaths:
    """The glyph data set in `folder`, written when the folder is missing or empty. Options: the fields of GlyphSpec.

    May be called by several processes at a time: each that finds nothing writes beside the folder, the first to finish
    gives it its name, the others drop theirs. Raises UserError as `write_glyphs`, and for a folder that was
    written from another specification, which is never overwritten.
    """
    spec = glyph_spec(options)
    tail = glyph_tail(spec)
    folder = Path(folder)
    if not (folder / SPEC_FILE).exists():
        # Another process may be faster, or something else may lie there: told apart below.
        with contextlib.suppress(FileExistsError):
            write_folder(folder, spec, tail)
    check_folder(folder, spec, tail)
    return glyph_paths(folder)


def glyph_paths(folder: Path) -> GlyphPaths:
    """The paths of a data set in `folder`, there or not."""
    annotations = folder / "annotations"
    return GlyphPaths(
        folder,
        annotations / "glyphs_train.json",
        annotations / "glyphs_val.json",
        folder / "train2017",
        folder / "val2017",
    )


def check_folder(folder: Path, spec: GlyphSpec, tail: Tail) -> None:
    """Raises UserError unless `folder` holds the data set of this specification."""
    path = folder / SPEC_FILE
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{folder}: is no glyph data set ({SPEC_FILE} cannot be read); give a new folder.") from error
    wanted = fingerprint(spec, tail)
    different = [
        f"{key} is {found.get(key)!r} instead of {value!r}" for key, value in wanted.items() if found.get(key) != value
    ]
    if different:
        raise UserError(
            f"{folder}: holds another glyph data set ({'; '.join(different)}); give another folder or remove this one."
        )


def write_folder(folder: Path, spec: GlyphSpec, tail: Tail) -> None:
    """Writes the data set under a temporary name and renames it; FileExistsError when `folder` has content by then."""
    glyphs, similarity = choose_glyphs(spec.num_categories)
    slots = split_look_alikes(np.random.default_rng([spec.seed, CATEGORIES]), similarity, tail.groups)
    plans = {TRAIN: train_plan(spec, tail.image_counts[slots]), VAL: val_plan(spec)}
    categories = category_records(glyphs, [tail.groups[slot] for slot in slots], plans[TRAIN])
    temporary = folder.absolute().with_name(f".{folder.absolute().name}.{uuid.uuid4().hex}")
    try:
        if folder.exists() and any(folder.iterdir()):
            raise FileExistsError(errno.ENOTEMPTY, "not empty", str(folder))
        (temporary / "annotations").mkdir(parents=True)
        logger.info(f"Writing the glyph data set, {spec.train_images} + {spec.val_images} images, to {folder}")
        for split, plan in plans.items():
            write_split(temporary, spec, split, plan, glyphs, categories)
        text = json.dumps(fingerprint(spec, tail), indent=1)
        (temporary / SPEC_FILE).write_text(text + "\n", encoding="utf-8")
        os.rename(temporary, folder)
    except OSError as error:
        if error.errno in (errno.EEXIST, errno.ENOTEMPTY):
            raise FileExistsError(*error.args) from error
        raise UserError(f"{folder}: cannot be written ({error}); give another folder.") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)  # gone already when the renaming succeeded


def train_plan(spec: GlyphSpec, image_counts: np.ndarray) -> list[list[int]]:
    """Categories of the objects of each training image."""
    rng = np.random.default_rng([spec.seed, TRAIN])
    return deal_categories(rng, image_counts, spec.train_images, spec.objects_per_image)


def val_plan(spec: GlyphSpec) -> list[list[int]]:
    """Categories of the objects of each val image: all equally often, so that every AP rests on as much."""
    pairs_per_image = PAIRS_PER_OBJECT * spec.mean_objects
    count = int(min(pairs_per_image * spec.val_images / spec.num_categories, MAX_IMAGE_SHARE * spec.val_images))
    if count < spec.min_val_images:
        needed = max(spec.min_val_images * spec.num_categories / pairs_per_image, spec.min_val_images / MAX_IMAGE_SHARE)
        raise UserError(
            f"glyphs: val_images is {spec.val_images}, too few for {spec.num_categories} categories in "
            f"{spec.min_val_images} images each; ask for at least {int(needed) + 1}."
        )
    rng = np.random.default_rng([spec.seed, VAL])
    return deal_categories(rng, np.full(spec.num_categories, count), spec.val_images, spec.objects_per_image)


def category_records(
    glyphs: Sequence[Glyph], groups: Sequence[str], plan: Sequence[Sequence[int]]
) -> list[dict[str, Any]]:
    """The "categories" of both files, ids from 1 in the order of the alphabet, with the counts of the training set."""
    instances = np.bincount([category for shown in plan for category in shown], minlength=len(glyphs)).tolist()
    images = np.bincount([category for shown in plan for category in set(shown)], minlength=len(glyphs)).tolist()
    return [
        {
            "id": index + 1,
            "name": glyph.name,
            "synset": f"{glyph.name}.n.01",
            "synonyms": [glyph.name],
            "def": f"the character {glyph.character} in the face {FACES[glyph.face]}",
            "frequency": groups[index],
            "image_count": images[index],
            "instance_count": instances[index],
        }
        for index, glyph in enumerate(glyphs)
    ]


def write_split(
    folder: Path,
    spec: GlyphSpec,
    split: int,
    plan: Sequence[Sequence[int]],
    glyphs: Sequence[Glyph],
    categories: list[dict[str, Any]],
) -> None:
    """Draws and writes the images of a split (TRAIN or VAL) and its annotation file."""
    name = SPLIT_NAMES[split]
    (folder / f"{name}2017").mkdir()
    bitmaps = large_bitmaps(glyphs, spec)
    weights = np.sqrt([category["image_count"] for category in categories])
    first_id = 1 if split == TRAIN else spec.train_images + 1  # ids and names are unique over both splits
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for index, shown in enumerate(plan):
        rng = np.random.default_rng([spec.seed, split, index + 1])
        negatives = sample_negatives(rng, shown, weights)
        hidden = [int(rng.choice(shown))] if shown and rng.random() < NOT_EXHAUSTIVE_SHARE else []
        pixels, drawn = render_image(rng, bitmaps, [*shown, *hidden], spec.image_size, spec.object_range)
        image_id = first_id + index
        file = f"{name}2017/{image_id:012d}.jpg"
        encoded = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1]
        (folder / file).write_bytes(encoded.tobytes())
        images.append(
            {
                "id": image_id,
                "width": spec.image_size[1],
                "height": spec.image_size[0],
                "coco_url": f"http://images.cocodataset.org/{file}",
                "neg_category_ids": [category + 1 for category in negatives],
                "not_exhaustive_category_ids": [category + 1 for category in hidden],
            }
        )
        for glyph in drawn[: len(shown)]:  # the copies behind are those left out on purpose
            annotations.append(
                annotation_record(len(annotations) + 1, image_id, glyph.category + 1, glyph.box, glyph.area)
            )
    info = {"description": "Glyphs: characters with a long tail, in the format of LVIS v1", "version": str(VERSION)}
    content = {"info": info, "licenses": [], "images": images, "annotations": annotations, "categories": categories}
    path = folder / "annotations" / f"glyphs_{name}.json"
    path.write_text(json.dumps(content, separators=(",", ":")), encoding="utf-8")


def large_bitmaps(glyphs: Sequence[Glyph], spec: GlyphSpec) -> list[np.ndarray]:
    """Coverage of each glyph, uint8 [h, w], at about twice the size of the largest object."""
    fonts = {face: open_face(face, max(64, round(2 * spec.object_range[1]))) for face in FACES}
    return [glyph_bitmap(fonts[glyph.face], glyph.character) for glyph in glyphs]


def sample_negatives(rng: np.random.Generator, shown: Sequence[int], weights: np.ndarray) -> list[int]:
    """Some categories that are not shown, ascending; drawn in proportion to `weights` [C], without repetition."""
    number = min(MAX_NEGATIVES, max(1, round(NEGATIVE_SHARE * len(weights))))
    absent = np.setdiff1d(np.arange(len(weights)), shown)
    # The largest of log-weights plus Gumbel noise are a weighted sample without replacement.
    keys = np.log(weights[absent]) + rng.gumbel(size=len(absent))
    return sorted(absent[np.argsort(-keys)[:number]].tolist())


def annotation_record(
    number: int, image_id: int, category_id: int, box: tuple[float, float, float, float], area: int
) -> dict[str, Any]:
    """One entry of "annotations"; its polygon is the box, drawn clockwise from the top left."""
    x, y, width, height = box
    return {
        "id": number,
        "image_id": image_id,
        "category_id": category_id,
        "bbox": list(box),
        "area": float(area),
        "segmentation": [[x, y, x + width, y, x + width, y + height, x, y + height]],
    }
