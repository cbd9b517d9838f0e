"""A call in a process of its own: peak memory that nothing before it has touched, libraries that do not meet.

measured = fresh(read_with_json, path)      # a function of a module, and arguments that can be pickled
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

from benchmarks.paired import status


@dataclass(frozen=True)
class Fresh:
    """Result of the call, its seconds by the clock and by the CPU, peak memory of the whole process in GiB."""

    result: Any
    seconds: float
    cpu: float
    peak: float


def fresh(function: Callable[..., Any], *arguments: Any) -> Fresh:
    """Call the function in a new process. Memory is resident memory, imports and mapped files included (Linux)."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_call, args=(sender, function, arguments))
    process.start()
    sender.close()
    try:
        measured: Fresh = receiver.recv()
    except EOFError:
        process.join()
        raise SystemExit(f"{function.__name__} ended with status {process.exitcode} and no result") from None
    process.join()
    return measured


def _call(sender: Connection, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    start, cpu = time.perf_counter(), time.process_time()
    result = function(*arguments)
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    sender.send(Fresh(result, seconds, cpu, status("VmHWM") / 2**20))
