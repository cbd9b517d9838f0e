"""LVIS box evaluation, exactly as the LVIS API computes it, and its two variants AP-fixed and AP-pool.

Gupta, Dollar, Girshick: LVIS, 2019 (protocol); Dave et al.: Evaluating Large-Vocabulary Object Detectors, 2021
(AP-fixed and AP-pool). Deviations, for cases in which the LVIS API fails: an empty list of detections gives AP 0, and a
box whose annotation id is 0 can be found. Crowd regions, which LVIS files do not have, are ignored as in COCO.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from yolox_lt.data.annotations.index import AnnotationIndex
from yolox_lt.data.columns import Bools, Floats, Ints
from yolox_lt.errors import UserError
from yolox_lt.evaluate.curves import RECALLS, interpolated_precision
from yolox_lt.evaluate.matching import AREA_RANGES, IOU_THRESHOLDS, MATCHED, UNMATCHED, Evaluated, match, rank_inside
from yolox_lt.evaluate.metrics import DROPPED, FALSE_POSITIVE, IGNORED, TRUE_POSITIVE, Report
from yolox_lt.evaluate.protocols import Protocol, select, to_find, truth_of
from yolox_lt.evaluate.results import Results, labels_and_images, load_detections

DETS_PER_CATEGORY = 10_000
"""Of AP-fixed and AP-pool, the authors' choice."""

Annotations = str | Path | dict[str, Any] | AnnotationIndex


def evaluate_lvis(
    annotations: Annotations,
    detections: Results,
    max_dets: int = 300,
    groups: Sequence[str] | NDArray[np.str_] | None = None,
    protocol: Literal["default", "fixed", "pool"] = "default",
    dets_per_category: int = DETS_PER_CATEGORY,
) -> Report:
    """LVIS box AP of detections.

    Files without federated lists (plain COCO) are taken as complete: every category is verified in every image.

    Args:
        annotations: path of a json file, its content as a dict, or an index.
        detections: path of a results file, a list of COCO-results dicts (bbox x y width height), or arrays.
        max_dets: how many detections of an image count, its best, all categories together (protocol "default").
        groups: "r", "c" or "f" per category [C], in ascending order of category ids; default as in the file.
        protocol: "default"; "fixed": the best `dets_per_category` of every category over the whole set, no limit per
            image; "pool": the same detections, matched per category but ranked in one list of all categories (and one
            list per group), which asks for scores that are comparable between categories.
        dets_per_category: for "fixed" and "pool".

    Raises:
        UserError: unreadable or contradictory files, ids that the annotations do not know, NaN in the detections.
    """
    if protocol == "default":
        rules = Protocol("LVIS AP", "image", max_dets)
    elif protocol == "fixed":
        rules = Protocol("LVIS AP-fixed", "category", dets_per_category)
    elif protocol == "pool":
        rules = Protocol("LVIS AP-pool", "category", dets_per_category, pooled=True)
    else:
        raise UserError(f"there is no LVIS protocol {protocol!r}; choose default, fixed or pool")
    return evaluate(annotations, detections, rules, groups)


def evaluate(
    annotations: Annotations,
    detections: Results,
    protocol: Protocol,
    groups: Sequence[str] | NDArray[np.str_] | None = None,
) -> Report:
    """Evaluate under any protocol; see `evaluate_lvis` for the arguments."""
    if protocol.max_dets < 1:
        raise UserError(
            f"{protocol.max_dets} detections per {protocol.cap} leave nothing to evaluate; ask for 1 or more"
        )
    index = AnnotationIndex.load(annotations)
    arrays = load_detections(detections)
    labels, images = labels_and_images(arrays, index, detections)
    group_of = check_groups(index, groups)
    truth = truth_of(index, protocol)
    evaluated = select(labels, images, arrays.boxes, arrays.scores, index, truth, protocol)
    rows, status = match(evaluated, truth)
    num_categories = len(index.category_ids)
    num_boxes = _boxes_per_category(truth.codes % num_categories, truth.ignored, num_categories)
    precision, recall = _curves_per_category(evaluated, rows, status, num_boxes)
    if protocol.pooled:
        metrics = _pooled_metrics(evaluated, rows, status, num_boxes, group_of)
    else:
        metrics = summarize(precision, recall, group_of) | _recall_at(protocol, evaluated, rows, status, num_boxes)
    outcome = _outcome(evaluated, rows, status, num_boxes[:, 0] > 0, protocol.pooled)
    complete = "" if index.federated or not protocol.lvis else ", every category verified in every image"
    return Report(
        protocol=protocol.description + complete,
        metrics=metrics,
        per_category=_category_values(precision, recall),
        category_ids=index.category_ids,
        category_names=index.category_names,
        groups=group_of,
        image_counts=index.image_counts,
        instance_counts=index.instance_counts,
        box_counts=num_boxes[:, 0],
        detection_counts=np.bincount(evaluated.labels, minlength=num_categories),
        num_images=len(index),
        precision=precision[:, 0].copy(),  # [C, A, T, 101] -> [C, T, 101]
        status=scatter(outcome, evaluated.source, len(arrays)),
        to_find=to_find(index, protocol),
        rules=protocol,
        shown=_shown(protocol, metrics),
    )


def _shown(protocol: Protocol, metrics: dict[str, float]) -> tuple[str, ...]:
    """With recalls of some counts the table has these in place of AR, which is the last of them."""
    if not protocol.recall_at:
        return ()
    precisions = [name for name in metrics if name.startswith("AP")]
    return (*precisions, *(f"AR{count}" for count in protocol.recall_at), "ARs", "ARm", "ARl")


def summarize(precision: Floats, recall: Floats, groups: NDArray[np.str_] | None) -> dict[str, float]:
    """The 13 metrics from precision [C, A, T, 101] and recall [C, A, T]: means over what is not NaN."""
    in_group = {g: np.zeros(len(precision), bool) if groups is None else groups == g for g in "rcf"}
    return {
        "AP": _mean(precision[:, 0]),
        "AP50": _mean(precision[:, 0, 0]),
        "AP75": _mean(precision[:, 0, 5]),
        "APs": _mean(precision[:, 1]),
        "APm": _mean(precision[:, 2]),
        "APl": _mean(precision[:, 3]),
        "APr": _mean(precision[in_group["r"], 0]),
        "APc": _mean(precision[in_group["c"], 0]),
        "APf": _mean(precision[in_group["f"], 0]),
        "AR": _mean(recall[:, 0]),
        "ARs": _mean(recall[:, 1]),
        "ARm": _mean(recall[:, 2]),
        "ARl": _mean(recall[:, 3]),
    }


def _recall_at(
    protocol: Protocol, evaluated: Evaluated, rows: Ints, status: NDArray[np.int8], num_boxes: Ints
) -> dict[str, float]:
    """AR of the best k detections per image and category: what they match does not depend on those behind them."""
    rank = rank_inside(evaluated.codes)[rows]
    labels = evaluated.labels[rows]
    hit = status[:, 0] == MATCHED  # [R, T]
    boxes = num_boxes[:, :1]  # [C, 1]
    result = {}
    for count in protocol.recall_at:
        found = np.zeros((len(boxes), hit.shape[1]))  # [C, T]
        np.add.at(found, labels[rank < count], hit[rank < count])
        result[f"AR{count}"] = _mean(np.where(boxes > 0, found / np.maximum(boxes, 1), np.nan))
    return result


def _mean(values: Floats) -> float:
    values = values[~np.isnan(values)]
    return float(values.mean()) if len(values) else float("nan")


def _category_values(precision: Floats, recall: Floats) -> dict[str, Floats]:
    """Per-category columns [C] from precision [C, A, T, 101] and recall [C, A, T]."""
    ap, ar = precision.mean(axis=(2, 3)), recall.mean(axis=2)  # [C, A]; a range is NaN throughout or not at all
    return {
        "AP": ap[:, 0],
        "AP50": precision[:, 0, 0].mean(axis=1),
        "AP75": precision[:, 0, 5].mean(axis=1),
        "APs": ap[:, 1],
        "APm": ap[:, 2],
        "APl": ap[:, 3],
        "AR": ar[:, 0],
        "ARs": ar[:, 1],
        "ARm": ar[:, 2],
        "ARl": ar[:, 3],
    }


def check_groups(index: AnnotationIndex, groups: Sequence[str] | NDArray[np.str_] | None) -> NDArray[np.str_] | None:
    """Groups "r", "c" or "f" [C] as an array, the annotation file's if none are given.

    Raises:
        ValueError: another length or another letter.
    """
    if groups is None:
        return index.groups()
    group_of = np.asarray(groups, "<U1")
    if group_of.shape != index.category_ids.shape or not np.isin(group_of, ["r", "c", "f"]).all():
        raise ValueError(f"groups must hold r, c or f for each of the {len(index.category_ids)} categories")
    return group_of


def _boxes_per_category(labels: Ints, ignored: Bools, num_categories: int) -> Ints:
    """int64 [C, A]: boxes to be found."""
    counts = [np.bincount(labels[~column], minlength=num_categories) for column in ignored.T]
    return np.stack(counts, axis=1)


def _curves_per_category(
    evaluated: Evaluated, rows: Ints, status: NDArray[np.int8], num_boxes: Ints
) -> tuple[Floats, Floats]:
    """precision float64 [C, A, T, 101], recall float64 [C, A, T]."""
    num_categories = len(num_boxes)
    precision = np.full((num_categories, len(AREA_RANGES), len(IOU_THRESHOLDS), len(RECALLS)), np.nan)
    recall = np.full((num_categories, len(AREA_RANGES), len(IOU_THRESHOLDS)), np.nan)
    bounds = np.searchsorted(evaluated.labels, np.arange(num_categories + 1))
    row_bounds = np.searchsorted(rows, bounds)
    for c in np.flatnonzero(num_boxes.any(axis=1)):
        counted = ~evaluated.ignore_if_unmatched[bounds[c] : bounds[c + 1]]
        part = slice(row_bounds[c], row_bounds[c + 1])
        precision[c], recall[c] = interpolated_precision(counted, rows[part] - bounds[c], status[part], num_boxes[c])
    return precision, recall


def _pooled_metrics(
    evaluated: Evaluated, rows: Ints, status: NDArray[np.int8], num_boxes: Ints, groups: NDArray[np.str_] | None
) -> dict[str, float]:
    """The 13 metrics, each from one curve over all detections of the pool: all categories, or one group.

    Detections of categories that have no boxes stay in and count as false positives.
    """
    everything = np.ones(len(num_boxes), bool)
    pools = {"": everything} | {g: np.zeros_like(everything) if groups is None else groups == g for g in "rcf"}
    curves = {}
    for name, pool in pools.items():
        members = np.flatnonzero(pool[evaluated.labels])
        # Equal scores: by image, then by category.
        members = members[np.lexsort((evaluated.codes[members], -evaluated.scores[members]))]
        place = np.full(len(evaluated.labels), -1)
        place[members] = np.arange(len(members))
        inside = np.flatnonzero(place[rows] >= 0)
        inside = inside[np.argsort(place[rows[inside]])]
        curves[name] = interpolated_precision(
            ~evaluated.ignore_if_unmatched[members], place[rows[inside]], status[inside], num_boxes[pool].sum(axis=0)
        )
    precision, recall = curves[""]
    metrics = summarize(precision[None], recall[None], None)
    return metrics | {f"AP{g}": _mean(curves[g][0][0]) for g in "rcf"}


def _outcome(
    evaluated: Evaluated, rows: Ints, status: NDArray[np.int8], has_boxes: Bools, pooled: bool
) -> NDArray[np.int8]:
    """int8 [K]: what became of the evaluated detections at IoU 0.5, all areas."""
    outcome = np.where(evaluated.ignore_if_unmatched[:, 0], IGNORED, FALSE_POSITIVE).astype(np.int8)
    first = status[:, 0, 0]
    outcome[rows] = np.where(first == UNMATCHED, outcome[rows], np.where(first == MATCHED, TRUE_POSITIVE, IGNORED))
    if not pooled:
        outcome[~has_boxes[evaluated.labels]] = DROPPED
    return outcome


def scatter(outcome: NDArray[np.int8], source: Ints, count: int) -> NDArray[np.int8]:
    """From the evaluated detections back to the input; what was not evaluated is DROPPED."""
    result = np.full(count, DROPPED, np.int8)
    result[source] = outcome
    return result
