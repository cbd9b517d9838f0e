"""Kill small training runs again and again, resume them, and compare them bit by bit with an undisturbed run.

    python -m benchmarks.kills [--kills 50] [--ranks 1 2] [--seed 0]

Every training is the command `train` in a process of its own (two for two ranks, with gloo, as torchrun starts them),
forked from this one, which has imported everything: a start costs no import. Kills are SIGKILL to all processes of the
run; half of them at random moments, half where a run is in the middle of something (benchmarks/kill_moments.py). Beside
them come signals that a run may answer: SIGTERM, SIGINT and SIGUSR1 at random moments; it has to save and to end with
status 75. Compared are latest.pth (weights, average, statistic, optimiser, metrics, random states), best.pth,
epoch_N.pth, metrics.csv, metrics.jsonl, balance.npz and per_category.csv, without measured times and memory. The report
page is left out: it costs more than such a training, and is made again from these files at any time.
"""

from __future__ import annotations

import argparse
import itertools
import os
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

# A forked process cannot use the threads of its parent.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np

from benchmarks.kill_moments import MOMENTS, Occurrence
from benchmarks.run_difference import differences
from yolox_lt.commands import run_command
from yolox_lt.data.glyphs.make import ensure_glyphs
from yolox_lt.distributed.processes import free_port
from yolox_lt.distributed.signals import EXIT_STATUS

EXP = Path(__file__).resolve().parents[1] / "exps/glyphs/eqfl.py"
DATA: dict[str, Any] = {"num_categories": 4, "train_images": 150, "val_images": 12, "image_size": 64}
SETTINGS = (
    "num_classes 4 glyph_image_size 64 glyph_train_images 150 glyph_val_images 12 depth 0.33 width 0.125 "
    "input_size (64,64) test_size (64,64) batch_size 4 max_epoch 3 max_iter 4 no_aug_epochs 1 eval_interval 1 "
    "print_interval 1 checkpoint_interval 2 keep_checkpoints 2 accumulate 1 seed 3"
)
STOPS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
ON_RESUME = "while rows are cut on resume"
AT_RANDOM = "at a random moment"
LIMIT = 600.0  # seconds of one training


@dataclass
class Experiment:
    """One kind of run. folder: for everything it writes. ranks: processes. workers: loader processes of each."""

    folder: Path
    ranks: int
    workers: int = 0

    def words(self, output: Path) -> list[str]:
        """Command line of a run with its folder below `output`; it resumes where there is something to resume."""
        resume = ["--resume"] if (output / "run/latest.pth").exists() else []
        places = ["data_dir", str(self.folder / "data"), "output_dir", str(output)]
        start = ["-f", str(EXP), "-expn", "run", "--device", "cpu", "-d", "1", *resume]
        return [*start, *SETTINGS.split(), *places, "data_num_workers", str(self.workers)]

    def start(self, output: Path, moment: str = AT_RANDOM, occurrence: int = 1) -> list[int]:
        """Fork the ranks of a run; returns their process ids, the first of which is also that of their group."""
        output.mkdir(parents=True, exist_ok=True)
        words, port = self.words(output), free_port()
        processes: list[int] = []
        for rank in range(self.ranks):
            process = os.fork()
            if process == 0:
                os.setpgid(0, processes[0] if processes else 0)
                run_rank(rank, self.ranks, port, words, output / f"rank_{rank}.log", moment, occurrence)
            processes.append(process)
            os.setpgid(process, processes[0])
        return processes


def run_rank(rank: int, ranks: int, port: int, words: list[str], log: Path, moment: str, occurrence: int) -> None:
    """In the forked process: the command, and the end of the process."""
    status = 1
    try:
        file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(file, 1)
        os.dup2(file, 2)
        if ranks > 1:
            os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(ranks), LOCAL_WORLD_SIZE=str(ranks))
            os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
        leave_out_report()
        if rank == 0 and moment in MOMENTS:
            MOMENTS[moment][0](Occurrence(occurrence))
        run_command("train", words)
        status = 0
    except SystemExit as error:
        status = int(error.code or 0) if isinstance(error.code, int | None) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def leave_out_report() -> None:
    from yolox_lt.train.callbacks.report import ReportCallback

    ReportCallback.write_report = lambda self: None  # type: ignore[method-assign]


def wait(processes: list[int], seconds: float) -> list[int | None]:
    """Statuses of the processes, negative for a signal, None for one that still runs after `seconds`."""
    statuses: dict[int, int] = {}
    end = time.monotonic() + seconds
    while len(statuses) < len(processes):
        for process in processes:
            if process not in statuses:
                ended, status = os.waitpid(process, os.WNOHANG)
                if ended:
                    statuses[process] = os.waitstatus_to_exitcode(status)
        if time.monotonic() > end:
            break
        time.sleep(0.005)
    return [statuses.get(process) for process in processes]


def end(processes: list[int], statuses: list[int | None], number: signal.Signals) -> list[int]:
    """Signal what still runs, and the statuses of all."""
    running = [p for p, s in zip(processes, statuses) if s is None]
    if running:
        os.killpg(processes[0], number)
    later = dict(zip(running, wait(running, LIMIT)))
    if None in later.values():
        os.killpg(processes[0], signal.SIGKILL)
        raise SystemExit(f"a run did not end within {LIMIT:g} s of {number.name}")
    return [s if s is not None else int(later[p] or 0) for p, s in zip(processes, statuses)]


@dataclass
class Result:
    """kills: by moment. before: of them before the first checkpoint. whole: with a readable latest.pth after it.
    stops: signals answered with status 75, by name. runs: finished. wrong: differences to the undisturbed run.
    """

    kills: Counter[str] = field(default_factory=Counter)
    before: Counter[str] = field(default_factory=Counter)
    whole: Counter[str] = field(default_factory=Counter)
    stops: Counter[str] = field(default_factory=Counter)
    runs: int = 0
    wrong: list[str] = field(default_factory=list)

    def killed(self, moment: str, output: Path) -> None:
        from yolox_lt.checkpoint import load_checkpoint

        self.kills[moment] += 1
        if (output / "run/latest.pth").exists():
            load_checkpoint(output / "run/latest.pth")
            self.whole[moment] += 1
        else:
            rows = output / "run/metrics.jsonl"
            assert not rows.exists() or not rows.read_text(), "steps were done before the first checkpoint"
            self.before[moment] += 1


def disturb(experiment: Experiment, kills: int, rng: np.random.Generator) -> Result:
    """`kills` kills and some stops over as many runs as they need, each compared with the undisturbed one."""
    result = Result()
    straight = experiment.folder / f"straight_{experiment.ranks}"
    begin = time.monotonic()
    statuses = wait(experiment.start(straight), LIMIT)
    duration = time.monotonic() - begin
    if any(statuses):
        raise SystemExit(f"the undisturbed run failed:\n{(straight / 'rank_0.log').read_text()}")
    moments = itertools.cycle([x for name in MOMENTS for x in (name, AT_RANDOM)])
    stops = itertools.cycle(STOPS)
    attempts = 0
    while result.kills.total() < kills:
        output = experiment.folder / f"disturbed_{experiment.ranks}_{result.runs}"
        finished = False
        while not finished:
            attempts += 1
            enough = result.kills.total() >= kills
            if not enough and attempts % 4 == 0:
                finished = stop_once(experiment, output, next(stops), rng.uniform(0, duration), result)
            else:
                moment = next(moments) if not enough else AT_RANDOM
                if moment == ON_RESUME and not (output / "run/latest.pth").exists():
                    moment = AT_RANDOM
                seconds = LIMIT if enough or moment != AT_RANDOM else rng.uniform(0, 0.8 * duration)
                finished = kill_once(experiment, output, moment, seconds, rng, result)
        result.runs += 1
        result.wrong += differences(straight / "run", output / "run")
    return result


def kill_once(
    experiment: Experiment, output: Path, moment: str, seconds: float, rng: np.random.Generator, result: Result
) -> bool:
    """Resume a run and kill it; True if it came to its end before."""
    number = int(rng.integers(1, MOMENTS[moment][1] + 1)) if moment in MOMENTS else 1
    processes = experiment.start(output, moment, number)
    statuses = end(processes, wait(processes, seconds), signal.SIGKILL)
    return judged(statuses, output, moment, result)


def stop_once(experiment: Experiment, output: Path, number: signal.Signals, seconds: float, result: Result) -> bool:
    """Resume a run and ask it to stop; True if it came to its end before."""
    processes = experiment.start(output)
    statuses = end(processes, wait(processes, seconds), number)
    if set(statuses) == {EXIT_STATUS}:
        result.stops[number.name] += 1
        return False
    # Before the run listens to signals they end the process, 130 being Python's answer to SIGINT.
    if any(s in (-number, 130) for s in statuses):
        result.killed(f"{number.name} before the run listens", output)
        return False
    return judged(statuses, output, number.name, result)


def judged(statuses: list[int], output: Path, moment: str, result: Result) -> bool:
    """Whether a run has finished; a killed one is counted.

    Raises:
        SystemExit: it has failed.
    """
    if not any(statuses):
        return True
    if all(s in (-signal.SIGKILL, 0) for s in statuses):
        result.killed(moment, output)
        return False
    logs = "\n".join(path.read_text()[-3000:] for path in sorted(output.glob("rank_*.log")))
    raise SystemExit(f"a run failed with statuses {statuses} ({moment}):\n{logs}")


def print_result(experiment: Experiment, result: Result) -> None:
    from benchmarks.paired import print_header, table_row

    print_header(f"SIGKILL, {experiment.ranks} rank(s)", "kills", "whole latest.pth", "before the first")
    for moment in result.kills:
        row = (result.kills[moment], result.whole[moment], result.before[moment])
        print(table_row(moment, *map(str, row)))
    print(table_row("all", *(str(c.total()) for c in (result.kills, result.whole, result.before))))
    stops = ", ".join(f"{name} {count}" for name, count in result.stops.items())
    print(f"\nstopped with status {EXIT_STATUS}: {stops or 'none'}")
    print(f"runs resumed to their end: {result.runs}; differences to the undisturbed run: {len(result.wrong)}\n")
    for line in result.wrong[:20]:
        print(f"  {line}")
    sys.stdout.flush()


def import_everything() -> None:
    """What a training imports while it continues."""
    import yolox_lt.commands.train
    import yolox_lt.evaluate.evaluator
    import yolox_lt.report.analysis.evaluation_file
    import yolox_lt.report.data.batch_images
    import yolox_lt.report.page.page
    import yolox_lt.train.engine  # noqa: F401


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50, help="for each number of ranks (%(default)s)")
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2], help="numbers of ranks (%(default)s)")
    parser.add_argument("--workers", type=int, default=0, help="loader processes of a rank (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (%(default)s)")
    args = parser.parse_args()
    import_everything()
    wrong = 0
    with tempfile.TemporaryDirectory(prefix="kills_") as name:
        ensure_glyphs(Path(name, "data"), **DATA)
        for ranks in args.ranks:
            experiment = Experiment(Path(name), ranks, args.workers)
            result = disturb(experiment, args.kills, np.random.default_rng([args.seed, ranks]))
            print_result(experiment, result)
            wrong += len(result.wrong)
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
