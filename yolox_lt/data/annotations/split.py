"""Cut a data set into a training and a validation part so that rare categories are in both."""

from __future__ import annotations

import numpy as np

from yolox_lt.data.annotations.index import AnnotationIndex
from yolox_lt.data.columns import Ints
from yolox_lt.data.frequency import image_category_pairs

TRAIN, VAL, FREE = 0, 1, -1


ATTEMPTS = 20
"""Dealings of which the best is taken."""


def split_images(index: AnnotationIndex, share: float, seed: int = 0) -> tuple[Ints, Ints]:
    """Positions int64, ascending, of the training and of the validation images.

    From the rarest category to the most frequent one, its images that have no part yet are dealt at random: so many to
    validation that it has `share` of all images with the category, at least one and at most all but one. A category
    with a single image stays in training. Dealing rarer categories can leave another one in one part only; then an
    image is moved over, if every category of that image stays in both parts. Of several dealings the one is taken that
    lacks the fewest categories, in training first; with many single images some always are, see `lost_categories`.

    Args:
        share: of the images for validation, above 0 and below 1. seed: of the dealing.
    """
    image, category, num_images = image_category_pairs(index)
    counts = np.bincount(category, minlength=len(index.category_ids))
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
            _deal(part, rng.permutation(by_category[c]), share)
        empty = np.flatnonzero(part == FREE)
        part[rng.permutation(empty)[: round(share * len(empty))]] = VAL
        part[part == FREE] = TRAIN
        _mend(part, image, category, by_category)
        lost = _lost(part, by_category)
        if lost < best_lost:
            best, best_lost = part, lost
        if lost == (0, fewest):
            break
    return np.flatnonzero(best == TRAIN), np.flatnonzero(best == VAL)


def lost_categories(index: AnnotationIndex, part: Ints) -> Ints:
    """Labels of the categories that have images but none at the positions `part`."""
    _, category, _ = image_category_pairs(index, part)
    return np.setdiff1d(np.flatnonzero(index.image_counts), category)


def _lost(part: Ints, by_category: list[Ints]) -> tuple[int, int]:
    """Categories that training lacks, and that validation lacks."""
    present = [np.unique(part[images]).tolist() for images in by_category if len(images)]
    return present.count([VAL]), present.count([TRAIN])


def _deal(part: Ints, images: Ints, share: float) -> None:
    """Give the free ones among the images of a category, in random order, to the parts."""
    wanted = int(np.clip(round(share * len(images)), 1, len(images) - 1)) if len(images) > 1 else 0
    free = images[part[images] == FREE]
    missing = int(np.clip(wanted - (part[images] == VAL).sum(), 0, len(free)))
    part[free[:missing]] = VAL
    part[free[missing:]] = TRAIN


def _mend(part: Ints, image: Ints, category: Ints, by_category: list[Ints]) -> None:
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
