"""What a glyph data set is made of: its options, their limits, and the count profile they ask for."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from yolox_lt.data.glyphs.counts import frequency_group, scaled_counts, zipf_counts
from yolox_lt.errors import UserError

VERSION = 1  # of the drawing; a folder of another version is refused
MIN_OBJECT = 8  # pixels


@dataclass(frozen=True)
class GlyphSpec:
    """What a glyph data set is made of. Lengths in pixels.

    num_categories: at least 3.
    train_images, val_images: number of images. Every category is in equally many of the val images.
    image_size: (height, width), or one number for a square.
    objects_per_image: fewest and most.
    object_size: smallest and largest longer side of a glyph before rotation; None: 14 to 60 for images of 128.
    min_val_images: val images that every category must be in; fewer are refused.
    profile: "zipf" (30 % rare, 40 % common, 30 % frequent by the rule of LVIS) or "lvis" (as in `categories_json`).
    categories_json: for "lvis", a path or dict whose "categories" hold image_count and, optionally, frequency.
    seed: of everything random, 0 or more.
    """

    num_categories: int = 30
    train_images: int = 2400
    val_images: int = 400
    image_size: tuple[int, int] = (128, 128)
    objects_per_image: tuple[int, int] = (3, 8)
    object_size: tuple[float, float] | None = None
    min_val_images: int = 3
    profile: str = "zipf"
    categories_json: str | Path | Mapping[str, Any] | None = None
    seed: int = 0

    @property
    def object_range(self) -> tuple[float, float]:
        """Smallest and largest object in pixels."""
        unit = min(self.image_size) / 128
        return self.object_size or (max(MIN_OBJECT, 14 * unit), 60 * unit)

    @property
    def mean_objects(self) -> float:
        """Expected objects per image."""
        return sum(self.objects_per_image) / 2


@dataclass(frozen=True)
class Tail:
    """The count profile: image_counts int64 [C] and group ("r", "c", "f") of each slot, most frequent first."""

    image_counts: np.ndarray
    groups: list[str]


def glyph_spec(options: Mapping[str, Any]) -> GlyphSpec:
    """A checked specification from options by name; raises UserError."""
    known = [field.name for field in fields(GlyphSpec)]
    for name in options:
        if name not in known:
            raise UserError(f"glyphs: unknown option {name!r}; known are {', '.join(known)}.")
    values: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in options.items()
    }
    if isinstance(values.get("image_size"), int):
        values["image_size"] = (values["image_size"],) * 2
    spec = GlyphSpec(**values)
    try:
        demands = option_demands(spec)
    except (TypeError, ValueError) as error:
        raise UserError(f"glyphs: an option of {values} has the wrong type ({error}); see GlyphSpec.") from error
    for name, (met, demand) in demands.items():
        if not met:
            raise UserError(f"glyphs: {name} is {getattr(spec, name)!r}; it must be {demand}.")
    return spec


def option_demands(spec: GlyphSpec) -> dict[str, tuple[bool, str]]:
    """For each option whether it is within its limits, and these in words."""
    smallest, largest = spec.object_range
    fewest, most = spec.objects_per_image
    return {
        "num_categories": (spec.num_categories >= 3, "at least 3"),
        "train_images": (spec.train_images >= 1, "at least 1"),
        "val_images": (spec.val_images >= 1, "at least 1"),
        "image_size": (min(spec.image_size) >= 32, "at least 32 pixels"),
        "objects_per_image": (1 <= fewest <= most, "(fewest, most) with 1 <= fewest <= most"),
        "object_size": (
            # Turned by 20 degrees a glyph spans up to 1.28 of its longer side.
            MIN_OBJECT <= smallest <= largest <= min(spec.image_size) / 1.35,
            f"(smallest, largest), from {MIN_OBJECT} pixels to the shorter side of the image / 1.35",
        ),
        "min_val_images": (spec.min_val_images >= 1, "at least 1"),
        "profile": (spec.profile in ("zipf", "lvis"), '"zipf" or "lvis"'),
        "categories_json": (
            (spec.categories_json is not None) == (spec.profile == "lvis"),
            'given with profile "lvis", and only then: a file with image_count per category',
        ),
        "seed": (spec.seed >= 0, "0 or more"),
    }


def glyph_tail(spec: GlyphSpec) -> Tail:
    """The long tail a specification asks for. Raises UserError when its training images cannot hold it.

    Groups of the Zipf profile follow from the counts; those of "lvis" are the table's own, because scaled-down counts
    would make every category rare.
    """
    if spec.profile == "zipf":
        counts = zipf_counts(spec.num_categories, spec.train_images, spec.mean_objects)
        return Tail(counts, [frequency_group(count) for count in counts.tolist()])
    table = read_categories(spec.categories_json)
    full = np.array([category["image_count"] for category in table], np.int64)
    counts, chosen = scaled_counts(full, spec.num_categories, spec.train_images, spec.mean_objects)
    return Tail(counts, [table[i].get("frequency") or frequency_group(int(full[i])) for i in chosen.tolist()])


def read_categories(source: str | Path | Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """The "categories" of a LVIS file or dict, each with an image_count of 1 or more; raises UserError."""
    name = "categories_json" if isinstance(source, Mapping) else str(source)
    try:
        content = source if isinstance(source, Mapping) else json.loads(Path(str(source)).read_text(encoding="utf-8"))
        table = list(content["categories"])
        usable = bool(table) and all(category["image_count"] >= 1 for category in table)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{name}: cannot be read as a category table ({error!r}); give a LVIS annotation file."
        ) from error
    if not usable:
        raise UserError(f"{name}: a category has an image_count below 1; give the table of a training set.")
    return table


def fingerprint(spec: GlyphSpec, tail: Tail) -> dict[str, Any]:
    """What decides the bytes of a data set, as plain json values. The count table stands as a digest."""
    values = asdict(replace(spec, categories_json=None)) | {"object_size": spec.object_range, "version": VERSION}
    digest = hashlib.sha256(json.dumps([tail.image_counts.tolist(), tail.groups]).encode()).hexdigest()
    if spec.profile == "lvis":
        values["categories_json"] = digest
    return json.loads(json.dumps(values))
