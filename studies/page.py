"""Bring docs/results.md up to date with the csv files of docs/results.

    python -m studies.page                       # tables and figures of the published rows
    python -m studies.page --from YOLOX_outputs/study   # first publish what a study has found
    python -m studies.page --print --from YOLOX_outputs/study   # only print its tables, and whether its runs
                                                                         # agree with the published ones

A table of the page stands between two comments, `<!-- table NAME -->` and `<!-- end -->`; the text around is written
by hand. A table of more than 25 rows is a csv file in docs/results; the page links it and shows some of its rows.
"""

from __future__ import annotations

import argparse
import re
import shutil
from pathlib import Path

from studies.cells import Rows, Table
from studies.figures import render_all
from studies.records import COURSES, EARLIER, PUBLISHED, REGIME, RUNS, read_rows
from studies.tables import LIMIT, LONG, TABLES

DOCS = Path(__file__).resolve().parents[1] / "docs"
PAGE, DATA, IMAGES = DOCS / "results.md", PUBLISHED, DOCS / "images"
BLOCK = re.compile(r"(<!-- table ([\w -]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def block(name: str, table: Table | str) -> str:
    """What the page holds of a table: all of it, or the link to its csv file and the rows that `LONG` names."""
    if isinstance(table, str) or len(table.body) <= LIMIT:
        return str(table)
    long = LONG[name]
    file = long.source or f"{name}.csv"
    line = f"[results/{file}](results/{file}): {long.says}; {len(table.body)} rows."
    if long.keep is None:
        return line
    part = table.rows_where(long.keep)
    return f"{line} {long.shown}:\n\n{part}" if part.body else f"{line} {long.shown}: none."


def render(text: str, runs: Rows, regime: Rows, earlier: Rows) -> str:
    """The page with every table made again."""
    return BLOCK.sub(
        lambda found: f"{found[1]}{block(found[2], TABLES[found[2]](runs, regime, earlier))}\n{found[3]}", text
    )


def long_tables(runs: Rows, regime: Rows, earlier: Rows) -> dict[str, str]:
    """File name -> content of the csv files of tables too long for the page."""
    tables = {name: TABLES[name](runs, regime, earlier) for name, long in LONG.items() if long.source is None}
    return {f"{name}.csv": table.csv() for name, table in tables.items() if isinstance(table, Table)}


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
    earlier = read_rows(DATA / EARLIER)
    for name, content in long_tables(runs, regime, earlier).items():
        (DATA / name).write_text(content, encoding="utf-8")
    PAGE.write_text(render(PAGE.read_text(encoding="utf-8"), runs, regime, earlier), encoding="utf-8")


if __name__ == "__main__":
    main()
