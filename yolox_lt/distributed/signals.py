"""Signals that ask a run to stop: it finishes the step, saves, and ends with a status of its own.

SIGTERM comes from `kill`, from torchrun's agent and from SLURM at the end of a job's time, SIGINT from the keyboard,
SIGUSR1 from SLURM some time before (`sbatch --signal=USR1@120`).
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from types import FrameType, TracebackType
from typing import Any

from yolox_lt.errors import UserError

EXIT_STATUS = 75
"""Of a run that was asked to stop and can continue with --resume: EX_TEMPFAIL of sysexits.h."""

IMPATIENT = 1.0
"""Seconds after which a second SIGINT ends the process at once; a launcher may pass on what the terminal has sent."""


class Stopped(SystemExit):
    """The run was asked to stop, and what it has done is saved."""

    def __init__(self) -> None:
        super().__init__(EXIT_STATUS)


def signal_numbers(names: Sequence[str]) -> list[signal.Signals]:
    """Signals by name.

    Raises:
        UserError: an unknown name, or a signal that no process can catch.
    """
    known = {s.name: s for s in signal.Signals if s.name not in ("SIGKILL", "SIGSTOP")}
    for name in names:
        if name not in known:
            raise UserError(f"stop_signals: {name!r} is no signal that can be caught; choose from {', '.join(known)}")
    return [known[name] for name in names]


class StopSignals:
    """Catches signals while it is entered, in the main thread; elsewhere it does nothing.

    A signal sets `received`, or raises `Stopped` at once where nothing is unsaved (`saved`, and before the first
    step).
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.numbers = signal_numbers(names)
        self.received: signal.Signals | None = None
        self.at_once = True
        self.when = 0.0
        self.process = os.getpid()
        self.before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():
            self.before = {number: signal.signal(number, self.handle) for number in self.numbers}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def handle(self, number: int, frame: FrameType | None) -> None:
        """Called by Python when one of the signals comes."""
        if os.getpid() != self.process:
            return  # a loader process has inherited this; its parent decides
        now = time.monotonic()
        if number == self.received == signal.SIGINT and now - self.when > IMPATIENT:
            raise KeyboardInterrupt
        if self.received is None:
            self.received, self.when = signal.Signals(number), now
        if self.at_once:
            raise Stopped

    @contextlib.contextmanager
    def saved(self) -> Iterator[None]:
        """While everything that was done is on disk: a signal ends the process at once, also one that came before."""
        self.at_once = True
        try:
            if self.received is not None:
                raise Stopped
            yield
        finally:
            self.at_once = False


@contextlib.contextmanager
def passing_on(names: Sequence[str], processes: Sequence[int]) -> Iterator[None]:
    """Signals that come to this process go to its children, which decide what follows; the second SIGINT ends it."""
    asked = 0.0

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        now = time.monotonic()
        if number == signal.SIGINT and asked and now - asked > IMPATIENT:
            raise KeyboardInterrupt
        asked = asked or now
        for process in processes:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, number)

    before = {number: signal.signal(number, handle) for number in signal_numbers(names)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
