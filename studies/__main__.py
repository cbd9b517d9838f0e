"""Run a study of the losses, continue where it stopped, and write its tables.

    python -m studies --set cpu --jobs 2                  # make study: two cores, twenty minutes
    python -m studies --set full                          # make study-full: one GPU, hours
    python -m studies --set full-scans --only "EFL, s 8"
    python -m studies --set cpu --list

Every finished run is a row of runs.csv in the folder of the study and is not repeated.
"""

from __future__ import annotations

import argparse
import os
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any

os.environ.setdefault("GOMP_SPINCOUNT", "10000")

import torch
from loguru import logger

from studies.grid import EXP_FILE, Case, Set, Settings
from studies.records import COURSES, RUNS, append_rows, key_of, read_rows
from studies.sets import SETS, chosen
from yolox_lt.errors import UserError
from yolox_lt.exp import get_exp
from yolox_lt.train.callbacks.log import setup_console
from yolox_lt.train.run_lock import run_lock

FOLDER = Path("YOLOX_outputs/study")


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--set", default="cpu", choices=[*SETS, "full"], help="which runs (%(default)s)")
    options.add_argument("--only", action="append", help="cases by name; may be given several times")
    options.add_argument("--seeds", type=int, help="at most this many seeds of each case")
    options.add_argument("--jobs", type=int, default=1, help="runs at a time, on a CPU one core each (%(default)s)")
    options.add_argument("--device", choices=("cpu", "cuda"), help="a GPU if there is one")
    options.add_argument("--folder", type=Path, default=FOLDER, help="of the study (%(default)s)")
    options.add_argument("--list", action="store_true", help="print the runs and whether they are done")
    args = options.parse_args()
    device = args.device or ("cuda" if torch.cuda.is_available() else "cpu")
    if args.list:
        for name, case, seed, _, state in runs_of(args):
            print(f"{name:14} {case.name:32} seed {seed}  {state}")
        return
    try:
        with run_lock(args.folder, "another --folder"):  # two that replace one csv file lose rows
            todo = [job for *job, state in runs_of(args) if state == "not run"]
            if not todo:
                logger.info("nothing to run; see --list")
                return
            logger.info(f"{len(todo)} runs on {device}, {args.jobs} at a time; rows go to {args.folder / RUNS}")
            execute(todo, args.folder, device, args.jobs)
    except UserError as error:
        raise SystemExit(f"error: {error}") from error


def runs_of(args: argparse.Namespace) -> list[tuple[str, Case, int, Settings, str]]:
    """The runs that the command asks for, as `waiting_runs` has them."""
    done = {key_of(row) for row in read_rows(args.folder / RUNS)}
    return waiting_runs(chosen(args.set), done, args.only, args.seeds)


def waiting_runs(
    sets: dict[str, Set], done: set[tuple[str, str, str]], only: list[str] | None, seeds: int | None
) -> list[tuple[str, Case, int, Settings, str]]:
    """(set, case, seed, settings of the set, state) of the runs asked for; state: done, not run, or a reason."""
    known = get_exp(EXP_FILE).attributes()
    listed = []
    for name, found in sets.items():
        for case in found.cases:
            if only and case.name not in only:
                continue
            for seed in range(min(case.seeds, seeds or case.seeds)):
                state = "done" if (name, case.name, str(seed)) in done else "not run"
                if state == "not run" and case.needs is not None and case.needs not in known:
                    state = f"not run: this version has no setting {case.needs}"
                listed.append((name, case, seed, found.settings, state))
    return listed


def execute(todo: list[list[Any]], folder: Path, device: str, jobs: int) -> None:
    """Starts first, then the runs, second trainings last; each row is written when its run ends."""
    from studies.worker import prepare, start_job, train_job

    starts = dict.fromkeys(case.start for _, case, _, _ in todo if case.start is not None)
    with ProcessPoolExecutor(jobs, get_context("spawn"), prepare, (device,)) as pool:
        for key in starts:
            if not (folder / f"start_{key}.pth").is_file():
                append_rows(folder / RUNS, [pool.submit(start_job, key, folder, device).result()])
        for is_second in (False, True):  # those that start from another run's end come last
            part = [job for job in todo if (job[1].after is not None) is is_second]
            waiting = {pool.submit(train_job, *job, folder, device): job for job in part}
            for number, future in enumerate(as_completed(waiting), 1):
                row, course = future.result()
                append_rows(folder / RUNS, [row])
                append_rows(folder / COURSES, course)
                logger.info(
                    f"{number}/{len(part)} {row['set']}: {row['case']}, seed {row['seed']}: AP {row['AP_300']:.1f}, "
                    f"APr {row['APr_300']:.1f}, {row['processor_seconds']:.0f} s of processor"
                )


if __name__ == "__main__":
    setup_console()
    main()
