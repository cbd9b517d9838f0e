"""The one exception that a user is meant to read."""

from __future__ import annotations


class UserError(Exception):
    """Something that the user can fix: a file, a value, a command line.

    The message is one sentence that names the file, the value and the remedy. Tools print it without a
    traceback and exit with status 1 (`--debug` shows the traceback).
    """
