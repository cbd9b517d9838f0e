"""Broken data sets as Hypothesis strategies: what is written to disk, and what has to come of it.

Every image and every box is of a kind; the kind decides whether it can be trained on. What the network has to see is
worked out here without the project: pixels by the arrays that were written or by Pillow's decoder, boxes by plain
arithmetic on Python's numbers.
"""

from __future__ import annotations

import io
import json
import math
import os
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import strategies as st
from PIL import Image, ImageOps

GOOD_IMAGES = ("rgb png", "rgb jpeg", "cmyk", "16 bit", "grey", "grey jpeg", "alpha", "palette", "bilevel", "turned")
BAD_IMAGES = {
    "truncated": "cut off or damaged|not a readable image",
    "empty": "not a readable image",
    "text": "not a readable image",
    "noise": "not a readable image",
    "other size": "but the annotations say",
    "missing": "image file not found",
    "folder": "image file not found",
    "link loop": "image file not found",
    "dangling link": "image file not found",
    "pipe": "image file not found",
    "20000 x 20000": "more than 89 million pixels",
}
SIZES = [(1, 1), (1, 10_000), (10_000, 1), (7, 5), (24, 31)]  # (height, width)
NAMES = [
    "a.png",
    "größe/ü.png",
    "数据/猫.jpg",
    "with space.png",
    "dot..dot.png",
    "a: b.png",
    "x\U0001f600.png",
    "no suffix",
]
IDS = [0, 1, 7, 2**31, 2**40, 2**62, -3]

FILE_DEFECTS: dict[str, str] = {
    "duplicate image id": "image id {image} occurs more than once",
    "duplicate category id": "category id {category} occurs more than once",
    "string image id": r"images\[0\].id",
    "string box id": r"annotations\[0\].image_id",
    "fraction as id": r"images\[0\].id",
    "id beyond 64 bits": r"images\[0\].id",
    "no bbox": r"annotations\[0\]: .*bbox",
    "no width": r"images\[0\]: .*width",
    "no images": "top level: .*images",
    "empty images": "lists no images",
    "null width": r"images\[0\].width",
    "zero width": "image id {image} has width 0",
    "huge width": "image id {image} has width 17592186044416",
    "three numbers as box": r"annotations\[0\].bbox",
    "box of text": r"annotations\[0\].bbox\[0\]",
    "unknown category": "category_id 12345, which the file does not list",
    "unknown image": "image_id 12345, which the file does not list",
    "climbs out": "image id {image} has the path .*leads out of",
    "absolute path": "image id {image} has the path .*leads out of",
    "no file name": "image id {image} has neither coco_url nor file_name",
    "list at the top": "top level",
    "cut off": "not a json file",
    "no json": "not a json file",
}
"""What is wrong with the annotation file -> what the message has to say."""


@dataclass
class Picture:
    """One image of a data set. expected: uint8 [H, W, 3] BGR that must reach the network, None if it is refused."""

    id: int
    name: str
    kind: str
    height: int
    width: int
    content: bytes | None
    expected: np.ndarray | None
    tolerance: int


@dataclass
class BrokenSet:
    """boxes: (annotation as in the file, x1 y1 x2 y2 that must reach the network or None)."""

    pictures: list[Picture]
    boxes: list[tuple[dict[str, Any], tuple[float, ...] | None]]
    category: int
    defect: str | None

    def text(self) -> str:
        """The annotation file, with its defect."""
        images: list[dict[str, Any]] = [
            {"id": p.id, "width": p.width, "height": p.height, "file_name": p.name} for p in self.pictures
        ]
        annotations = [dict(entry) for entry, _ in self.boxes]
        content: Any = {
            "images": images,
            "annotations": annotations,
            "categories": [{"id": self.category, "name": "größe </script>"}],
        }
        first, box = images[0], annotations[0]
        match self.defect:
            case "duplicate image id":
                images.append(dict(first))
            case "duplicate category id":
                content["categories"] *= 2
            case "string image id":
                first["id"] = "seven"
            case "string box id":
                box["image_id"] = "x"
            case "fraction as id":
                first["id"] = 1.5
            case "id beyond 64 bits":
                first["id"] = 2**63
            case "no bbox":
                del box["bbox"]
            case "no width":
                del first["width"]
            case "no images":
                del content["images"]
            case "empty images":
                content["images"] = []
            case "null width":
                first["width"] = None
            case "zero width":
                first["width"] = 0
            case "huge width":
                first["width"] = 2**44
            case "three numbers as box":
                box["bbox"] = [1, 2, 3]
            case "box of text":
                box["bbox"] = ["a", 1, 2, 3]
            case "unknown category":
                box["category_id"] = 12345
            case "unknown image":
                box["image_id"] = 12345
            case "climbs out":
                first["file_name"] = "sub/../../secret.png"
            case "absolute path":
                first["file_name"] = "/etc/hostname"
            case "no file name":
                del first["file_name"]
            case "list at the top":
                content = [content]
        text = json.dumps(content)
        if self.defect == "cut off":
            return text[: len(text) // 2]
        return "no json" if self.defect == "no json" else text

    def write(self, root: Path) -> Path:
        """Pictures and annotation file below `root`; returns the annotation file."""
        for picture in self.pictures:
            path = root / picture.name
            path.parent.mkdir(parents=True, exist_ok=True)
            if picture.kind == "folder":
                path.mkdir()
            elif picture.kind == "link loop":
                path.symlink_to(path.name)
            elif picture.kind == "dangling link":
                path.symlink_to("nowhere")
            elif picture.kind == "pipe":
                os.mkfifo(path)
            elif picture.content is not None:
                path.write_bytes(picture.content)
        annotations = root / "annotations.json"
        annotations.write_text(self.text())
        return annotations


def encoded(image: Image.Image, format: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def render_image(kind: str, height: int, width: int, seed: int) -> tuple[bytes | None, np.ndarray | None, int]:
    """(content of the file, BGR pixels or None, how far they may be off) of a kind of image."""
    rng = np.random.default_rng(seed)
    rgb = rng.integers(0, 256, (height, width, 3), np.uint8)
    grey = rgb[..., 0]
    image = Image.fromarray(rgb)
    if kind == "rgb png":
        return encoded(image, "PNG"), rgb[..., ::-1], 0
    if kind == "16 bit":
        deep = rng.integers(0, 65536, (height, width)).astype(np.uint16)
        return encoded(Image.fromarray(deep), "PNG"), np.repeat((deep >> 8).astype(np.uint8)[..., None], 3, 2), 0
    if kind == "grey":
        return encoded(Image.fromarray(grey), "PNG"), np.repeat(grey[..., None], 3, 2), 0
    if kind == "alpha":
        return encoded(Image.fromarray(np.dstack([rgb, grey])), "PNG"), rgb[..., ::-1], 0
    if kind == "bilevel":
        black = np.where(grey > 127, 255, 0).astype(np.uint8)
        return encoded(Image.fromarray(black).convert("1", dither=0), "PNG"), np.repeat(black[..., None], 3, 2), 0
    if kind == "palette":
        content = encoded(image.quantize(16), "PNG")
    elif kind == "turned":  # orientation 6: it is shown turned by 90 degrees clockwise, the boxes refer to that
        exif = Image.Exif()
        exif[0x0112] = 6
        content = encoded(Image.fromarray(np.rot90(rgb).copy()), "JPEG", quality=95, exif=exif)
    elif kind in ("rgb jpeg", "cmyk", "grey jpeg"):
        mode = {"rgb jpeg": "RGB", "cmyk": "CMYK", "grey jpeg": "L"}[kind]
        content = encoded(image.convert(mode), "JPEG", quality=95)
    else:
        return bad_content(kind, image, rng), None, 0
    return content, np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(content))).convert("RGB"))[..., ::-1], 2


def bad_content(kind: str, image: Image.Image, rng: np.random.Generator) -> bytes | None:
    if kind == "truncated":
        content = encoded(image, ("PNG", "JPEG", "BMP", "WEBP")[rng.integers(4)])
        return content[: rng.integers(1, len(content))]
    if kind == "other size":
        return encoded(image.resize((image.width + 1, image.height)), "PNG")
    if kind == "20000 x 20000":
        return png_header(20_000, 20_000)
    return {"empty": b"", "text": b"# no image\n" * 9, "noise": rng.bytes(500)}.get(kind)


def png_header(width: int, height: int) -> bytes:
    """A PNG of some bytes that says it is that large."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(99))) + chunk(b"IEND", b"")


@st.composite
def pictures(draw: st.DrawFn, id: int, name: str) -> Picture:
    kind = draw(st.sampled_from([*GOOD_IMAGES, *BAD_IMAGES]))
    height, width = draw(st.sampled_from(SIZES))
    if kind == "20000 x 20000":
        height = width = 20_000
    shown = (9, 9) if kind == "20000 x 20000" else (height, width)
    content, expected, tolerance = render_image(kind, *shown, draw(st.integers(0, 99)))
    return Picture(id, name, kind, height, width, content, expected, tolerance)


COORDINATES = st.one_of(
    st.integers(-3, 40),
    st.floats(-3, 40),
    st.sampled_from([0, -0.0, math.nan, math.inf, -math.inf, 1e308, -1e308, 2**40, 5e-324]),
)


@st.composite
def boxes(draw: st.DrawFn, picture: Picture, category: int) -> tuple[dict[str, Any], tuple[float, ...] | None]:
    """An annotation: zero, negative, NaN, infinite, huge, reversed, outside, or as it should be."""
    x, y, w, h = (draw(COORDINATES) for _ in range(4))
    entry = {"id": draw(st.sampled_from(IDS)), "image_id": picture.id, "category_id": category, "bbox": [x, y, w, h]}
    if not all(map(math.isfinite, (x, y, w, h))):
        return entry, None
    corners = [
        min(max(float(x), 0.0), picture.width),
        min(max(float(y), 0.0), picture.height),
        min(max(float(x) + float(w), 0.0), picture.width),
        min(max(float(y) + float(h), 0.0), picture.height),
    ]
    x1, y1, x2, y2 = (float(np.float32(c)) for c in corners)
    return entry, (x1, y1, x2, y2) if x2 > x1 and y2 > y1 else None


@st.composite
def broken_sets(draw: st.DrawFn, defects: bool) -> BrokenSet:
    """A data set of one to four images, with one defect of FILE_DEFECTS if `defects`."""
    count = draw(st.integers(1, 4))
    ids = draw(st.lists(st.sampled_from(IDS), min_size=count, max_size=count, unique=True))
    names = draw(st.lists(st.sampled_from(NAMES), min_size=count, max_size=count, unique=True))
    chosen = [draw(pictures(id, name)) for id, name in zip(ids, names)]
    category = draw(st.sampled_from(IDS))
    owners = [chosen[0], *draw(st.lists(st.sampled_from(chosen), max_size=5))]
    defect = draw(st.sampled_from(list(FILE_DEFECTS))) if defects else None
    return BrokenSet(chosen, [draw(boxes(owner, category)) for owner in owners], category, defect)
