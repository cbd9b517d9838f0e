"""How often each glyph occurs: the long tail, who sits in it, and which image holds what.

Pure functions of arrays and a generator. A pair is a category in an image, however many copies of it the image holds.
"""

from __future__ import annotations

import math

import numpy as np

from yolox_lt.errors import UserError

RARE_MAX, COMMON_MAX = 10, 100  # LVIS: r up to 10 training images, c up to 100, f beyond
RARE_MIN = 3  # smallest count of the Zipf profile
GROUP_SHARE = 0.3  # of the categories are rare, as many are frequent
PAIRS_PER_OBJECT = 0.5  # a category of an image is drawn twice on average; in LVIS 3.5 times
MAX_IMAGE_SHARE = 0.7  # the most frequent category is still absent from three images in ten
MAX_PAIRS_PER_OBJECT = 0.7  # beyond, a count table is scaled down


def frequency_group(image_count: int) -> str:
    """ "r", "c" or "f" by the number of training images, the rule of LVIS v1."""
    return "r" if image_count <= RARE_MAX else "c" if image_count <= COMMON_MAX else "f"


def zipf_counts(num_categories: int, num_images: int, mean_objects: float) -> np.ndarray:
    """Training images of each category, int64 [num_categories], descending.

    30 % rare with 10 down to 3 images, 40 % common with 100 down to 11, 30 % frequent that share the remaining pairs as
    1 / rank and keep more than 100 each. Raises UserError when the images cannot hold that many.
    """
    rare = round(GROUP_SHARE * num_categories)
    tail = np.concatenate(
        [
            np.rint(np.geomspace(COMMON_MAX, RARE_MAX + 1, num_categories - 2 * rare)),
            np.rint(np.geomspace(RARE_MAX, RARE_MIN, rare)),
        ]
    ).astype(np.int64)
    pairs_per_image = PAIRS_PER_OBJECT * mean_objects
    needed = max((tail.sum() + (COMMON_MAX + 1) * rare) / pairs_per_image, (COMMON_MAX + 1) / MAX_IMAGE_SHARE)
    if num_images < needed:
        raise UserError(
            f"glyphs: train_images is {num_images}, too few for {num_categories} categories of which {rare} are in "
            f"more than {COMMON_MAX} images; ask for at least {math.ceil(needed)}."
        )
    budget = pairs_per_image * num_images - tail.sum()
    limits = COMMON_MAX + 1, int(MAX_IMAGE_SHARE * num_images)
    low, high = 1.0, float(limits[1] * rare)
    for _ in range(60):  # bisection for the count of rank 1 that spends the budget
        middle = (low + high) / 2
        low, high = (low, middle) if zipf_head(middle, rare, limits).sum() > budget else (middle, high)
    return np.concatenate([zipf_head(low, rare, limits), tail])


def zipf_head(first: float, number: int, limits: tuple[int, int]) -> np.ndarray:
    """first / rank for the ranks 1..number, cut to `limits`: int64 [number]."""
    return np.clip(first / np.arange(1, number + 1), *limits).astype(np.int64)


def scaled_counts(
    table: np.ndarray, num_categories: int, num_images: int, mean_objects: float
) -> tuple[np.ndarray, np.ndarray]:
    """The profile of a count table: (image counts int64 [num_categories], index into the table of each), descending.

    All categories of the table, or evenly spaced ones of its ranking. The counts are the table's own when the images
    can hold them, else all are scaled down by one factor, to one image at least.
    """
    if num_categories > len(table):
        raise UserError(
            f"glyphs: num_categories is {num_categories}, but categories_json has {len(table)} categories; "
            f"ask for at most {len(table)}."
        )
    ranking = np.argsort(-table, kind="stable")
    chosen = ranking[np.rint(np.linspace(0, len(table) - 1, num_categories)).astype(np.int64)]
    counts = table[chosen].astype(np.float64)
    room = MAX_PAIRS_PER_OBJECT * mean_objects * num_images
    scale = min(1.0, room / counts.sum(), MAX_IMAGE_SHARE * num_images / counts.max())
    return np.maximum(np.rint(counts * scale), 1).astype(np.int64), chosen


def split_look_alikes(rng: np.random.Generator, similarity: np.ndarray, groups: list[str]) -> np.ndarray:
    """Gives each glyph a slot of the count profile such that the head can suppress the tail: int64 [C], slot of glyph.

    similarity: float [C, C]. groups: "r", "c" or "f" of each slot. The most similar pairs of glyphs, taken greedily and
    without sharing a glyph, get one frequent and one rare slot each, as many as there are of both; the remaining
    glyphs, which have no such close double left, share the other slots.
    """
    frequent = rng.permutation([slot for slot, group in enumerate(groups) if group == "f"])
    rare = rng.permutation([slot for slot, group in enumerate(groups) if group == "r"])
    slots = np.full(len(groups), -1, np.int64)
    used = 0
    first, second = np.triu_indices(len(groups), 1)
    for pair in np.argsort(-similarity[first, second], kind="stable"):
        if used == min(len(frequent), len(rare)):
            break
        glyphs = rng.permutation([first[pair], second[pair]])
        if (slots[glyphs] == -1).all():
            slots[glyphs] = frequent[used], rare[used]
            used += 1
    free_slots = np.setdiff1d(np.arange(len(groups)), slots)
    slots[slots == -1] = rng.permutation(free_slots)
    return slots


def deal_categories(
    rng: np.random.Generator, image_counts: np.ndarray, num_images: int, objects_per_image: tuple[int, int]
) -> list[list[int]]:
    """What each image shows: per image the categories of its objects, repeated for further copies, in random order.

    image_counts: int [C], in how many images each category is; held exactly. Images get a random number of objects
    within `objects_per_image`; one that got no category stays empty. Raises UserError when the images are too few.
    """
    fewest, most = objects_per_image
    wanted = rng.integers(fewest, most, num_images, endpoint=True)
    present: list[list[int]] = [[] for _ in range(num_images)]
    filled = np.zeros(num_images, np.int64)
    for category in np.argsort(-image_counts, kind="stable").tolist():
        count = int(image_counts[category])
        # Emptier images first, blurred so that frequent categories also meet; a full one never.
        order = (filled + rng.uniform(0, 4, num_images)) / wanted + np.where(filled < most, 0.0, np.inf)
        if np.isfinite(order).sum() < count:
            raise UserError(
                f"glyphs: {num_images} images of at most {most} objects cannot hold the {int(image_counts.sum())} "
                f"categories that are to be in them; ask for more images or for fewer categories."
            )
        chosen = np.argpartition(order, count - 1)[:count]
        filled[chosen] += 1
        for image in chosen.tolist():
            present[image].append(category)
    copies = [
        rng.choice(own, max(0, number - len(own))) if own else [] for own, number in zip(present, wanted.tolist())
    ]
    return [rng.permutation([*own, *more]).astype(np.int64).tolist() for own, more in zip(present, copies)]
