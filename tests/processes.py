"""Processes of their own without their imports: forked from one that has imported everything and computes nothing.

Importing torch and the package takes three seconds; the server (multiprocessing's) does it once for a whole session.
"""

from __future__ import annotations

import os
import runpy
import sys
import tempfile
from collections.abc import Callable
from multiprocessing import forkserver
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.multiprocessing as mp

from yolox_lt.train.callbacks.report import ReportCallback

ROOT = Path(__file__).resolve().parents[1]
IMPORTED = (
    *("yolox_lt.commands.train", "yolox_lt.commands.eval", "yolox_lt.commands.demo", "yolox_lt.commands.inspect_data"),
    *("yolox_lt.convert.conversion", "yolox_lt.train.engine", "yolox_lt.evaluate.evaluator"),
    *("yolox_lt.report.page.page", "yolox_lt.report.data.batch_images", "yolox_lt.report.analysis.evaluation_file"),
    *("torch.utils.tensorboard", "tests.processes", "tests.two_stage"),
    # Imported late, by an evaluation, by DistributedDataParallel and by the page: three seconds of each process.
    *("torchvision", "torch._dynamo", "torch.distributed.nn.functional", "matplotlib.backends.backend_agg"),
)


class Done(NamedTuple):
    """What an ended process leaves: its exit status and its texts."""

    returncode: int
    stdout: str
    stderr: str


def context() -> Any:
    """Multiprocessing context whose processes begin with everything imported."""
    made = mp.get_context("forkserver")
    before = Path.cwd()
    os.chdir(ROOT)  # from where the server imports
    try:
        made.set_forkserver_preload(list(IMPORTED))
        forkserver.ensure_running()
    finally:
        os.chdir(before)
    return made


def start_ranks(function: Callable[..., None], args: tuple[Any, ...], ranks: int, join: bool = True) -> Any:
    """function(rank, *args) in `ranks` processes; as torch.multiprocessing.spawn."""
    context()
    return mp.start_processes(function, args, nprocs=ranks, join=join, start_method="forkserver")


def run_script(script: str | Path, *words: object, cwd: Path = ROOT, seconds: float = 300) -> Done:
    """`python SCRIPT WORDS` in the folder `cwd` (a module's name: `python -m SCRIPT WORDS`), with one thread.

    A training with one process makes no report page: it costs more than the training.
    """
    with tempfile.TemporaryDirectory() as name:
        texts = [Path(name, text) for text in ("out", "err")]
        args = (str(script), [str(word) for word in words], str(cwd), dict(os.environ), *map(str, texts))
        process = context().Process(target=_script, args=args)
        process.start()
        process.join(seconds)
        if process.exitcode is None:
            process.kill()
            process.join()
        assert process.exitcode is not None
        return Done(process.exitcode, *(text.read_text() for text in texts))


def _script(script: str, words: list[str], cwd: str, environment: dict[str, str], *texts: str) -> None:
    """In the new process."""
    mp.set_start_method(None, force=True)  # the platform's, as in a user's command, in place of the server's
    for number, text in enumerate(texts, 1):
        os.dup2(os.open(text, os.O_WRONLY | os.O_CREAT), number)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(cwd)
    torch.set_num_threads(1)
    ReportCallback.write_report = lambda self: None  # type: ignore[method-assign]
    sys.argv = [script, *words]
    if script.endswith(".py"):
        runpy.run_path(script, run_name="__main__")
    else:
        runpy.run_module(script, run_name="__main__", alter_sys=True)
