"""What two ranks do in trouble, run by test_ranks.py as a program of its own: python -m tests.train.rank_cases FOLDER

Each case forks two processes, which are the ranks (gloo); this process has imported everything and computes nothing.
What the ranks noted lies in FOLDER/CASE_RANK.json afterwards, with the message that ended the rank, its status and the
time of its end.
"""

from __future__ import annotations

import datetime
import json
import os
import shutil
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import torch
import torch.distributed as dist

from tests.tiny import tiny_exp
from yolox_lt.commands.common import user_error
from yolox_lt.data.annotations import index
from yolox_lt.data.glyphs.make import ensure_glyphs
from yolox_lt.distributed.processes import ProcessInfo, free_port
from yolox_lt.train.callbacks.report import ReportCallback
from yolox_lt.train.engine import Trainer
from yolox_lt.train.options import TrainOptions

SHORT = datetime.timedelta(seconds=8)
"""Time-out of a collective where a case needs one."""

SIZES = {"num_categories": 4, "train_images": 150, "val_images": 5, "image_size": 64}
GLYPHS = {"glyph_train_images": SIZES["train_images"], "glyph_val_images": SIZES["val_images"]}


class Noting(Trainer):
    """Notes the statistic's contributions of every step, before they are summed over the ranks."""

    def prepare(self) -> None:
        super().prepare()
        self.contributions: list[list[list[float]]] = []
        self.commits = 0
        (balance,) = self.run.criterion.step_states()
        commit, accumulate = balance.commit, balance.accumulate

        def noted_commit() -> None:
            self.commits += 1
            commit()

        def noted_accumulate(pos: torch.Tensor, neg: torch.Tensor) -> None:
            self.contributions.append([pos.tolist(), neg.tolist()])
            accumulate(pos, neg)

        balance.commit, balance.accumulate = noted_commit, noted_accumulate


class Case:
    """One case: settings of the experiment, what a rank does, what it notes."""

    settings: ClassVar[dict[str, Any]] = {}
    batch_size = 4
    timeout = datetime.timedelta(minutes=5)

    def prepare(self, exp: Any, process: ProcessInfo) -> None:
        """Change the experiment of a rank."""

    def trainer(self, exp: Any, process: ProcessInfo) -> Trainer:
        return Noting(exp, TrainOptions(self.batch_size, process))

    def note(self, trainer: Trainer) -> dict[str, Any]:
        return {}


class Killed(Case):
    """Rank 1 is killed after the second step."""

    def prepare(self, exp, process):
        def on_iteration_end(trainer, losses):
            if trainer.iteration == 2 and process.rank == 1:
                Path(exp.output_dir, "moment").write_text(repr(time.time()))
                os.kill(os.getpid(), signal.SIGKILL)

        exp.on_iteration_end = on_iteration_end


class Failing(Case):
    """Rank 1 meets an exception after the second step."""

    def prepare(self, exp, process):
        def on_iteration_end(trainer, losses):
            if trainer.iteration == 2 and process.rank == 1:
                Path(exp.output_dir, "moment").write_text(repr(time.time()))
                raise ValueError("no such thing")

        exp.on_iteration_end = on_iteration_end


class EmptyShard(Case):
    """One validation image, so rank 1 has none."""

    settings: ClassVar[dict[str, Any]] = {"max_iter": 2}

    def prepare(self, exp, process):
        exp.val_ann = str(Path(exp.data_dir).with_name("one_image.json"))


class LongEvaluation(Case):
    """Rank 0 scores for longer than a collective may take."""

    settings: ClassVar[dict[str, Any]] = {"max_iter": 2}
    timeout = SHORT

    def prepare(self, exp, process):
        make = exp.get_evaluator

        def get_evaluator(*arguments):
            evaluator = make(*arguments)
            score = evaluator.score
            evaluator.score = lambda found: (time.sleep(1.5 * SHORT.total_seconds()), score(found))[1]
            return evaluator

        exp.get_evaluator = get_evaluator


class NoPositives(Case):
    """The batches of rank 1 have no objects."""

    settings: ClassVar[dict[str, Any]] = {"max_iter": 1, "max_epoch": 1}

    def trainer(self, exp, process):
        class Emptied(Noting):
            def batches(self, *position):
                for batch in super().batches(*position):
                    if process.rank == 1:
                        none = [b[:0] for b in batch.boxes], [x[:0] for x in batch.labels]
                        batch = replace(batch, boxes=none[0], labels=none[1])
                    yield batch

            def step(self, batches):
                self.losses = super().step(batches)
                return self.losses

        return Emptied(exp, TrainOptions(self.batch_size, process))

    def note(self, trainer):
        balance = trainer.run.criterion.step_states()[0]
        weights = torch.cat([p.detach().flatten() for p in trainer.run.model.parameters()])
        return {
            "losses": trainer.losses,
            "contributions": trainer.contributions,
            "pos_grad": balance.pos_grad.tolist(),
            "neg_grad": balance.neg_grad.tolist(),
            "weights": [float(weights.double().sum()), float(weights.double().square().sum())],
        }


class Accumulating(NoPositives):
    """Two batches a step on each rank."""

    settings: ClassVar[dict[str, Any]] = {"max_iter": 2, "max_epoch": 1, "accumulate": 2}
    batch_size = 8

    def trainer(self, exp, process):
        trainer = Noting(exp, TrainOptions(self.batch_size, process))
        trainer.losses = {}
        return trainer

    def note(self, trainer):
        return super().note(trainer) | {"commits": trainer.commits}


class Skipping(Case):
    """The loss of rank 1 alone is not finite in the second step."""

    settings: ClassVar[dict[str, Any]] = {"max_iter": 4, "max_epoch": 1, "nonfinite": "skip"}

    def trainer(self, exp, process):
        class Poisoned(Noting):
            def forward(self, batch):
                losses = super().forward(batch)
                if self.run.iteration == 1 and process.rank == 1:
                    losses["box"] = losses["box"] * float("nan")
                return losses

            def step(self, batches):
                losses = super().step(batches)
                self.steps = [*getattr(self, "steps", []), self.commits]
                return losses

        return Poisoned(exp, TrainOptions(self.batch_size, process))

    def note(self, trainer):
        weights = torch.cat([p.detach().flatten() for p in trainer.run.model.parameters()])
        return {"commits": trainer.steps, "weights": float(weights.double().sum())}


class Asked(Case):
    """Rank 1 alone gets SIGTERM in the second step of an epoch of ten."""

    def prepare(self, exp, process):
        def on_iteration_end(trainer, losses):
            if trainer.iteration == 2 and process.rank == 1:
                os.kill(os.getpid(), signal.SIGTERM)

        exp.on_iteration_end = on_iteration_end


class FirstStart(Case):
    """Annotations that nobody has read before; each rank notes which files it parses, and which it finds parsed."""

    def prepare(self, exp, process):
        exp.max_iter = 1
        exp.train_ann, exp.val_ann = (
            str(Path(exp.output_dir).parent / f"unread_{split}.json") for split in ("train", "val")
        )
        self.parsed: list[str] = []
        self.found: list[bool] = []
        read, load = index._read, index.read_cache

        def noted_read(source):
            self.parsed.append(source.path.name)
            time.sleep(1)  # long enough for the other rank to begin too
            return read(source)

        def noted_load(path, key):
            columns = load(path, key)
            self.found.append(columns is not None)
            return columns

        index._read, index.read_cache = noted_read, noted_load

    def note(self, trainer):
        return {"parsed": self.parsed, "found": self.found}


CASES: dict[str, Case] = {
    case.__class__.__name__: case
    for case in (
        Killed(), Failing(), EmptyShard(), LongEvaluation(), NoPositives(), Accumulating(), Skipping(), Asked(),
        FirstStart(),
    )
}  # fmt: skip


def run_rank(name: str, rank: int, port: int, folder: Path) -> None:
    """In a forked process; ends it."""
    case = CASES[name]
    notes: dict[str, Any] = {}
    status = 0
    try:
        ReportCallback.write_report = lambda self: None  # costs more than the case
        torch.set_num_threads(1)
        url = f"tcp://127.0.0.1:{port}"
        dist.init_process_group("gloo", init_method=url, timeout=case.timeout, rank=rank, world_size=2)
        process = ProcessInfo(rank, 2, torch.device("cpu"))
        exp = tiny_exp(folder / "data", folder / name, **{**GLYPHS, "max_epoch": 1, **case.settings})
        case.prepare(exp, process)
        trainer = case.trainer(exp, process)
        trainer.train()
        notes = case.note(trainer)
    except SystemExit as error:
        status = int(str(error.code))
    except BaseException as error:
        notes, status = {"message": user_error(error), "kind": type(error).__name__}, 1
    notes |= {"status": status, "end": time.time()}
    (folder / f"{name}_{rank}.json").write_text(json.dumps(notes))
    os._exit(status)


def main(folder: Path) -> None:
    ensure_glyphs(folder / "data", **SIZES)
    content = json.loads((folder / "data/annotations/glyphs_val.json").read_text())
    content["images"] = content["images"][:1]
    kept = content["images"][0]["id"]
    content["annotations"] = [a for a in content["annotations"] if a["image_id"] == kept]
    (folder / "one_image.json").write_text(json.dumps(content))
    for split in ("train", "val"):
        shutil.copy(folder / f"data/annotations/glyphs_{split}.json", folder / f"unread_{split}.json")
    waiting = start("LongEvaluation", folder)  # sleeps most of its time, beside the others
    for name in CASES:
        if name != "LongEvaluation":
            wait(start(name, folder))
    wait(waiting)


def start(name: str, folder: Path) -> list[int]:
    """Fork the two ranks of a case; returns their process ids."""
    port, processes = free_port(), []
    for rank in (0, 1):
        process = os.fork()
        if process == 0:
            run_rank(name, rank, port, folder)
        processes.append(process)
    return processes


def wait(processes: list[int]) -> None:
    for process in processes:
        os.waitpid(process, 0)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
