"""One run at a time in a run's folder."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from loguru import logger

from yolox_lt.errors import UserError

FILE = ".lock"


@contextlib.contextmanager
def run_lock(folder: Path, instead: str = "this one another name with -expn") -> Iterator[None]:
    """Hold a run's folder, which is created if need be, until the block or the process ends, however it ends.

    The lock belongs to the process alone: loader processes that outlive a killed run do not keep it.

    Args:
        folder: of the run. instead: what the message tells to give when the folder is held.

    Raises:
        UserError: another process holds the folder, or it cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = open(folder / FILE, "a+")  # noqa: SIM115  closed below
    except OSError as error:
        raise UserError(f"{folder}: cannot be written ({error.strerror}); give another output_dir") from error
    with file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EAGAIN):
                file.seek(0)
                raise UserError(
                    f"{folder}: another run is writing here ({file.read(200).strip()}); wait for it, end it, or give "
                    f"{instead}"
                ) from error
            logger.warning(f"{folder}: cannot be locked ({error.strerror}); start no second run here")
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
        yield
