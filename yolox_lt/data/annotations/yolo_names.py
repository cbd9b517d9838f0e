"""Names of classes beside YOLO's labels: Darknet's obj.names, classes.txt, Label Studio's notes.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from yolox_lt.errors import UserError

NAME_FILES = ("classes.txt", "obj.names", "_darknet.labels", "notes.json")
"""Where tools write them, one a line: LabelImg and Label Studio, CVAT, Roboflow; the last one is json."""


def data_file(folder: Path) -> Path | None:
    """The only .data file of a folder."""
    found = sorted(folder.glob("*.data"))
    return found[0] if len(found) == 1 else None


def names_beside(path: Path) -> tuple[tuple[str, ...], Path | None]:
    """Names of the classes and the file that they stand in: in a folder (of a file: that of the file), in its labels/,
    in the folder of that name beside it, and in the folder above; nothing and None if there is none.
    """
    folder = path if path.is_dir() else path.parent
    near = (folder, folder / "labels", folder.parent / "labels", folder.parent, folder.parent.parent)
    for place in near if folder.parent.name in ("images", "labels") else near[:4]:
        for name in (*NAME_FILES, *(file.name for file in sorted(place.glob("*.names")))):
            if (place / name).is_file():
                names = _read(place / name)
                if names:
                    return names, place / name
    return (), None


def names_of_yaml(path: Path, content: dict[Any, Any], written: dict[Any, Any]) -> dict[int, str]:
    """Class number -> name, from a list or a dict; `written` is `content` with every scalar as text."""
    names, texts = content.get("names"), written.get("names")
    if isinstance(names, str) and (path.parent / names).is_file():
        names = texts = (path.parent / names).read_text(encoding="utf-8-sig").split("\n")
    if isinstance(names, list):
        names, texts = dict(enumerate(names)), dict(enumerate(texts or ()))
    elif isinstance(names, dict) and isinstance(texts, dict):
        texts = dict(zip(names, texts.values()))
    if not isinstance(names, dict) or not names:
        raise UserError(f"{path}: names is {names!r}; list the names of the classes, or give number: name")
    bad = next((key for key in names if not isinstance(key, int) or isinstance(key, bool) or key < 0), None)
    if bad is not None:
        raise UserError(f"{path}: names has the class {bad!r}; classes are numbers from 0")
    count = content.get("nc", len(names))
    if count != len(names):
        raise UserError(f"{path}: nc is {count!r} but names has {len(names)} entries; correct one of them")
    return {key: str((texts or names)[key]).strip() for key in names}


def _read(path: Path) -> tuple[str, ...]:
    """Names of a file, in the order of their numbers; none if it is not such a file."""
    text = path.read_text(encoding="utf-8-sig", errors="replace")
    if path.suffix.lower() != ".json":
        return tuple(line.strip() for line in text.rstrip().splitlines())
    try:
        entries = sorted(json.loads(text)["categories"], key=lambda entry: entry["id"])
        return tuple(entry["name"] for entry in entries) if [e["id"] for e in entries] == [*range(len(entries))] else ()
    except (ValueError, KeyError, TypeError):
        return ()
