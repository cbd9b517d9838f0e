"""Made-up annotations and detections of LVIS's size and shape, for the benchmarks of the data side.

Every category has as many images and boxes as in LVIS v1 train (tests/golden/lvis_v1_categories.json), scaled to the
number of images asked for. Which images these are, and all boxes, are random.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from yolox_lt.data.columns import Bools, Floats, Ints, distinct, look_up, offsets_of
from yolox_lt.evaluate import DetectionArrays

TRAIN_IMAGES, VAL_IMAGES, CATEGORIES = 100_170, 19_809, 1203
TABLE = Path(__file__).parents[1] / "tests/golden/lvis_v1_categories.json"
IMAGE_SIZES = np.array([[480, 640], [640, 480], [427, 640], [375, 500]])  # (height, width), COCO's most frequent
LARGEST_IMAGE_ID = 581_929  # of COCO
NEGATIVES = 9  # categories verified absent, per image
NOT_EXHAUSTIVE_SHARE = 0.055  # of the pairs (image, category)
POLYGONS = 5000
POLYGON_POINTS = (8, 72)  # makes a file of about 0.9 GB for the training set
IMAGES_AT_ONCE = 2000


@dataclass
class Made:
    """Annotations of I images and N boxes, boxes grouped by image.

    image_ids: int64 [I], ascending. sizes: int64 [I, 2], (height, width).
    frequencies: "r", "c" or "f" [C]; the category ids are 1..C.
    box_offsets: int64 [I + 1]; the boxes of image i are rows box_offsets[i] to box_offsets[i + 1].
    labels: int64 [N], 0..C-1. boxes: float64 [N, 4], x y width height. areas: float64 [N], of the mask.
    negatives, not_exhaustive: int64, distinct and ascending: image position * C + label.
    """

    image_ids: Ints
    sizes: Ints
    frequencies: list[str]
    box_offsets: Ints
    labels: Ints
    boxes: Floats
    areas: Floats
    negatives: Ints
    not_exhaustive: Ints

    @property
    def images(self) -> Ints:
        """Image position of every box, int64 [N]."""
        return np.repeat(np.arange(len(self.image_ids)), np.diff(self.box_offsets))


def make(num_images: int, num_categories: int = CATEGORIES, same_size: bool = False, seed: int = 0) -> Made:
    """Annotations of `num_images` images; with `same_size` all images are 480 x 640."""
    rng = np.random.default_rng(seed)
    image_counts, instance_counts, frequencies = _profile(rng, num_images, num_categories)
    image, label = _pairs(rng, image_counts, instance_counts, num_images)
    order = np.argsort(image, kind="stable")
    image, label = image[order], label[order]
    sizes = IMAGE_SIZES[np.zeros(num_images, int) if same_size else rng.integers(len(IMAGE_SIZES), size=num_images)]
    boxes = _boxes(rng, sizes[image])
    present = distinct(image * num_categories + label)
    return Made(
        image_ids=np.sort(rng.choice(LARGEST_IMAGE_ID, num_images, replace=False)) + 1,
        sizes=sizes,
        frequencies=frequencies,
        box_offsets=offsets_of(np.bincount(image, minlength=num_images)),
        labels=label,
        boxes=boxes,
        areas=np.maximum(boxes[:, 2] * boxes[:, 3] * rng.uniform(0.4, 0.75, len(boxes)), 0.01).round(2),
        negatives=_negatives(rng, present, image_counts, num_images),
        not_exhaustive=present[rng.random(len(present)) < NOT_EXHAUSTIVE_SHARE],
    )


def write(path: Path, made: Made, polygons: bool = True, pictures: int | None = None, seed: int = 1) -> None:
    """Write the annotations in the format of LVIS v1.

    Args:
        images: the images refer to so many files in turn, train2017/000000000000.jpg and so on; None: each to its
            own.
    """
    rng = np.random.default_rng(seed)
    categories = [
        {"id": c + 1, "name": f"category_{c + 1}", "synset": f"category_{c + 1}.n.01", "frequency": frequency}
        for c, frequency in enumerate(made.frequencies)
    ]
    with path.open("wb") as file:
        file.write(b'{"info": {"version": "made up"}, "images": [')
        file.write(b", ".join(_image_chunks(made, pictures)))
        file.write(b'], "categories": ' + msgspec.json.encode(categories) + b', "annotations": [')
        for number, chunk in enumerate(_box_chunks(made, rng, polygons)):
            file.write((b", " if number else b"") + chunk)
        file.write(b"]}")


def detections(made: Made, per_image: int = 300, seed: int = 2) -> DetectionArrays:
    """`per_image` detections of every image, in order of the images and of falling scores inside each.

    A quarter lies near a box and mostly has its category, a quarter has a category that is verified in the image, the
    rest any. Values are those of float32, as from a network.
    """
    rng = np.random.default_rng(seed)
    num_images, num_categories = len(made.image_ids), len(made.frequencies)
    image = np.repeat(np.arange(num_images), per_image)
    count = len(image)
    boxes = _boxes(rng, made.sizes[image])
    labels = made.labels[rng.integers(len(made.labels), size=count)]  # as frequent as their boxes
    scores = rng.random(count) ** 4
    kind = rng.random(count)

    verified = distinct(np.concatenate([made.images * num_categories + made.labels, made.negatives]))
    chosen, found = _any_of_image(rng, image, offsets_of(np.bincount(verified // num_categories, minlength=num_images)))
    use = (kind < 0.5) & found
    labels[use] = verified[chosen[use]] % num_categories

    box, found = _any_of_image(rng, image, made.box_offsets)
    near = np.flatnonzero((kind < 0.25) & found)
    box = box[near]
    noise = rng.choice([0.02, 0.05, 0.1, 0.2], len(near))
    width_height = np.tile(made.boxes[box, 2:], 2)
    boxes[near] = made.boxes[box] + rng.normal(size=(len(near), 4)) * noise[:, None] * width_height
    boxes[near, 2:] = np.maximum(boxes[near, 2:], 0.5)
    labels[near] = np.where(rng.random(len(near)) < 0.8, made.labels[box], labels[near])
    scores[near] = (1 - 3 * noise) * rng.random(len(near)) ** 0.5

    order = np.lexsort((-scores, image))
    return DetectionArrays(
        made.image_ids[image],
        labels[order] + 1,
        boxes[order].astype(np.float32).astype(np.float64),
        scores[order].astype(np.float32).astype(np.float64),
    )


def _profile(rng: np.random.Generator, num_images: int, num_categories: int) -> tuple[Ints, Ints, list[str]]:
    """Images and boxes of every category [C] and its group; other numbers of categories sample LVIS's curve."""
    table = sorted(json.loads(TABLE.read_text())["categories"], key=lambda entry: entry["image_count"])
    counts = np.array([[entry["image_count"], entry["instance_count"]] for entry in table])
    rank = np.linspace(0, len(table) - 1, num_categories)
    columns = [np.interp(rank, np.arange(len(table)), column) for column in counts.T]
    scale = num_images / TRAIN_IMAGES * counts.sum(axis=0) / [column.sum() for column in columns]
    image_counts, instance_counts = (
        np.floor(column * s + rng.random(num_categories)).astype(np.int64) for column, s in zip(columns, scale)
    )
    image_counts = np.minimum(image_counts, num_images)
    order = rng.permutation(num_categories)
    groups = [table[round(r)]["frequency"] for r in rank[order]]
    return image_counts[order], np.maximum(image_counts, instance_counts)[order], groups


def _pairs(rng: np.random.Generator, image_counts: Ints, instance_counts: Ints, num_images: int) -> tuple[Ints, Ints]:
    """Image position and label of every box: every pair (image, category) once, the rest by chance."""
    images = []
    for pairs, boxes in zip(image_counts.tolist(), instance_counts.tolist()):
        chosen = rng.choice(num_images, pairs, replace=False, shuffle=False)
        again = rng.integers(pairs, size=boxes - pairs) if pairs else np.zeros(0, int)
        images.append(np.concatenate([chosen, chosen[again]]))
    return np.concatenate(images), np.repeat(np.arange(len(images)), [len(i) for i in images])


def _boxes(rng: np.random.Generator, sizes: Ints) -> Floats:
    """float64 [N, 4] x y width height inside images of the sizes [N, 2], sides log-uniform from 2 % to 70 %."""
    width_height = sizes[:, ::-1] * np.exp(rng.uniform(np.log(0.02), np.log(0.7), (len(sizes), 2)))
    corner = rng.random((len(sizes), 2)) * (sizes[:, ::-1] - width_height)
    return np.concatenate([corner, width_height], axis=1).round(2)


def _negatives(rng: np.random.Generator, present: Ints, image_counts: Ints, num_images: int) -> Ints:
    """Codes of categories verified absent, more often those that are frequent."""
    num_categories = len(image_counts)
    weights = np.sqrt(np.maximum(image_counts, 1))
    label = rng.choice(num_categories, (num_images, NEGATIVES), p=weights / weights.sum())
    codes = distinct((np.arange(num_images)[:, None] * num_categories + label).reshape(-1))  # [I, 9] -> [I * 9]
    return codes[~look_up(codes, present)[1]]


def _any_of_image(rng: np.random.Generator, image: Ints, offsets: Ints) -> tuple[Ints, Bools]:
    """A random row of each image [M] given where the rows of an image begin, and whether it has any (0 if not)."""
    counts = np.diff(offsets)[image]
    row = offsets[image] + np.floor(rng.random(len(image)) * counts).astype(np.int64)
    return np.where(counts > 0, row, 0), counts > 0


def _image_chunks(made: Made, pictures: int | None) -> Iterator[bytes]:
    num_categories = len(made.frequencies)
    lists = []
    for codes in (made.negatives, made.not_exhaustive):
        bounds = np.searchsorted(codes, np.arange(len(made.image_ids) + 1) * num_categories)
        ids = (codes % num_categories + 1).tolist()
        lists.append([ids[start:end] for start, end in zip(bounds[:-1].tolist(), bounds[1:].tolist())])
    for i, (image_id, (height, width)) in enumerate(zip(made.image_ids.tolist(), made.sizes.tolist())):
        number = image_id if pictures is None else i % pictures
        entry: dict[str, Any] = {
            "id": image_id,
            "width": width,
            "height": height,
            "date_captured": "2013-11-18 09:20:29",
            "license": 4,
            "coco_url": f"http://images.cocodataset.org/train2017/{number:012d}.jpg",
            "flickr_url": f"http://farm1.staticflickr.com/27/{image_id}_a1fe6af9ce_z.jpg",
            "neg_category_ids": lists[0][i],
            "not_exhaustive_category_ids": lists[1][i],
        }
        yield msgspec.json.encode(entry)


def _box_chunks(made: Made, rng: np.random.Generator, polygons: bool) -> Iterator[bytes]:
    """Entries of "annotations" without the brackets around them."""
    images = made.images
    # A pool of polygons, not one for each box: nobody draws them, and writing takes seconds instead of a minute.
    drawn = _polygons(rng) if polygons else [msgspec.Raw(b"[]")]
    polygon = rng.integers(len(drawn), size=len(images))
    for first in range(0, len(made.image_ids), IMAGES_AT_ONCE):
        rows = slice(*made.box_offsets[[first, min(first + IMAGES_AT_ONCE, len(made.image_ids))]].tolist())
        if rows.start == rows.stop:
            continue
        columns = (
            made.boxes[rows],
            made.labels[rows] + 1,
            made.image_ids[images[rows]],
            made.areas[rows],
            polygon[rows],
        )
        entries = [
            {"bbox": b, "category_id": c, "image_id": i, "id": k, "segmentation": [drawn[p]], "area": a}
            for k, (b, c, i, a, p) in enumerate(zip(*(column.tolist() for column in columns)), rows.start + 1)
        ]
        yield msgspec.json.encode(entries)[1:-1]


def _polygons(rng: np.random.Generator) -> list[msgspec.Raw]:
    """Encoded polygons, x y x y ... around an ellipse somewhere in an image."""
    drawn = []
    for points in rng.integers(*POLYGON_POINTS, size=POLYGONS).tolist():
        angle = np.linspace(0, 2 * np.pi, points, endpoint=False)
        radius, centre = rng.uniform(5, 150, 2), rng.uniform(150, 330, 2)
        xy = centre + radius * np.stack([np.cos(angle), np.sin(angle)], axis=1)  # [points, 2]
        drawn.append(msgspec.Raw(msgspec.json.encode(xy.round(2).reshape(-1).tolist())))
    return drawn
