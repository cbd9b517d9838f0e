"""The report page of a run with LVIS's number of categories, in headless Chromium.

    python -m benchmarks.report_page [--categories 1203] [--epochs 60] [--repeats 5]

Chromium and its driver have to be installed (Debian: apt-get install chromium chromium-driver). The run is made up,
with as many images of every category as a real one has. A time ends with the second frame after the click or the
change of a filter: up to 33 ms of it are waiting for frames.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.report.chromium import installed, started
from tests.report.made_run import make_run
from yolox_lt.errors import UserError
from yolox_lt.report.page.category_images import image_plan
from yolox_lt.report.page.page import write_page

AFTER = """const done = arguments[arguments.length - 1];
const start = performance.now();
%s
requestAnimationFrame(() => requestAnimationFrame(() => done(performance.now() - start)));"""

SORT = "[...document.querySelectorAll('#table th button')].find((b) => b.textContent === arguments[0]).click();"
FILTER = """const box = document.getElementById(arguments[0]);
box.value = arguments[1];
box.dispatchEvent(new Event(arguments[2]));"""
OPEN = "document.querySelector('#table tbody tr:not([hidden])').click();"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--categories", type=int, default=1203)
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--repeats", type=int, default=5, help="of every action")
    args = parser.parse_args()
    if not installed():
        raise UserError("Chromium is not there; apt-get install chromium chromium-driver")
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        make_run(run, args.categories, args.epochs, images=image_plan(args.categories)[0])
        start = time.perf_counter()
        page = write_page(run)
        seconds = time.perf_counter() - start
        print(f"{args.categories:,} categories, {args.epochs} epochs: {page.stat().st_size / 1e6:.1f} MB")
        print(f"written in {seconds:.1f} s (charts as images not counted)")
        with started(Path(folder) / "profile") as browser:
            start = time.perf_counter()
            browser.get(page.as_uri())
            print(f"{browser.capabilities['browserVersion']}: opened in {time.perf_counter() - start:.2f} s")
            measure(browser, args.repeats)


def measure(browser: Any, repeats: int) -> None:
    """Print median and worst time of every action."""

    def times(code: str, *values: str) -> list[float]:
        return [browser.execute_async_script(AFTER % code, *values) for _ in range(repeats)]

    def show(what: str, found: list[float]) -> None:
        print(f"{what}: median {statistics.median(found):.0f} ms, most {max(found):.0f} ms")

    heads = browser.execute_script("return [...document.querySelectorAll('#table th')].map((h) => h.textContent)")
    show(f"sort by each of {len(heads)} columns", [t for head in heads for t in times(SORT, head)])
    found = [t for word in ("_9", "") for t in times(FILTER, "search", word, "input")]
    show("filter by text", found + [t for group in ("r", "") for t in times(FILTER, "group", group, "change")])
    show("open a category", times(OPEN))


if __name__ == "__main__":
    main()
