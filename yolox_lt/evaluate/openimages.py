"""Open Images Challenge 2019: mean average precision at IoU 0.5 over a hierarchy of categories.

The rules are those of the challenge (storage.googleapis.com/openimages/web/evaluation.html) as the TensorFlow Object
Detection API carries them out:

1. A box counts for its category and all its ancestors. A category verified present makes its ancestors verified, one
   verified absent its descendants.
2. A detection of a category that is neither verified nor has a box in the image is left out; so is one without area.
3. In every image and category, from the best score on, a detection looks at the one box with which it has the largest
   IoU, boxes around groups aside: from 0.5 on it finds the box if that is free, and is false if it is taken.
4. A detection that found nothing, and half of which lies inside a box around a group, belongs to the group in which the
   largest share of it lies. The best one of a group finds it, the others do not count; a group without one is missed.
5. Average precision is the area under the precision-recall curve with all its points, the precision at a recall being
   the largest at that recall or any higher. The mean runs over the categories that have boxes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from yolox_lt.data.annotations.index import AnnotationIndex
from yolox_lt.data.columns import Bools, Floats, Ints, distinct, look_up
from yolox_lt.evaluate.curves import RECALLS, hits_for_recalls
from yolox_lt.evaluate.hierarchy import Relatives
from yolox_lt.evaluate.lvis import Annotations, check_groups, scatter
from yolox_lt.evaluate.matching import IOU_THRESHOLDS, overlapping_pairs
from yolox_lt.evaluate.metrics import DROPPED, FALSE_POSITIVE, IGNORED, TRUE_POSITIVE, Report
from yolox_lt.evaluate.protocols import listed_codes
from yolox_lt.evaluate.quintiles import published_quintiles, quintiles_of
from yolox_lt.evaluate.results import Results, labels_and_images, load_detections

QUINTILES = ("AP1", "AP2", "AP3", "AP4", "AP5")
_OTHER_METRICS = ("AP75", "APs", "APm", "APl", "APr", "APc", "APf", "AR", "ARs", "ARm", "ARl")


@dataclass
class Found:
    """Detections that take part, sorted by label, then falling score, then image; K of them.

    source: int64 [K], their positions in the input, -1 for copies to ancestors.
    labels: int64 [K]. codes: int64 [K], image * C + label. boxes: float64 [K, 4], x y width height.
    """

    source: Ints
    labels: Ints
    codes: Ints
    boxes: Floats


def evaluate_openimages(
    annotations: Annotations,
    detections: Results,
    expand_detections: bool = False,
    groups: Sequence[str] | NDArray[np.str_] | None = None,
    train_boxes: ArrayLike | None = None,
) -> Report:
    """Open Images mAP at IoU 0.5 of detections, and AP1 to AP5 by training boxes.

    A file without lists of verified categories is taken as complete: every category is verified in every image.

    Args:
        annotations: an index that tools/convert_dataset.py wrote; or json, as a path or its content, with "is_group_of"
            of annotations, "neg_category_ids" and "pos_category_ids" of images, and "parent_ids" and "freebase_id"
            (the MID) of categories, all optional. Boxes and labels as published, not expanded.
        detections: path of a results file, a list of COCO-results dicts (bbox x y width height), or arrays. All of
            them count: the protocol has no limit per image.
        expand_detections: let every detection count for the ancestors of its category too, with the same box and
            score. The challenge asks the detector itself for these; the report says which was done.
        groups: "r", "c" or "f" per category [C]; default as in the file. For APr, APc and APf alone.
        train_boxes: boxes of each category in training [C], by which AP1 to AP5 group the categories; default: those of
            Challenge 2019 if the categories are its (by "freebase_id"), else AP1 to AP5 are NaN.

    Returns:
        A report whose AP and AP50 are the mAP; what the protocol does not define is NaN. Its status has a true positive
        for every box and every group that was found.

    Raises:
        UserError: unreadable or contradictory files, ids that the annotations do not know, NaN in the detections.
    """
    index = AnnotationIndex.load(annotations)
    arrays = load_detections(detections)
    labels, images = labels_and_images(arrays, index, detections)
    group_of = check_groups(index, groups)
    quintiles = _quintiles(index, train_boxes)
    num_categories = len(index.category_ids)
    codes, boxes, is_group = _truth(index)
    source, labels, images = _expanded(index, labels, images, expand_detections)
    found = _select(index, codes, source, labels, images, arrays.boxes, arrays.scores)
    status = _match(found, codes, boxes, is_group)
    num_boxes = np.bincount(codes % num_categories, minlength=num_categories)
    ap, precision = _average_precisions(found.labels, status, num_boxes)
    status[num_boxes[found.labels] == 0] = DROPPED
    own = found.source >= 0
    return Report(
        protocol=_description(index, images[source >= 0], expand_detections),
        metrics=_metrics(ap, group_of, quintiles),
        per_category={
            "AP": ap,
            "AP50": ap,
            "quintile": np.full(num_categories, np.nan) if quintiles is None else quintiles,
        },
        category_ids=index.category_ids,
        category_names=index.category_names,
        groups=group_of,
        image_counts=index.image_counts,
        instance_counts=index.instance_counts,
        box_counts=num_boxes,
        detection_counts=np.bincount(found.labels, minlength=num_categories),
        num_images=len(index),
        precision=precision,
        status=scatter(status[own], found.source[own], len(arrays)),
        to_find=np.logical_and.reduce(np.isfinite(index.boxes), axis=1) & ~index.crowd,
        shown=("AP", *QUINTILES),
    )


def _description(index: AnnotationIndex, images: Ints, expanded: bool) -> str:
    most = int(np.bincount(images).max(initial=0))
    complete = "" if _has_lists(index) else ", every category verified in every image"
    switch = "expanded" if expanded else "not expanded"
    return f"Open Images AP at IoU 0.5, up to {most} detections per image, {switch} to ancestors{complete}"


def _has_lists(index: AnnotationIndex) -> bool:
    return index.federated or len(index.positive_labels) > 0


def _quintiles(index: AnnotationIndex, train_boxes: ArrayLike | None) -> Floats | None:
    """Group 1 to 5 of every category [C] as floats, None if nothing tells."""
    if train_boxes is None:
        groups = published_quintiles(index)
    else:
        if np.shape(train_boxes) != index.category_ids.shape:
            raise ValueError(f"train_boxes has shape {np.shape(train_boxes)} for {len(index.category_ids)} categories")
        groups = quintiles_of(train_boxes)
    return None if groups is None else groups.astype(np.float64)


def _metrics(ap: Floats, group_of: NDArray[np.str_] | None, quintiles: Floats | None) -> dict[str, float]:
    def mean(members: Bools) -> float:
        values = ap[members & ~np.isnan(ap)]
        return float(values.mean()) if len(values) else float("nan")

    over_all = mean(np.ones(len(ap), bool))
    metrics = {"AP": over_all, "AP50": over_all} | dict.fromkeys(_OTHER_METRICS, float("nan"))
    if group_of is not None:
        metrics |= {f"AP{g}": mean(group_of == g) for g in "rcf"}
    for k, name in enumerate(QUINTILES, 1):
        metrics[name] = float("nan") if quintiles is None else mean(quintiles == k)
    return metrics


def _truth(index: AnnotationIndex) -> tuple[Ints, Floats, Bools]:
    """Code [G], box [G, 4] and group-of [G] of all boxes and their copies to ancestors, sorted by code.

    Boxes with NaN or infinite coordinates are left out; the order inside a code is that of the file.
    """
    kept = np.flatnonzero(np.logical_and.reduce(np.isfinite(index.boxes), axis=1))
    rows, labels = Relatives.ancestors(index).spread(index.labels[kept])
    rows = kept[rows]
    images = np.repeat(np.arange(len(index)), np.diff(index.box_offsets))[rows]
    codes = images * len(index.category_ids) + labels
    order = np.argsort(codes, kind="stable")
    return codes[order], index.boxes[rows[order]], index.group_of[rows[order]]


def _verified(index: AnnotationIndex) -> Ints:
    """Codes of all categories verified in an image, sorted."""
    num_categories = len(index.category_ids)
    lists = [
        (index.positive_offsets, index.positive_labels, Relatives.ancestors(index)),
        (index.negative_offsets, index.negative_labels, Relatives.descendants(index)),
    ]
    parts = []
    for offsets, labels, relatives in lists:
        codes = listed_codes(offsets, labels, num_categories)
        rows, spread = relatives.spread(labels)
        parts.append(codes[rows] - labels[rows] + spread)
    return distinct(np.concatenate(parts))


def _expanded(index: AnnotationIndex, labels: Ints, images: Ints, expand: bool) -> tuple[Ints, Ints, Ints]:
    """(source, label, image) of the detections [D], and of their copies if asked for.

    A copy has source -1 - d, d being the position of its original.
    """
    every = np.arange(len(labels))
    if not expand:
        return every, labels, images
    rows, spread = Relatives.ancestors(index).spread(labels)
    return np.where(spread == labels[rows], rows, -1 - rows), spread, images[rows]


def _select(
    index: AnnotationIndex, truth: Ints, source: Ints, labels: Ints, images: Ints, boxes: Floats, scores: Floats
) -> Found:
    """Drop and sort the detections; `boxes` and `scores` are those of the input, `truth` the codes of the boxes."""
    codes = images * len(index.category_ids) + labels
    origin = np.where(source < 0, -1 - source, source)
    keep = np.logical_and.reduce(boxes[:, 2:] > 0, axis=1)[origin]
    if _has_lists(index):
        keep &= look_up(codes, distinct(np.concatenate([truth, _verified(index)])))[1]
    kept = np.flatnonzero(keep)
    # Equal scores in ascending order of image ids: it must not matter how processes split the images between them.
    narrow = labels[kept].astype(np.min_scalar_type(len(index.category_ids)))
    kept = kept[np.lexsort((images[kept], -scores[origin[kept]], narrow))]
    return Found(np.maximum(source[kept], -1), labels[kept], codes[kept], boxes[origin[kept]])


def _match(found: Found, codes: Ints, boxes: Floats, is_group: Bools) -> NDArray[np.int8]:
    """int8 [K]: TRUE_POSITIVE, FALSE_POSITIVE or IGNORED, by rules 3 and 4."""
    status = np.full(len(found.labels), FALSE_POSITIVE, np.int8)
    single = _nearest(found.codes, found.boxes, codes[~is_group], boxes[~is_group], group=False)
    status[_first_of_each(single)] = TRUE_POSITIVE
    rest = np.flatnonzero(status == FALSE_POSITIVE)
    groups = _nearest(found.codes[rest], found.boxes[rest], codes[is_group], boxes[is_group], group=True)
    status[rest[groups >= 0]] = IGNORED
    status[rest[_first_of_each(groups)]] = TRUE_POSITIVE
    return status


def _nearest(codes: Ints, boxes: Floats, truth_codes: Ints, truth: Floats, group: bool) -> Ints:
    """int64 [K]: for every detection the box of its code with the largest overlap, the first of equals; -1 below 0.5.

    group: the overlap is the share of the detection inside the box, otherwise the IoU.
    """
    first = np.searchsorted(truth_codes, codes, side="left")
    counts = np.searchsorted(truth_codes, codes, side="right") - first
    detection, box, overlap = overlapping_pairs(boxes, first, counts, truth, np.full(len(truth), group))
    order = np.lexsort((box, -overlap, detection))
    best = order[np.flatnonzero(np.diff(detection[order], prepend=-1))]
    result = np.full(len(codes), -1)
    result[detection[best]] = box[best]
    return result


def _first_of_each(boxes: Ints) -> Ints:
    """Positions of the first detection of every box; -1 is none."""
    rows = np.flatnonzero(boxes >= 0)
    return rows[np.unique(boxes[rows], return_index=True)[1]]


def _average_precisions(labels: Ints, status: NDArray[np.int8], num_boxes: Ints) -> tuple[Floats, Floats]:
    """AP float64 [C], NaN without boxes, and the curves float64 [C, 10, 101] of which only IoU 0.5 is known."""
    num_categories = len(num_boxes)
    ap = np.full(num_categories, np.nan)
    precision = np.full((num_categories, len(IOU_THRESHOLDS), len(RECALLS)), np.nan)
    counted = np.flatnonzero(status != IGNORED)
    bounds = np.searchsorted(labels[counted], np.arange(num_categories + 1))
    for c in np.flatnonzero(num_boxes):
        hits = np.flatnonzero(status[counted[bounds[c] : bounds[c + 1]]] == TRUE_POSITIVE)
        at_hits = np.arange(1, len(hits) + 1) / (hits + 1)
        best = np.append(np.maximum.accumulate(at_hits[::-1])[::-1], 0)  # at the k-th hit; more hits than exist: 0
        ap[c] = best.sum() / num_boxes[c]
        precision[c, 0] = best[np.minimum(hits_for_recalls(num_boxes[c : c + 1])[0], len(best)) - 1]
    return ap, precision
