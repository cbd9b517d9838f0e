"""A training and a validation part of one set of images, so that rare categories are in both."""

from __future__ import annotations

import numpy as np

from yolox_lt.data.columns import Columns, Ints, distinct

TRAIN, VAL, FREE = 0, 1, -1

ATTEMPTS = 20
"""Random splits of which the best is taken."""


def held_out_parts(columns: Columns, names: list[str], categories: list[str], share: float) -> tuple[Ints, Ints]:
    """`two_parts` of an index's columns, the same whatever the format: in the order of names, not of ids.

    Args:
        columns: with "usable". names: of the image files [I]. categories: names [C]. share: for validation.
    """
    by_name = np.array(sorted(range(len(names)), key=lambda i: (names[i].rpartition("/")[2].rpartition(".")[0], i)))
    place = np.empty(len(names), np.int64)
    place[by_name] = np.arange(len(names))
    rank = np.empty(len(categories), np.int64)
    rank[np.array(sorted(range(len(categories)), key=lambda c: (categories[c], c)), np.int64)] = np.arange(len(rank))
    usable = columns["usable"]
    image = place[np.repeat(np.arange(len(names)), np.diff(columns["box_offsets"]))[usable]]
    base = max(len(categories), 1)
    code = distinct(image * base + rank[columns["labels"][usable]])
    train, val = two_parts(code // base, code % base, len(names), len(categories), share)
    return np.sort(by_name[train]), np.sort(by_name[val])


def two_parts(
    image: Ints, category: Ints, num_images: int, num_categories: int, share: float, seed: int = 0
) -> tuple[Ints, Ints]:
    """Positions int64, ascending, of the training and of the validation images; see `split.split_images`.

    Args:
        image, category: distinct pairs [M], ascending by image. share: above 0 and below 1.
    """
    counts = np.bincount(category, minlength=num_categories)
    by_category = np.split(image[np.argsort(category, kind="stable")], np.cumsum(counts)[:-1])
    # An image that is the only one of some category has to be in training; who has no other image cannot be in both.
    pinned = np.zeros(num_images, bool)
    pinned[image[counts[category] == 1]] = True
    fewest = sum(bool(pinned[images].all()) for images in by_category if len(images))
    rng = np.random.default_rng(seed)
    best, best_lost = np.zeros(num_images, np.int64), (len(counts) + 1, 0)
    for _ in range(ATTEMPTS):
        part = np.full(num_images, FREE)
        for c in np.lexsort((rng.random(len(counts)), counts)).tolist():
            _assign(part, rng.permutation(by_category[c]), share)
        empty = np.flatnonzero(part == FREE)
        part[rng.permutation(empty)[: round(share * len(empty))]] = VAL
        part[part == FREE] = TRAIN
        _restore_lost(part, image, category, by_category)
        lost = _lost(part, by_category)
        if lost < best_lost:
            best, best_lost = part, lost
        if lost == (0, fewest):
            break
    return np.flatnonzero(best == TRAIN), np.flatnonzero(best == VAL)


def _lost(part: Ints, by_category: list[Ints]) -> tuple[int, int]:
    """Categories that training lacks, and that validation lacks."""
    present = [np.unique(part[images]).tolist() for images in by_category if len(images)]
    return present.count([VAL]), present.count([TRAIN])


def _assign(part: Ints, images: Ints, share: float) -> None:
    """Give the free ones among the images of a category, in random order, to the parts."""
    wanted = int(np.clip(round(share * len(images)), 1, len(images) - 1)) if len(images) > 1 else 0
    free = images[part[images] == FREE]
    missing = int(np.clip(wanted - (part[images] == VAL).sum(), 0, len(free)))
    part[free[:missing]] = VAL
    part[free[missing:]] = TRAIN


def _restore_lost(part: Ints, image: Ints, category: Ints, by_category: list[Ints]) -> None:
    """Move images to the part that lacks a category, as long as no other category is lost by it."""
    bounds = np.searchsorted(image, np.arange(len(part) + 1))  # pairs are sorted by image
    counts = np.zeros((len(by_category), 2), np.int64)  # [C, part]
    np.add.at(counts, (category, part[image]), 1)
    for c, images in enumerate(by_category):
        if len(images) < 2 or counts[c].all():
            continue
        lacking = int(counts[c, VAL] == 0)  # VAL or TRAIN
        for moved in images.tolist():
            held = category[bounds[moved] : bounds[moved + 1]]
            if (counts[held, 1 - lacking] >= 2).all():
                counts[held, 1 - lacking] -= 1
                counts[held, lacking] += 1
                part[moved] = lacking
                break
