"""An annotation index as COCO or LVIS json."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from yolox_lt.data.annotations.index import AnnotationIndex
from yolox_lt.data.columns import Ints
from yolox_lt.errors import UserError


def write_coco(path: Path, index: AnnotationIndex, positions: Ints | None = None) -> None:
    """Write the images at `positions` (all if None) with their annotations; reading the file gives the same columns.

    Images get `file_name`. LVIS's lists and frequencies are there if the index has them. "heeds_ignore" is ours, see
    `AnnotationIndex`.

    Raises:
        UserError: categories with a hierarchy (Open Images), which are kept as columns alone.
        OSError: the file cannot be written.
    """
    if len(index.ancestor_labels):
        raise UserError(
            f"{index.path}: its categories have a hierarchy, which is not written as json; use the file as it is"
        )
    chosen = np.arange(len(index)) if positions is None else positions
    images, annotations = [], []
    offsets = list(pairwise(index.box_offsets.tolist()))
    for i in chosen.tolist():
        height, width = index.sizes[i].tolist()
        image: dict[str, Any] = {"id": int(index.image_ids[i]), "file_name": index.file_name(i)}
        image |= {"width": width, "height": height}
        if index.federated:
            image["neg_category_ids"] = _ids(index, index.negative_offsets, index.negative_labels, i)
            partial = _ids(index, index.not_exhaustive_offsets, index.not_exhaustive_labels, i)
            image["not_exhaustive_category_ids"] = partial
        if len(index.positive_labels):
            image["pos_category_ids"] = _ids(index, index.positive_offsets, index.positive_labels, i)
        images.append(image)
        annotations += [_annotation(index, i, row) for row in range(*offsets[i])]
    categories = [{"id": k, "name": name} for k, name in zip(index.category_ids.tolist(), index.category_names)]
    for category, key in zip(categories, index.category_keys):
        category |= {"freebase_id": key} if key else {}
    if index.frequencies is not None:
        for category, frequency in zip(categories, index.frequencies.tolist()):
            category["frequency"] = frequency
    content: dict[str, Any] = {"images": images, "categories": categories, "annotations": annotations}
    if index.ignored_not_scored:
        content["heeds_ignore"] = True
    path.write_bytes(msgspec.json.encode(content))


def _annotation(index: AnnotationIndex, image: int, row: int) -> dict[str, Any]:
    return {
        "id": int(index.annotation_ids[row]),
        "image_id": int(index.image_ids[image]),
        "category_id": int(index.category_ids[index.labels[row]]),
        "bbox": index.boxes[row].tolist(),
        "area": float(index.areas[row]),
        "iscrowd": int(index.crowd[row]),
        **({"ignore": 1} if index.ignore[row] else {}),
        **({"is_group_of": 1} if index.group_of[row] else {}),
    }


def _ids(index: AnnotationIndex, offsets: Ints, labels: Ints, image: int) -> list[int]:
    """Category ids of a federated list of one image."""
    found: list[int] = index.category_ids[labels[offsets[image] : offsets[image + 1]]].tolist()
    return found
