"""Columns of several annotation files as one; categories merged or left out; images left out.

Everything here works on what `build_columns` returns, so it does not matter what format the files had.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
from loguru import logger
from numpy.typing import NDArray

from yolox_lt.data.annotations.annotation_columns import RAGGED, fill_defaults, rows_per
from yolox_lt.data.annotations.json_text import decode_json
from yolox_lt.data.columns import Bools, Columns, Ints, distinct, look_up, offsets_of, pack_strings, run_positions
from yolox_lt.errors import UserError

REST = "*"
"""Key of a mapping for all categories that it does not name."""


def strings(columns: Columns, name: str) -> list[str]:
    """What `pack_strings` packed."""
    text, ends = columns[f"{name}_bytes"].tobytes(), columns[f"{name}_offsets"].tolist()
    return [text[a:b].decode() for a, b in pairwise(ends)]


def take_images(columns: Columns, positions: Ints) -> Columns:
    """The images at `positions`, in that order, with everything that belongs to them."""
    columns = fill_defaults(columns)
    taken = columns | {name: columns[name][positions] for name in rows_per("image")}
    for offsets, names in RAGGED.items():
        counts = np.diff(columns[offsets])[positions]
        rows = np.repeat(columns[offsets][:-1][positions], counts) + run_positions(counts)
        taken |= {offsets: offsets_of(counts), **{name: columns[name][rows] for name in names}}
    return taken


def in_folder(columns: Columns, folder: str) -> Columns:
    """The images all in one folder, whatever folder their names had."""
    names = [f"{folder}/{name.rpartition('/')[2]}" if name else "" for name in strings(columns, "file_name")]
    return columns | pack_strings(names, "file_name")


def keep_images(columns: Columns, subset: str, source: str) -> Columns:
    """Only the images whose path begins with `subset`, or whose ids stand in the text file `subset`, one a line.

    Raises:
        UserError: no image is left; a line that is no id of an image.
    """
    path = Path(subset)
    if path.is_file():
        words = path.read_text(encoding="utf-8").split()
        bad = next((word for word in words if not word.isascii() or not word.lstrip("-").isdigit()), None)
        if bad is not None:
            raise UserError(f"{path}: {bad!r} is no image id; write one id a line")
        wanted, known = look_up(np.array([int(word) for word in words], np.int64), columns["image_ids"])
        if not known.all():
            raise UserError(f"{path}: {source} has no image with id {words[int(np.argmin(known))]}; correct the list")
        positions = distinct(wanted)
    else:
        names = strings(columns, "file_name")
        positions = np.array([i for i, name in enumerate(names) if name.startswith(subset)], np.int64)
    if not len(positions):
        raise UserError(f"{source}: no image belongs to the subset {subset!r}; give the beginning of their paths")
    return take_images(columns, positions)


def concatenate(parts: Sequence[Columns], sources: Sequence[str]) -> Columns:
    """Several files as one, in their order.

    Categories are the same if their names are. Their ids stay if the files agree, else they become 1, 2, ... in the
    order of first appearance; frequencies stay if the files agree. Image and annotation ids stay if none occurs twice,
    else they become 1, 2, ... Every image counts as searched for all categories, unless its file has federated lists.

    Raises:
        UserError: a name that a file uses for two categories; a hierarchy of categories.
    """
    parts = [fill_defaults(part) for part in parts]
    for part, source in zip(parts, sources):
        _refuse_hierarchy(part, source)
    names, ids, frequencies = _union(parts, sources)
    order = {name: label for label, name in enumerate(names)}
    labels_of = [np.array([order[name] for name in strings(part, "category_name")], np.int64) for part in parts]
    joined: Columns = {}
    for offsets, members in RAGGED.items():
        joined[offsets] = offsets_of(np.concatenate([np.diff(part[offsets]) for part in parts]))
        for name in members:
            columns = [part[name] for part in parts]
            if name.endswith("labels"):
                columns = [table[column] for table, column in zip(labels_of, columns)]
            joined[name] = np.concatenate(columns)
    image_ids = np.concatenate([part["image_ids"] for part in parts])
    if len(distinct(image_ids)) < len(image_ids):
        logger.warning(f"{' + '.join(sources)}: image ids occur in several files; images are numbered from 1 again")
        image_ids = np.arange(1, len(image_ids) + 1)
    if len(distinct(joined["annotation_ids"])) < len(joined["annotation_ids"]):
        joined["annotation_ids"] = np.arange(1, len(joined["annotation_ids"]) + 1)
    federated = [bool(part["federated"][0]) for part in parts]
    without = [int(part["problem:images without federated lists"][0]) for part in parts]
    if any(federated):  # the files without any lists have as many images without
        without = [n if f else len(part["image_ids"]) for n, f, part in zip(without, federated, parts)]
    unknown = sum(part["problem:unknown category in federated lists"][0] for part in parts)
    joined |= {
        "image_ids": image_ids,
        "sizes": np.concatenate([part["sizes"] for part in parts]),
        "category_ids": ids,
        "frequencies": frequencies,
        **pack_strings(names, "category_name"),
        **pack_strings([note for part in parts if "note_bytes" in part for note in strings(part, "note")], "note"),
        **_flat(len(names)),
        "federated": np.array([any(federated)]),
        "heeds_ignore": np.array([any(part["heeds_ignore"][0] for part in parts)]),
        "problem:images without federated lists": np.array([sum(without)]),
        "problem:unknown category in federated lists": np.array([unknown]),
    }
    return take_images(joined, np.argsort(image_ids))


def _union(parts: Sequence[Columns], sources: Sequence[str]) -> tuple[list[str], Ints, NDArray[np.str_]]:
    """Names, ids and frequencies of the categories of all files, in ascending order of ids."""
    ids_of: dict[str, set[int]] = {}
    groups_of: dict[str, set[str]] = {}
    for part, source in zip(parts, sources):
        names = strings(part, "category_name")
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise UserError(f"{source}: two categories are called {twice!r}; files are joined by name: rename one")
        groups = part["frequencies"].tolist() or [""] * len(names)
        for name, category_id, group in zip(names, part["category_ids"].tolist(), groups):
            ids_of.setdefault(name, set()).add(category_id)
            groups_of.setdefault(name, set()).add(group)
    names = list(ids_of)
    given = [next(iter(found)) for found in ids_of.values()]
    agreed = all(len(found) == 1 for found in ids_of.values()) and len(set(given)) == len(names)
    ids = np.array(given if agreed else range(1, len(names) + 1), np.int64)
    group_list = [next(iter(found)) if len(found) == 1 else "" for found in groups_of.values()]
    order = np.argsort(ids)
    frequencies = np.array(group_list if all(group_list) else [], "<U1")
    return [names[i] for i in order], ids[order], frequencies[order] if len(frequencies) else frequencies


def read_mapping(path: Path) -> dict[str, str | None]:
    """A json object: name of a category -> its new name, or null to leave its boxes out; "*" is all others.

    Raises:
        UserError: no such file, no json object of names, nothing left.
    """
    mapping = decode_json(path, dict[str, str | None])
    if not any(mapping.values()):
        raise UserError(f"{path}: leaves no category; map at least one name to a name")
    return mapping


def map_categories(columns: Columns, mapping: dict[str, str | None], source: str, path: str) -> Columns:
    """The categories that `mapping` makes of those of a file, with ids 1, 2, ... in the order in which it names them.

    A merged category is verified absent from an image if all its parts are, and not exhaustive if it is there and one
    part is not exhaustive or not verified. Frequencies stay if no categories are merged. `path`: of the mapping.

    Raises:
        UserError: a category that the mapping does not know; a hierarchy of categories.
    """
    columns = fill_defaults(columns)
    _refuse_hierarchy(columns, source)
    names = strings(columns, "category_name")
    missing = [name for name in names if name not in mapping and REST not in mapping]
    if missing:
        raise UserError(
            f"{path}: does not say what becomes of {', '.join(map(repr, missing[:3]))}"
            f"{', ...' if len(missing) > 3 else ''} of {source}; map them to a name or null, or add the key {REST!r}"
        )
    unused = [name for name in mapping if name != REST and name not in names]
    if unused:
        logger.warning(f"{path}: {len(unused)} names are no categories of {source}: {', '.join(unused[:3])}")
    targets = list(dict.fromkeys(name for name in mapping.values() if name))
    place = {name: k for k, name in enumerate(targets)}
    table = np.array([place.get(mapping.get(name, mapping.get(REST)) or "", -1) for name in names], np.int64)
    counts = np.bincount(table[table >= 0], minlength=len(targets))  # categories of the file in each new one
    frequencies = columns["frequencies"]
    if len(frequencies) and (counts == 1).all():
        frequencies = frequencies[np.argsort(table)[(table < 0).sum() :]]
    else:
        frequencies = np.array([], "<U1")
    return (
        columns
        | _mapped_boxes(columns, table)
        | _mapped_lists(columns, table, counts)
        | {"category_ids": np.arange(1, len(targets) + 1), "frequencies": frequencies}
        | pack_strings(targets, "category_name")
        | _flat(len(targets))
    )


def _refuse_hierarchy(columns: Columns, source: str) -> None:
    if len(columns["ancestor_labels"]):
        raise UserError(
            f"{source}: its categories have a hierarchy, which cannot be joined or mapped; use the file as it is"
        )


def _flat(count: int) -> Columns:
    """Columns of `count` categories without keys and hierarchy."""
    none = np.zeros(0, np.int64)
    return {
        **pack_strings([""] * count, "category_key"),
        "ancestor_offsets": np.zeros(count + 1, np.int64),
        "ancestor_labels": none,
    }


def _runs(offsets: Ints) -> Ints:
    """Image of every row."""
    return np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))


def _mapped_boxes(columns: Columns, table: Ints) -> Columns:
    labels = table[columns["labels"]]
    keep = labels >= 0
    image = _runs(columns["box_offsets"])[keep]
    kept = {name: columns[name][keep] for name in RAGGED["box_offsets"]}
    num_images = len(columns["image_ids"])
    return kept | {"labels": labels[keep], "box_offsets": offsets_of(np.bincount(image, minlength=num_images))}


def _mapped_lists(columns: Columns, table: Ints, counts: Ints) -> Columns:
    """The federated lists of the new categories; see `map_categories`."""
    num_images, old, new = len(columns["image_ids"]), len(table), len(counts)

    def pairs(offsets: str, labels: str) -> Ints:
        """Distinct codes image * old + label, of categories that stay."""
        label = columns[labels]
        return distinct((_runs(columns[offsets]) * old + label)[table[label] >= 0])

    def renamed(codes: Ints) -> Ints:
        """Codes image * new + label, one for every old one."""
        return codes // old * new + table[codes % old]

    present = pairs("box_offsets", "labels")
    absent = pairs("negative_offsets", "negative_labels")
    partial = distinct(renamed(pairs("not_exhaustive_offsets", "not_exhaustive_labels")))
    there = distinct(renamed(present))
    absent_codes, absent_parts = np.unique(renamed(absent), return_counts=True)
    negative = absent_codes[(absent_parts == counts[absent_codes % new]) & ~_among(absent_codes, there)]
    known_codes, known_parts = np.unique(renamed(distinct(np.concatenate([present, absent]))), return_counts=True)
    unverified = known_codes[known_parts < counts[known_codes % new]]
    not_exhaustive = there[_among(there, partial) | _among(there, unverified)]
    if not columns["federated"][0]:
        not_exhaustive = not_exhaustive[:0]
    positive = distinct(renamed(pairs("positive_offsets", "positive_labels")))
    result: Columns = {}
    for name, codes in (("negative", negative), ("not_exhaustive", not_exhaustive), ("positive", positive)):
        result[f"{name}_labels"] = codes % new
        result[f"{name}_offsets"] = offsets_of(np.bincount(codes // new, minlength=num_images))
    return result


def _among(codes: Ints, known: Ints) -> Bools:
    return look_up(codes, known)[1]
