"""Which detections and boxes take part in an evaluation, and which detections may stay unmatched unpunished."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from yolox_lt.data.annotations.index import AnnotationIndex
from yolox_lt.data.columns import Bools, Floats, Ints, distinct, look_up, run_positions
from yolox_lt.evaluate.matching import Evaluated, Truth, outside_ranges

Cap = Literal["image", "category", "image and category"]


@dataclass(frozen=True)
class Protocol:
    """The rules of one evaluation.

    name: as tables print it.
    cap: of what the `max_dets` best detections are kept, before anything else: of every image (LVIS), of every
        category over the whole set (AP-fixed, AP-pool), of every category in every image (COCO).
    max_dets: how many.
    lvis: the rules of LVIS: boxes whose "area" and detections whose width * height is not positive do not exist, the
        "ignore" field counts, and federated lists are obeyed where the file has them. Else those of COCO.
    pooled: one precision-recall curve over the detections of all categories (AP-pool).
    recall_at: recall is also given at these limits of detections per image and category, as COCO does (AR1, AR10,
        AR100).
    """

    name: str
    cap: Cap
    max_dets: int
    lvis: bool = True
    pooled: bool = False
    recall_at: tuple[int, ...] = ()

    @property
    def description(self) -> str:
        """For people: "LVIS AP, 300 detections per image"."""
        return f"{self.name}, {self.max_dets} detections per {self.cap}"


def existing(index: AnnotationIndex, protocol: Protocol) -> tuple[Bools, Bools]:
    """bool [N] each: boxes that take part, those of them that are ignored: neither missed nor found.

    Boxes with NaN or infinite coordinates are left out under every protocol.
    """
    keep = np.logical_and.reduce(np.isfinite(index.boxes), axis=1)
    if protocol.lvis:
        keep &= index.areas > 0
    heeded = protocol.lvis or index.ignored_not_scored
    return keep, index.crowd | index.ignore if heeded else index.crowd


def to_find(index: AnnotationIndex, protocol: Protocol) -> Bools:
    """bool [N]: the boxes that a detector is asked for."""
    keep, ignored = existing(index, protocol)
    return keep & ~ignored


def truth_of(index: AnnotationIndex, protocol: Protocol) -> Truth:
    """The boxes that take part, with those to be ignored marked."""
    keep, ignored = existing(index, protocol)
    images = np.repeat(np.arange(len(index)), np.diff(index.box_offsets))
    codes = images * len(index.category_ids) + index.labels
    rows = np.flatnonzero(keep)
    rows = rows[np.argsort(codes[rows], kind="stable")]
    return Truth(
        codes=codes[rows],
        boxes=index.boxes[rows],
        ignored=ignored[rows, None] | outside_ranges(index.areas[rows]),
        crowd=index.crowd[rows],
    )


def select(
    labels: Ints, images: Ints, boxes: Floats, scores: Floats, index: AnnotationIndex, truth: Truth, protocol: Protocol
) -> Evaluated:
    """Cap, drop and sort the D detections (label, image position, box, score) as the protocol says."""
    num_categories = len(index.category_ids)
    codes = images * num_categories + labels
    group = {"image": images, "category": labels, "image and category": codes}[protocol.cap]
    keep = best_of_group(group, scores, protocol.max_dets)
    # Everything known about a pair (image, category) is tabled at its place among the verified pairs, with a last place
    # for all others: the search for the place is the dearest step and runs once, on detections in order of images.
    negative = listed_codes(index.negative_offsets, index.negative_labels, num_categories)
    partial = listed_codes(index.not_exhaustive_offsets, index.not_exhaustive_labels, num_categories)
    verified = distinct(np.concatenate([truth.codes, negative]))
    place, is_verified = look_up(codes, verified)
    place = np.where(is_verified, place, len(verified))
    areas = boxes[:, 2] * boxes[:, 3]
    if protocol.lvis:
        keep &= areas > 0
        if index.federated:
            keep &= is_verified
    kept = np.flatnonzero(keep)
    # Equal scores in ascending order of image ids: it must not matter how processes split the images between them.
    # Labels as narrow as they go: numpy sorts 16-bit integers several times faster.
    narrow = labels[kept].astype(np.min_scalar_type(num_categories))
    kept = kept[np.lexsort((images[kept], -scores[kept], narrow))]
    place = place[kept]
    ignore_if_unmatched = outside_ranges(areas[kept])
    if protocol.lvis:
        ignore_if_unmatched |= np.append(look_up(verified, distinct(partial))[1], False)[place, None]
    first = np.searchsorted(truth.codes, verified, side="left")
    count = np.searchsorted(truth.codes, verified, side="right") - first
    return Evaluated(
        source=kept,
        labels=labels[kept],
        scores=scores[kept],
        codes=codes[kept],
        boxes=boxes[kept],
        ignore_if_unmatched=ignore_if_unmatched,
        first_box=np.append(first, 0)[place],
        num_boxes=np.append(count, 0)[place],
    )


def best_of_group(group: Ints, scores: Floats, limit: int) -> Bools:
    """bool [D]: among the `limit` best of its group; the earlier in the input wins a tie for the last place."""
    keep = np.ones(len(group), bool)
    values, counts = _count(group)
    full, is_full = look_up(group, values[counts > limit])
    rows = np.flatnonzero(is_full)
    order = rows[np.lexsort((-scores[rows], full[rows]))]
    rank = run_positions(counts[counts > limit])
    keep[order[rank >= limit]] = False
    return keep


def _count(values: Ints) -> tuple[Ints, Ints]:
    """Distinct values and how often each occurs."""
    values = np.sort(values)
    starts = np.flatnonzero(np.append(True, values[1:] != values[:-1])[: len(values)])
    return values[starts], np.diff(np.append(starts, len(values)))


def listed_codes(offsets: Ints, labels: Ints, num_categories: int) -> Ints:
    """Codes image * C + label of a federated list."""
    images = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    return images * num_categories + labels
