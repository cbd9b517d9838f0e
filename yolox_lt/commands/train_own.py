"""`train --data PATH`: an experiment file for a user's own data, every setting chosen and explained."""

from __future__ import annotations

import argparse
import copy
import os
import re
import time
from pathlib import Path

import torch
from loguru import logger

from yolox_lt.data.annotations.index import AnnotationIndex
from yolox_lt.data.annotations.own_sets import OwnParts, find_own, image_folder, source_of_part
from yolox_lt.distributed.processes import launched_externally
from yolox_lt.errors import UserError
from yolox_lt.exp.choices import EVAL_EVERY, MODELS, Choice
from yolox_lt.exp.detection import DetectorExp
from yolox_lt.exp.own_data import OwnDataExp
from yolox_lt.train.auto_batch import made_up_steps

VAL_SHARE = 0.2
"""Share of the images of a set without a validation part that is held out."""

RESERVE = 0.1
"""Share of a budget in minutes for the start, images and pages."""

HEADER = '''"""{title}: settings chosen by train --data, for `tools/train.py -f` this file; change what you like."""

from yolox_lt.exp import OwnDataExp


class Exp(OwnDataExp):
    def __init__(self):
        super().__init__()
'''


def own_exp_file(args: argparse.Namespace) -> Path:
    """Look at the data, choose, print, and write the experiment file into the run's folder.

    A resumed run keeps the file that it has.

    Raises:
        UserError: options that do not go together, data that cannot be read, or another exp.py in the folder.
    """
    if args.exp_file is not None:
        raise UserError("give either -f FILE or --data PATH: a file has its own settings; --data chooses them")
    if args.batch_size == "auto":
        raise UserError("-b auto is for an experiment file: --data chooses settings for a batch; give -b a number")
    if launched_externally(args.devices):
        raise UserError(
            "--data is for a command without torchrun or SLURM; run it once, then start torchrun with -f RUN/exp.py"
        )
    model = (args.name or "yolox-nano").replace("_", "-")
    if model not in MODELS:
        raise UserError(f"-n {args.name}: unknown model; choose one of {', '.join(MODELS)}")
    parts = find_own(args.data)
    name = args.experiment_name or settings_of(args.opts).get("exp_name") or run_name(Path(args.data))
    folder = Path(settings_of(args.opts).get("output_dir", DetectorExp.output_dir)) / name
    file = folder / "exp.py"
    if args.resume and file.is_file():
        return file
    exp = OwnDataExp()
    exp.model = model
    chosen = data_choices(parts, name)
    apply(exp, chosen)
    exp.merge(args.opts)
    batch = exp.batch_size if args.batch_size is None else args.batch_size
    length = None
    if args.budget is not None:
        tried = copy.copy(exp)  # the steps that are timed have its sizes
        tried.settle(batch)
        length = budget_iterations(args.budget, tried, batch, device_of(args))
    workers = max(1, min((os.cpu_count() or 2) - 1, 8))
    chosen += [
        *exp.choices(batch, length),
        Choice("batch_size", batch, "images of a step (-b)"),
        Choice("data_num_workers", workers, "loader processes, from the number of cores"),
    ]
    apply(exp, chosen)
    exp.merge(args.opts)
    chosen = with_given(exp, chosen, args.opts[::2])
    for choice in chosen:
        logger.info(f"chosen: {choice}")
    folder.mkdir(parents=True, exist_ok=True)
    text = exp_text(name, chosen)
    if file.is_file() and file.read_text(encoding="utf-8") != text:
        raise UserError(
            f"{file}: is there already and differs from what is chosen now; train it with -f, or give the new run "
            "another name with -expn"
        )
    file.write_text(text, encoding="utf-8")
    logger.info(f"settings written to {file}")
    return file


def settings_of(opts: list[str]) -> dict[str, str]:
    """KEY VALUE pairs as a dict."""
    return dict(zip(opts[::2], opts[1::2]))


def run_name(path: Path) -> str:
    """Name of the run's folder: of the data set's folder."""
    place = path.absolute()
    if place.is_file():
        place = place.parent.parent if place.parent.name == "annotations" else place.parent
    return re.sub(r"[^\w.-]+", "_", place.name) or "own"


def data_choices(parts: OwnParts, name: str) -> list[Choice]:
    """Where the data is: names, folders, the split."""
    train = AnnotationIndex.load(source_of_part(parts, "train", None))
    found = [
        Choice("exp_name", name, "the folder of the data set, or as given"),
        Choice("data_dir", parts.data_dir, "--data"),
        Choice("train_ann", parts.train_ann, f"{len(train):,} images"),
        Choice("train_images", image_folder(train, parts.data_dir, parts.train_ann), "where the images are"),
    ]
    if parts.class_names:
        found.append(Choice("class_names", parts.class_names, "the annotations do not name them"))
    if parts.val_ann is None:
        share = f"{VAL_SHARE:.0%} of the images are held out for validation, those of rare categories in both parts"
        found.append(Choice("val_share", VAL_SHARE, f"there is no validation part: {share}"))
        found.append(Choice("val_ann", None, "no annotations of its own"))
    else:
        val = AnnotationIndex.load(source_of_part(parts, "val", None))
        found.append(Choice("val_ann", parts.val_ann, f"{len(val):,} images"))
        found.append(Choice("val_images", image_folder(val, parts.data_dir, parts.val_ann), "where the images are"))
    return [*found, Choice("num_classes", len(train.category_ids), "categories of the training annotations")]


def apply(exp: DetectorExp, choices: list[Choice]) -> None:
    """Set the chosen attributes."""
    for choice in choices:
        setattr(exp, choice.name, choice.value)


def with_given(exp: DetectorExp, choices: list[Choice], given: list[str]) -> list[Choice]:
    """The choices with the values of the command line in place of what was chosen, which is said."""
    by_name = {choice.name: choice for choice in choices}
    for name in given:
        was, value = by_name.get(name), getattr(exp, name)
        if was is None or was.value != value:
            instead = "" if was is None else f"; chosen was {was.value!r}"
            by_name[name] = Choice(name, value, f"given on the command line{instead}")
    return list(by_name.values())


def exp_text(name: str, choices: list[Choice]) -> str:
    """The experiment file: an attribute a line, with its reason."""
    lines = [f"        self.{choice.name} = {choice.value!r}  # {choice.reason}" for choice in choices]
    return HEADER.format(title=name.replace("\\", " ").replace('"', " ")) + "\n".join(lines) + "\n"


def device_of(args: argparse.Namespace) -> torch.device:
    """Where the run will be."""
    kind = args.device or ("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(kind)


def budget_iterations(text: str, exp: DetectorExp, batch: int, device: torch.device) -> Choice:
    """Iterations of a budget: "2000it", or "30m" by the time of a step and of the evaluations on this machine.

    Raises:
        UserError: a text of another kind, or a time that is too short for a single step.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)(it|m|h)", text.strip())
    if found is None or float(found[1]) == 0 or (found[2] == "it" and "." in found[1]):
        raise UserError(f"--budget {text!r}: give iterations or a time, for example 2000it, 30m or 2h")
    if found[2] == "it":
        return Choice("iterations", int(found[1]), f"--budget {text}")
    seconds = 60 * float(found[1]) * (60 if found[2] == "h" else 1)
    begun = time.perf_counter()
    marks = [time.perf_counter() for _ in made_up_steps(exp, device, None, batch, 4)]
    step = (marks[-1] - marks[0]) / (len(marks) - 1)
    # A forward pass is about a third of a step.
    evaluation = step / batch / 3 * (len(exp.get_index("val")) if "val" in exp.splits() else 0)
    evaluations = EVAL_EVERY + 1
    left = seconds * (1 - RESERVE) - (time.perf_counter() - begun) - evaluations * evaluation
    if left < step:
        raise UserError(
            f"--budget {text}: a step of {batch} images takes {step:.1f} s here and {evaluations} evaluations about "
            f"{evaluations * evaluation:.0f} s; give more time, or a smaller model or input_size"
        )
    return Choice(
        "iterations",
        int(left / step),
        f"--budget {text}: {step:.2f} s a step of {batch} here, about {evaluation:.0f} s for each of {evaluations} "
        "evaluations",
    )
