"""The page of a run, or of several side by side: one HTML file that needs nothing else, not even a network."""

from __future__ import annotations

import html
import json
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from yolox_lt.report.page.figures import render_figures
from yolox_lt.report.page.page_data import image_data, page_data
from yolox_lt.report.page.run_files import Run, read_run

FILE = "report.html"

MOST_CHARACTERS = 14_500_000
"""Of a page, whose images are cut to fit."""

STYLES = ("page.css",)
SCRIPTS = ("chart.js", "table.js", "category.js", "failing.js", "after_section.js", "page.js")
"""Files of this package, in the order in which they run."""


def write_report(folder: str | Path, others: Sequence[str | Path] = (), path: str | Path | None = None) -> Path:
    """Draw the images of a run, and of those it is compared with, and write its page; see `write_page`."""
    runs = [read_run(each) for each in (folder, *others)]
    for position, run in enumerate(runs):
        render_figures(run, runs[1:] if position == 0 else ())
    return write_page_of(runs, path)


def write_page(folder: str | Path, others: Sequence[str | Path] = (), path: str | Path | None = None) -> Path:
    """Write the page of a run's folder from the files in it.

    Args:
        folder: of the run. others: folders of runs to compare it with.
        path: of the page; FILE in `folder` if not given.

    Returns:
        The path of the page.

    Raises:
        UserError: see `run_files.read_run`.
    """
    return write_page_of([read_run(each) for each in (folder, *others)], path)


def write_page_of(runs: Sequence[Run], path: str | Path | None = None) -> Path:
    """As `write_page`, of runs that were read already."""
    target = runs[0].folder / FILE if path is None else Path(path)
    temporary = target.with_name(f".{target.name}")
    temporary.write_text(page_text(runs), encoding="utf-8")
    temporary.replace(target)
    return target


def page_text(runs: Sequence[Run]) -> str:
    """The whole page."""
    content = page_data(runs)
    room = max(MOST_CHARACTERS - len(embedded(content)), 0)
    images, content["pictures_left_out"] = image_data(runs, room)
    parts = {
        "TITLE": html.escape(content["title"]),
        "STYLE": "\n".join(map(_package_file, STYLES)),
        "DATA": embedded(content),
        "PICTURES": embedded(images),
        "SCRIPT": "\n".join(map(_package_file, SCRIPTS)),
    }
    text = _package_file("page.html")
    # Cut at the marks once: what is put in may contain anything, the marks too.
    pieces = []
    for name, part in parts.items():
        before, text = text.split(f"@{name}@", 1)
        pieces += [before, part]
    return "".join([*pieces, text])


def embedded(content: Any) -> str:
    """Json that cannot end the script element it stands in, whatever a category is called."""
    return json.dumps(content, separators=(",", ":"), ensure_ascii=False, allow_nan=False).replace("<", "\\u003c")


def _package_file(name: str) -> str:
    return resources.files("yolox_lt.report.page").joinpath(name).read_text(encoding="utf-8")
