"""Bring docs/results.md up to date with the csv files of docs/results.

    python -m studies.page                       # tables and figures of the published rows
    python -m studies.page --from YOLOX_outputs/study   # first publish what a study has found
    python -m studies.page --print --from YOLOX_outputs/study   # only print its tables, and whether its runs
                                                                         # agree with the published ones

A table of the page stands between two comments, `<!-- table NAME -->` and `<!-- end -->`; the text around is written
by hand.
"""

from __future__ import annotations

import argparse
import re
import shutil
from pathlib import Path

from studies.figures import render_all
from studies.records import COURSES, EARLIER, REGIME, RUNS, read_rows
from studies.tables import TABLES, Rows

DOCS = Path(__file__).resolve().parents[1] / "docs"
PAGE, DATA, IMAGES = DOCS / "results.md", DOCS / "results", DOCS / "images"
BLOCK = re.compile(r"(<!-- table ([\w -]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def render(text: str, runs: Rows, regime: Rows, earlier: Rows) -> str:
    """The page with every table made again."""
    return BLOCK.sub(lambda found: f"{found[1]}{TABLES[found[2]](runs, regime, earlier)}\n{found[3]}", text)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--from", dest="folder", type=Path, help="folder of a study whose rows are to be published")
    options.add_argument("--print", action="store_true", help="print the tables and change nothing")
    args = options.parse_args()
    folder = args.folder or DATA
    runs, courses, regime = (read_rows(folder / name) for name in (RUNS, COURSES, REGIME))
    if args.print:  # a study in its own folder is compared with the published rows
        earlier = read_rows(DATA / (EARLIER if args.folder is None else RUNS))
        for name, make in TABLES.items():
            print(f"\n{name}\n\n{make(runs, regime, earlier)}")
        return
    if args.folder is not None:
        DATA.mkdir(exist_ok=True)
        for name in (RUNS, COURSES, REGIME):
            if (folder / name).is_file():
                shutil.copyfile(folder / name, DATA / name)
    render_all(IMAGES, runs, courses, regime)
    PAGE.write_text(render(PAGE.read_text(encoding="utf-8"), runs, regime, read_rows(DATA / EARLIER)), encoding="utf-8")


if __name__ == "__main__":
    main()
