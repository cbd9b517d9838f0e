"""A COCO json written again as a VOC folder and as a YOLO set, with images of one colour in place of photographs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np

GOLDEN = Path(__file__).parents[1] / "golden"


def bccd() -> dict[str, Any]:
    """BCCD's validation split as plain COCO json: 87 images, 1137 boxes, image ids from 1."""
    content = json.loads((GOLDEN / "bccd_val.json").read_text())
    number = {image["id"]: i for i, image in enumerate(sorted(content["images"], key=lambda i: i["file_name"]), 1)}
    images = [{k: v for k, v in image.items() if "category_ids" not in k} for image in content["images"]]
    return {
        "images": [image | {"id": number[image["id"]]} for image in images],
        "categories": [{"id": c["id"], "name": c["name"]} for c in content["categories"]],
        "annotations": [a | {"image_id": number[a["image_id"]]} for a in content["annotations"]],
    }


def small(content: dict[str, Any], count: int) -> dict[str, Any]:
    """The first images with their boxes, annotation ids from 1 in the order of images."""
    images = sorted(content["images"], key=lambda image: image["id"])[:count]
    kept = [a for image in images for a in content["annotations"] if a["image_id"] == image["id"]]
    return content | {"images": images, "annotations": [a | {"id": i} for i, a in enumerate(kept, 1)]}


def by_image(content: dict[str, Any]) -> list[tuple[dict[str, Any], list[dict[str, Any]]]]:
    return [(i, [a for a in content["annotations"] if a["image_id"] == i["id"]]) for i in content["images"]]


def write_image(path: Path, width: int, height: int, grey: int = 90) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.full((height, width, 3), grey, np.uint8))


def write_voc(folder: Path, content: dict[str, Any], split: str = "val", images: bool = True) -> Path:
    """VOC's layout; returns the list of the split."""
    names = {c["id"]: c["name"] for c in content["categories"]}
    (folder / "Annotations").mkdir(parents=True, exist_ok=True)
    (folder / "ImageSets/Main").mkdir(parents=True, exist_ok=True)
    (folder / "JPEGImages").mkdir(exist_ok=True)
    for image, boxes in by_image(content):
        objects = "".join(voc_object(names[a["category_id"]], a["bbox"]) for a in boxes)
        text = voc_xml(image["file_name"], image["width"], image["height"], objects)
        (folder / "Annotations" / Path(image["file_name"]).with_suffix(".xml").name).write_text(text)
        if images:
            write_image(folder / "JPEGImages" / image["file_name"], image["width"], image["height"])
    listing = folder / f"ImageSets/Main/{split}.txt"
    listing.write_text("\n".join(Path(i["file_name"]).stem for i in content["images"]) + "\n")
    return listing


def voc_object(name: str, bbox: list[float], more: str = "") -> str:
    x, y, w, h = bbox
    corners = f"<xmin>{x + 1:g}</xmin><ymin>{y + 1:g}</ymin><xmax>{x + w:g}</xmax><ymax>{y + h:g}</ymax>"
    return f"<object><name>{name}</name>{more}<bndbox>{corners}</bndbox></object>"


def voc_xml(file_name: str, width: int, height: int, objects: str = "") -> str:
    size = f"<size><width>{width}</width><height>{height}</height><depth>3</depth></size>"
    return f"<annotation>\n<filename>{file_name}</filename>\n{size}\n{objects}\n</annotation>\n"


def write_yolo(folder: Path, content: dict[str, Any], split: str = "val") -> Path:
    """images/SPLIT, labels/SPLIT and a data.yaml; an image without objects has no label file."""
    classes = [c["id"] for c in sorted(content["categories"], key=lambda c: c["id"])]
    for image, boxes in by_image(content):
        width, height = image["width"], image["height"]
        write_image(folder / "images" / split / image["file_name"], width, height)
        rows = []
        for a in boxes:
            x, y, w, h = a["bbox"]
            numbers = ((x + w / 2) / width, (y + h / 2) / height, w / width, h / height)
            rows.append(f"{classes.index(a['category_id'])} " + " ".join(f"{n:.6f}" for n in numbers))
        labels = folder / "labels" / split / Path(image["file_name"]).with_suffix(".txt").name
        labels.parent.mkdir(parents=True, exist_ok=True)
        if rows:
            labels.write_text("\n".join(rows) + "\n")
    names = [c["name"] for c in sorted(content["categories"], key=lambda c: c["id"])]
    path = folder / "data.yaml"
    lines = path.read_text() if path.is_file() else f"nc: {len(names)}\nnames: {json.dumps(names)}\n"
    path.write_text(f"{lines}{split}: images/{split}\n")
    return path
