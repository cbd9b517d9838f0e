"""What the commands share: options, the one-sentence error, start-up of a process."""

from __future__ import annotations

import argparse
import errno
import math
import sys
from collections.abc import Callable, Sequence

import cv2
import torch

from yolox_lt.data.annotations.formats import FORMATS
from yolox_lt.data.annotations.source import Source
from yolox_lt.data.loader import worker_failure
from yolox_lt.distributed.processes import ProcessInfo
from yolox_lt.errors import UserError
from yolox_lt.train.callbacks.log import setup_console

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""Errors of a full disk, quota or file; writing, unlike opening, gives no file name with them."""


def parser(description: str | None) -> argparse.ArgumentParser:
    """A parser whose --help shows every default."""
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    made.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return made


def add_exp(to: argparse.ArgumentParser) -> None:
    """The options that name an experiment."""
    to.add_argument(
        "-f",
        "--exp-file",
        "--exp_file",
        dest="exp_file",
        help="experiment file: Python code that is executed, so run only files you trust",
    )
    to.add_argument("-n", "--name", help="stock model instead of a file: yolox-nano, yolox-tiny, yolox-s, m, l, x")
    to.add_argument("-expn", "--experiment-name", help="name of the run's folder; the file's stem if not given")


def add_exp_of_checkpoint(to: argparse.ArgumentParser) -> None:
    """The experiment file of a checkpoint, where it is needed."""
    to.add_argument(
        "-f",
        "--exp-file",
        "--exp_file",
        dest="exp_file",
        help="experiment file, for a checkpoint whose experiment overrides methods: Python code that is executed",
    )


def add_devices(to: argparse.ArgumentParser) -> None:
    """The options for processes and device."""
    to.add_argument("-d", "--devices", type=int, help="processes, one per GPU; all GPUs if not given, 1 without a GPU")
    to.add_argument("--device", choices=("cpu", "cuda"), help="kind of device; a GPU if there is one")


def add_precision(to: argparse.ArgumentParser) -> argparse._MutuallyExclusiveGroup:
    """The options for mixed precision, of which one may be given."""
    group = to.add_mutually_exclusive_group()
    group.add_argument("--fp16", action="store_true", help="mixed precision with loss scaling (GPU)")
    group.add_argument("--bf16", action="store_true", help="mixed precision in bfloat16")
    return group


def add_overrides(to: argparse.ArgumentParser) -> None:
    """KEY VALUE pairs, before, between or after the options."""
    overrides = (
        "settings to override, for example max_epoch 50, or category_map some.json num_classes 3 for a subset of the "
        "categories (the file gives null for those to leave out)"
    )
    to.add_argument("opts", nargs="*", default=[], metavar="KEY VALUE", help=overrides)


def parse(made: argparse.ArgumentParser, words: Sequence[str] | None = None) -> argparse.Namespace:
    """The arguments; KEY VALUE overrides may stand on both sides of options, and a value may be any negative number.

    argparse takes -1e-3 for an option; a blank before it says that it is none.
    """
    words = sys.argv[1:] if words is None else words
    if made.get_default("opts") is None or {"-h", "--help"} & set(words):
        return made.parse_args(words)
    args = made.parse_intermixed_args([f" {word}" if is_negative(word) else word for word in words])
    args.opts = [word[1:] if is_negative(word[1:]) else word for word in args.opts]
    return args


def is_negative(word: str) -> bool:
    """Whether a word is a number with a minus sign."""
    try:
        float(word)
    except ValueError:
        return False
    return word.startswith("-")


def share(text: str) -> float:
    """A number in [0, 1], for argparse."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is no number from 0 to 1 (30 percent is 0.3)")
    return value


def side(text: str) -> int:
    """Pixels of a network input's side, for argparse."""
    if not text.isdecimal() or int(text) < 32:
        raise argparse.ArgumentTypeError(f"{text} is no number of pixels of at least 32, for example 640")
    return int(text)


def names(text: str) -> tuple[str, ...]:
    """Names between commas, without the blanks around them, for argparse."""
    found = tuple(name.strip() for name in text.split(","))
    if not all(found):
        raise argparse.ArgumentTypeError(f"{text!r} has an empty name; write A,B")
    return found


def add_source(to: argparse.ArgumentParser) -> None:
    """Options that belong to annotations given on the command line; `source_of` reads them."""
    to.add_argument(
        "--format",
        choices=("auto", *sorted(FORMATS)),
        default="auto",
        help="of the annotations; auto: recognised by looking",
    )
    to.add_argument("--classes", type=names, default=(), metavar="A,B", help="names for formats without")
    to.add_argument("--map", metavar="FILE", help="json file: name of a category -> its new name, or null")
    to.add_argument("--subset", metavar="TEXT", help="only images whose path begins so, or a file of image ids")


def source_of(paths: Sequence[str], args: argparse.Namespace) -> Source:
    """The annotations at `paths` with the options of `add_source`."""
    return Source(tuple(paths), args.format, "all", args.classes, args.map, args.subset)


def amp_type(args: argparse.Namespace) -> torch.dtype | None:
    """Type of mixed precision, None for float32."""
    if args.fp16:
        return torch.float16
    return torch.bfloat16 if args.bf16 else None


def setup_process(process: ProcessInfo) -> None:
    """The console's log by rank, OpenCV without threads of its own."""
    setup_console(process.rank)
    cv2.setNumThreads(0)


def run(
    main: Callable[[argparse.Namespace], None], made: argparse.ArgumentParser, words: Sequence[str] | None = None
) -> None:
    """Parse, run, and end with status 1 and one sentence on an error the user can fix.

    Args:
        main: the command. made: its parser. words: its arguments; those of the command line if not given.
    """
    args = parse(made, words)
    setup_console()
    try:
        main(args)
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        cause = user_error(error, memory_advice(made))
        if cause is None or args.debug:
            raise
        print(f"error: {cause}", file=sys.stderr)
        sys.exit(1)


MEMORY_ADVICE = (
    (("-b", "--bf16"), "lower -b, or use --fp16 or --bf16"),
    (("-b",), "lower -b"),
    (("--tsize", "--device"), "give a smaller --tsize, or --device cpu"),
    (("--size",), "give a smaller --size"),
)
"""Options that a command has -> what to do about a full GPU."""


def memory_advice(parser: argparse.ArgumentParser) -> str:
    """What to do about a full GPU with the options that the command has."""
    known = parser.format_help()
    for options, advice in MEMORY_ADVICE:
        if all(f"{option} " in known for option in options):
            return advice
    return "use a smaller model or image"


def user_error(error: BaseException | None, advice: str = MEMORY_ADVICE[0][1]) -> str | None:
    """The sentence of a UserError, also from inside a loader process or a spawned rank; None for any other error.

    advice: what to do about a full GPU.
    """
    while error is not None:
        if isinstance(error, UserError):
            return last_sentence(str(error))
        if isinstance(error, torch.OutOfMemoryError):
            return f"the GPU's memory is full ({str(error).splitlines()[0]}); {advice}"
        if isinstance(error, OSError) and error.filename is not None:
            return f"{error.filename}: {error.strerror}; check the path and its permissions"
        if isinstance(error, OSError) and error.errno in FULL:
            return f"a file could not be written ({error.strerror}); free space, or write elsewhere"
        if "yolox_lt.errors.UserError: " in str(error) or "BadImageError: " in str(error):
            return last_sentence(str(error))
        failure = worker_failure(str(error))
        if failure is not None:
            return failure
        error = error.__cause__ or error.__context__
    return None


def last_sentence(text: str) -> str:
    """The message itself: processes hand over the whole traceback as text."""
    for mark in ("yolox_lt.errors.UserError: ", "yolox_lt.data.image_file.BadImageError: "):
        if mark in text:
            return text.split(mark)[-1].strip()
    return text
