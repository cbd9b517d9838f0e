"""Names and ids of the categories of a checkpoint that does not say them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from yolox_lt.errors import UserError

if TYPE_CHECKING:
    from yolox_lt.data.annotations.index import AnnotationIndex
    from yolox_lt.exp import DetectorExp

COCO_NAMES = (
    *("person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat", "traffic light"),
    *("fire hydrant", "stop sign", "parking meter", "bench", "bird", "cat", "dog", "horse", "sheep", "cow"),
    *("elephant", "bear", "zebra", "giraffe", "backpack", "umbrella", "handbag", "tie", "suitcase", "frisbee"),
    *("skis", "snowboard", "sports ball", "kite", "baseball bat", "baseball glove", "skateboard", "surfboard"),
    *("tennis racket", "bottle", "wine glass", "cup", "fork", "knife", "spoon", "bowl", "banana", "apple"),
    *("sandwich", "orange", "broccoli", "carrot", "hot dog", "pizza", "donut", "cake", "chair", "couch"),
    *("potted plant", "bed", "dining table", "toilet", "tv", "laptop", "mouse", "remote", "keyboard", "cell phone"),
    *("microwave", "oven", "toaster", "sink", "refrigerator", "book", "clock", "vase", "scissors", "teddy bear"),
    *("hair drier", "toothbrush"),
)
"""The 80 categories of COCO's instance annotations, in the order of their ids."""

COCO_GAPS = frozenset({12, 26, 29, 30, 45, 66, 68, 69, 71, 83})
"""Ids between 1 and 90 that COCO's annotations do not use."""

COCO_IDS = tuple(number for number in range(1, 91) if number not in COCO_GAPS)


def name_categories(
    num_classes: int, exp: DetectorExp | None, content: Mapping[str, Any]
) -> tuple[list[str], list[int], str]:
    """(names, data-set ids, where they are from), in label order.

    From the validation, else the training annotations of `exp` if the file is there; else from `content`, the
    checkpoint, if it is ours and has them; else COCO's for 80 categories; else "category 1" and so on with ids 1..C.

    Raises:
        UserError: the annotations have another number of categories than the experiment.
    """
    index = annotations_of(exp) if exp is not None else None
    if index is not None:
        return list(index.category_names), index.category_ids.tolist(), f"names and ids from {index.path}"
    if "names" in content and "category_ids" in content:
        return list(content["names"]), list(content["category_ids"]), "names and ids as in the source"
    if num_classes == len(COCO_NAMES):
        return list(COCO_NAMES), list(COCO_IDS), "names and ids of COCO, because there are 80 categories"
    numbers = list(range(1, num_classes + 1))
    return (
        [f"category {number}" for number in numbers],
        numbers,
        f"names unknown, ids 1..{num_classes}; -f EXP with annotations at hand gives both",
    )


def annotations_of(exp: DetectorExp) -> AnnotationIndex | None:
    """The validation, else the training annotations, None without either file."""
    splits: tuple[Literal["val", "train"], ...] = ("val", "train")
    for split in splits:
        try:
            exp.get_source(split)
        except UserError:  # not there
            continue
        index = exp.get_index(split)
        if len(index.category_ids) != exp.num_classes:
            raise UserError(
                f"{index.path}: has {len(index.category_ids)} categories but num_classes is {exp.num_classes}; give "
                "the experiment of the source, or annotations of the same categories"
            )
        return index
    return None
