"""Train a detector, for example: train -f exps/lvis/yolox_m_eqfl.py -d 8 -b 64 max_epoch 100"""

from __future__ import annotations

import argparse
import contextlib
import copy
from pathlib import Path

from loguru import logger

from yolox_lt.api import read_checkpoint
from yolox_lt.commands import common
from yolox_lt.commands.train_own import own_exp_file
from yolox_lt.distributed.processes import ProcessInfo, count_processes, launch, launched_externally
from yolox_lt.errors import UserError
from yolox_lt.exp import DetectorExp, get_exp
from yolox_lt.exp.agreement import resume_settings
from yolox_lt.train.callbacks.trackers import check_trackers
from yolox_lt.train.run_lock import run_lock


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = common.parser(__doc__)
    common.add_exp(parser)
    parser.add_argument(
        "--data",
        metavar="PATH",
        help="your own data instead of an experiment file: a data.yaml, a json, or a folder; every setting is chosen "
        "from it, explained, and written to exp.py in the run's folder (-n: the model, yolox-nano if not given)",
    )
    parser.add_argument("--budget", help="length of a run with --data: iterations or a time, 2000it, 30m or 2h")
    parser.add_argument(
        "-b",
        "--batch-size",
        type=batch_size,
        help="images of one step over all devices; the experiment's batch_size if not given; auto: the largest power "
        "of two that one GPU's memory takes",
    )
    common.add_devices(parser)
    parser.add_argument(
        "-c",
        "--ckpt",
        help="weights to start from, a file or yolox-nano, yolox-tiny, s, m, l, x; with --resume the run to continue",
    )
    parser.add_argument(
        "--resume", action="store_true", help="continue the run (from its latest.pth unless -c is given)"
    )
    common.add_precision(parser)
    parser.add_argument("--cache", action="store_true", help="keep decoded images in memory")
    common.add_overrides(parser)
    return parser


def batch_size(text: str) -> int | str:
    """A number of images, or "auto", for argparse."""
    return text if text == "auto" else int(text)


def make_exp(args: argparse.Namespace) -> DetectorExp:
    """The experiment with what the command line sets."""
    exp = get_exp(args.exp_file, args.name)
    if args.experiment_name:
        exp.exp_name = args.experiment_name
    exp.merge(args.opts)
    return exp


def given_by(args: argparse.Namespace) -> tuple[str, ...]:
    """Names of the settings that the command line sets."""
    options = {"batch_size": isinstance(args.batch_size, int), "amp": args.fp16 or args.bf16}
    return (*args.opts[::2], *(name for name, is_given in options.items() if is_given))


def train(process: ProcessInfo, args: argparse.Namespace) -> None:
    """One rank of the run."""
    common.setup_process(process)
    from yolox_lt.train.auto_batch import auto_batch
    from yolox_lt.train.options import TrainOptions

    exp = make_exp(args)
    batch_size = exp.batch_size if args.batch_size in (None, "auto") else args.batch_size
    if process.is_main and launched_externally(args.devices):
        check(args)
    amp = common.amp_type(args)
    if args.batch_size == "auto" and not args.resume:  # a resumed run keeps its batch
        exp.settle(batch_size)
        batch_size = auto_batch(exp, process, amp)
    options = TrainOptions(batch_size, process, amp, args.ckpt, args.resume, args.cache, given_by(args))
    with run_lock(Path(exp.output_dir) / exp.exp_name) if process.is_main else contextlib.nullcontext():
        exp.get_trainer(options).train()
    if process.is_main:
        logger.info(f"finished; see {exp.output_dir}/{exp.exp_name}")


def check(args: argparse.Namespace) -> None:
    """Everything that can be checked before the ranks start, and need not wait for them."""
    exp = make_exp(args)
    if not args.resume:
        exp.settle(exp.batch_size if args.batch_size in (None, "auto") else args.batch_size)
    if args.resume or (exp.auto_resume and latest(exp).is_file()):
        path = args.ckpt or latest(exp)
        resume_settings(exp, read_checkpoint(path), given_by(args), path)
    elif args.ckpt is not None:
        read_checkpoint(args.ckpt)  # tells a file of another project apart, and how to convert it
    check_trackers(exp.trackers)
    for split in exp.splits():
        exp.get_store(split)


def main(args: argparse.Namespace) -> None:
    """Train what the experiment starts from, if that is named and not there yet, then the experiment itself.

    Raises:
        UserError: --budget without --data.
    """
    if args.data is not None:
        args.exp_file, args.name = str(own_exp_file(args)), None
    elif args.budget is not None:
        raise UserError("--budget is for --data; an experiment's length is max_epoch (and max_iter)")
    for stage in stages(args):
        start(stage)


def stages(args: argparse.Namespace) -> list[argparse.Namespace]:
    """The runs that a command stands for, in order: two for an experiment whose `first_stage` is not finished.

    An override counts for the first run too if both experiments have the same value without it.

    Raises:
        UserError: the first run is to be trained by torchrun or SLURM, which start the processes of one run.
    """
    exp = make_exp(args)
    first = getattr(exp, "first_stage", None)
    if first is None or args.ckpt is not None or exp.start_from is not None or (args.resume and latest(exp).is_file()):
        return [args]
    before = copy.copy(args)
    before.exp_file, before.name, before.experiment_name = str(Path(args.exp_file).parent / first), None, None
    plain, base = get_exp(args.exp_file).attributes(), get_exp(before.exp_file).attributes()
    pairs = list(zip(args.opts[::2], args.opts[1::2]))
    shared = [(key, text) for key, text in pairs if key in base and base[key] == plain.get(key) and key != "exp_name"]
    before.opts = [word for pair in shared for word in pair]
    path = latest(make_exp(before))
    after = copy.copy(args)
    after.opts, after.resume = [*args.opts, "start_from", str(path)], False
    content = read_checkpoint(path) if path.is_file() else None
    if content is not None and content["epoch"] >= content["exp"]["max_epoch"]:
        return [after]
    if launched_externally(args.devices):
        raise UserError(
            f"{path}: the run that this one starts from is not finished; train {before.exp_file} first, with a command "
            "of its own"
        )
    before.resume = content is not None
    return [before, after]


def latest(exp: DetectorExp) -> Path:
    """The checkpoint with which a run of the experiment continues."""
    return Path(exp.output_dir) / exp.exp_name / "latest.pth"


def start(args: argparse.Namespace) -> None:
    """Check everything that can be checked, then start the ranks."""
    exp = make_exp(args)  # errors of the file and of overrides
    if not launched_externally(args.devices):  # else rank 0 does it, so that no other reads the annotations beside it
        check(args)
    launch(train, count_processes(args.devices, args.device), args.device, (args,), exp.stop_signals)
