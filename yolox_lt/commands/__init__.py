"""The command line: `yolox-lt NAME ...`, `python -m yolox_lt NAME ...`, in a plain checkout `python tools/NAME.py ...`.

Nothing heavy is imported here: the list of commands answers at once, and the number of spins below is set before torch
is loaded.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence

COMMANDS = {
    "train": ("train", "train a detector"),
    "eval": ("eval", "score a checkpoint, or a result file of any framework"),
    "demo": ("demo", "detect objects in images, a video or a camera's stream"),
    "convert": ("convert", "turn a foreign checkpoint into one of this project"),
    "convert-dataset": ("convert_dataset", "turn a published data set into one annotation file"),
    "calibrate": ("calibrate", "change the scores of a trained detector's categories, without training"),
    "export": ("export", "write a detector as ONNX or TorchScript"),
    "report": ("report", "write the report page of one or several runs"),
    "model": ("inspect_model", "parameters and operations of an experiment's model"),
    "inspect": ("inspect_data", "look at an experiment's training data before training"),
}
"""Name -> (module of this package with make_parser() and main(args), what it does)."""


def main(words: Sequence[str] | None = None) -> None:
    """The program yolox-lt; `words` are those of the command line if not given.

    Ends the process with status 2 and the list of commands for a name that is none of them.
    """
    words = sys.argv[1:] if words is None else words
    if words and words[0] in ("-h", "--help"):
        print(overview())
    elif words and words[0] in COMMANDS:
        run_command(words[0], words[1:], f"yolox-lt {words[0]}")
    else:
        problem = f"unknown command {words[0]!r}" if words else "no command given"
        print(f"{overview()}\n\nerror: {problem}; choose one of {', '.join(COMMANDS)}", file=sys.stderr)
        sys.exit(2)


def run_command(name: str, words: Sequence[str] | None = None, program: str | None = None) -> None:
    """Run one command.

    Args:
        name: key of COMMANDS.
        words: its arguments; those of the command line if not given.
        program: what the help calls it; the name of the script if not given.
    """
    # Idle OpenMP threads spin briefly, then sleep. Spinning for long, the default, makes a CPU shared with loader
    # processes crawl; not spinning at all halves the speed of small networks. Has to be set before torch is loaded.
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    from yolox_lt.commands import common

    module = importlib.import_module(f"yolox_lt.commands.{COMMANDS[name][0]}")
    parser = module.make_parser()
    parser.prog = program or parser.prog
    common.run(module.main, parser, words)


def overview() -> str:
    """All commands, one a line."""
    lines = [f"  {name:<{max(map(len, COMMANDS))}}  {text}" for name, (_, text) in COMMANDS.items()]
    return "\n".join(
        [
            "usage: yolox-lt COMMAND ...",
            "",
            "Train and use detectors on long-tailed data.",
            "",
            *lines,
            "",
            "yolox-lt COMMAND --help shows the options of a command.",
        ]
    )
