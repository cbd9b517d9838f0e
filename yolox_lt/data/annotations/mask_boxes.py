"""Boxes of annotations that have a mask and no box: some tools write COCO files so."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def boxes_from_masks(content: Any, path: Path) -> None:
    """Give the annotations of a COCO file's content boxes where they have none, and note how many there were."""
    made = add_boxes(content.get("annotations", ())) if isinstance(content, dict) else 0
    if made:
        note = f"{path.name}: {made} annotations have no bbox; the box around their segmentation is taken"
        content["notes"] = [*content.get("notes", ()), note]


def add_boxes(annotations: object) -> int:
    """Give every entry that has a polygon or a run-length mask and no box the box around it; how many there were."""
    made = 0
    for entry in annotations if isinstance(annotations, list) else ():
        if isinstance(entry, dict) and not entry.get("bbox") and entry.get("segmentation"):
            entry["bbox"] = box_of_mask(entry["segmentation"])
            made += entry["bbox"] is not None
    return made


def box_of_mask(segmentation: object) -> list[float] | None:
    """x y width height around polygons [[x, y, x, y, ...], ...] or a run-length mask; None for neither."""
    if isinstance(segmentation, dict):
        from pycocotools import mask  # an optional package of some size

        if isinstance(segmentation.get("counts"), list):
            segmentation = mask.frPyObjects(segmentation, *segmentation["size"])
        return [float(value) for value in mask.toBbox(segmentation)]
    try:
        x = [float(value) for polygon in segmentation for value in polygon[::2]]  # type: ignore[attr-defined]
        y = [float(value) for polygon in segmentation for value in polygon[1::2]]  # type: ignore[attr-defined]
    except (TypeError, ValueError):
        return None
    return [min(x), min(y), max(x) - min(x), max(y) - min(y)] if x and y else None
