"""Where a run starts from, and from a checkpoint back into its parts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from loguru import logger
from torch import Tensor, nn

from yolox_lt.checkpoint import load_checkpoint, load_weights
from yolox_lt.distributed.collectives import RankGroups, broadcast
from yolox_lt.errors import UserError
from yolox_lt.exp.agreement import resume_settings
from yolox_lt.exp.detection import DetectorExp
from yolox_lt.models import Detector
from yolox_lt.models.category_rows import CategoryRows, same_named
from yolox_lt.models.init import FINE_TUNE_STD, redraw_predictions
from yolox_lt.optim.ema import ModelEMA
from yolox_lt.train.options import TrainOptions
from yolox_lt.weights import find_weights

CLASSIFIERS = ("head.cls_preds.", "head.cls_pred.")
"""Where the classifiers' parameters are, YOLOX and ResNet heads."""

QUALITIES = ("head.obj_preds.", "head.quality_pred.")
"""Where the third branches' parameters are: objectness or IoU, one value an anchor."""


class Start(NamedTuple):
    """path: the checkpoint to read, None for none. resume: continue its run, instead of taking its weights."""

    path: Path | None
    resume: bool


def find_start(exp: DetectorExp, options: TrainOptions, ranks: RankGroups) -> Start:
    """What the run begins with.

    With `auto_resume` the folder's latest.pth if there is one, as with --resume. So too where torchrun's agent starts
    the run again, if latest.pth is of this run, and not of an earlier one in the folder.
    """
    latest = Path(exp.output_dir) / exp.exp_name / "latest.pth"
    given = None if options.checkpoint is None else Path(options.checkpoint)
    if options.resume:
        return Start(given or latest, True)
    if given is None and exp.start_from is not None:
        given = Path(exp.start_from)
    process = options.process
    resume = False
    if process.is_main and latest.is_file():
        resume = exp.auto_resume or (process.restarted and load_checkpoint(latest).get("launch") == process.launch)
    return Start(latest, True) if broadcast(resume, ranks.objects) else Start(given, False)


def read_start(start: Start, ranks: RankGroups) -> dict[str, Any] | None:
    """The checkpoint that the run begins with, read by rank 0 alone: other nodes may not see its file, or an old one.

    Raises:
        UserError: see `load_checkpoint`.
    """
    if start.path is None:
        return None
    is_main = not dist.is_initialized() or dist.get_rank() == 0
    content: dict[str, Any] | None = broadcast(
        load_checkpoint(find_weights(start.path)) if is_main else None, ranks.objects
    )
    return content


def resume_as_begun(exp: DetectorExp, options: TrainOptions, content: dict[str, Any], path: Path) -> TrainOptions:
    """Settings, batch size and precision of a resumed run: as it began, but for what is now set on purpose; says both.

    Args:
        exp: is changed, see `resume_settings`. content: the checkpoint at `path`.

    Raises:
        UserError: a setting that a resumed run cannot change.
    """
    lines = resume_settings(exp, content, options.given, path)
    if options.given is not None and "batch_size" not in options.given:
        if content["batch_size"] != options.batch_size:
            lines.append(f"-b {content['batch_size']}, as until here (the experiment has {options.batch_size})")
        options = replace(options, batch_size=content["batch_size"])
    if options.given is not None and "amp" not in options.given and content.get("amp") is not None:
        lines.append(f"precision {content['amp']}, as until here")
        options = replace(options, amp=getattr(torch, content["amp"]))
    if options.process.is_main:
        for line in lines:
            logger.warning(f"resumed: {line}")
    return options


def start_fresh(exp: DetectorExp, model: Detector, ema: ModelEMA | None) -> None:
    """A run without a checkpoint: the experiment's pretrained weights, prediction layers by its `fresh_std`."""
    exp.load_pretrained(model)
    if exp.fresh_std is not None:
        redraw_predictions(model, exp.fresh_std)
    if ema is not None:
        ema.model.load_state_dict(model.state_dict())


def start_from(
    model: nn.Module,
    ema: ModelEMA | None,
    checkpoint: dict[str, Any],
    names: Sequence[str],
    path: str | Path,
    anew: tuple[str, ...] = (),
    fresh_std: float | None = None,
    rows: Mapping[str, CategoryRows] | None = None,
) -> None:
    """Fine-tuning: every tensor that fits, averaged weights if the file has them; the rest stays as initialised.

    Prediction layers that do not fit start with small weights, so that their scores start at the prior.

    Where the checkpoint has other categories than `names`, or the same in another order, the rows of the classifier go
    to the categories of the same names; the others start from new weights. The third branch of a
    head with fewer anchors is repeated for each of ours, so official YOLOX's objectness starts the IoU branch. What
    was loaded, repeated and left is reported.

    Args:
        anew: beginnings of the names of parameters that are not taken over, see `DetectorExp.layers_anew`.
        fresh_std: deviation of prediction layers' new weights, None for `FINE_TUNE_STD`.
        rows: see `WishesExp.category_rows`; what is not in it starts from new weights where the categories differ.

    Raises:
        UserError: no tensor of the body fits.
    """
    redraw_predictions(model, FINE_TUNE_STD if fresh_std is None else fresh_std)
    source = checkpoint["ema"]["model"] if checkpoint.get("ema") else checkpoint["model"]
    own = model.state_dict()
    theirs = list(checkpoint.get("names", names))
    same_categories = theirs == list(names)
    source = {name: value for name, value in source.items() if not name.startswith(anew)}
    moved = {} if same_categories else moved_rows(source, own, rows or {}, names, theirs)
    with_rows = () if same_categories else (*CLASSIFIERS, *(rows or {}))
    fitting, repeated = fitting_tensors(source, own, with_rows)
    fitting |= moved
    if not any(name.startswith("backbone.") for name in fitting):
        raise UserError(f"{path}: no tensor fits this model; use the exp file of that checkpoint")
    model.load_state_dict(fitting, strict=False)
    left = sorted(name for name in own if name not in fitting)
    logger.info(f"{path}: {len(fitting)} tensors loaded, {len(left)} are newly initialised{listing(left)}")
    body, lost = (sum(name.startswith("backbone.") for name in group) for group in (own, left))
    if lost:
        logger.warning(
            f"{path}: {lost} of the {body} tensors of the backbone do not fit and start from new weights, so much of "
            "their training is lost; set the network as they have it (depth, width and depthwise of a YOLOX)"
        )
    if not same_categories:
        logger.info(f"{path}: {category_sentence(names, theirs, any(n.startswith(CLASSIFIERS) for n in moved))}")
    if repeated:
        logger.info(f"{path}: third branch repeated for each anchor{listing(repeated)}")
    if ema is not None:
        ema.model.load_state_dict(model.state_dict())


def fitting_tensors(
    source: dict[str, Tensor], own: dict[str, Tensor], with_rows: tuple[str, ...]
) -> tuple[dict[str, Tensor], list[str]]:
    """What of `source` goes into a model with the state `own`, and the names of what had to be repeated for it.

    Args:
        with_rows: beginnings of names that are left out, since their rows belong to other categories.
    """
    fitting: dict[str, Tensor] = {}
    repeated = []
    for name, value in source.items():
        if name not in own or name.startswith(with_rows):
            continue
        wanted = own[name].shape
        if value.shape == wanted:
            fitting[name] = value
        elif name.startswith(QUALITIES) and value.shape[0] == 1 and value.shape[1:] == wanted[1:]:
            fitting[name] = value.expand(wanted)  # [1, ...] -> [A, ...]
            repeated.append(name)
    return fitting, sorted(repeated)


def moved_rows(
    source: dict[str, Tensor],
    own: dict[str, Tensor],
    rows: Mapping[str, CategoryRows],
    names: Sequence[str],
    theirs: Sequence[str],
) -> dict[str, Tensor]:
    """The parameters of `own` with rows for each category, those of the same names taken from `source`.

    Args:
        rows: beginnings of names -> layout. names: of the model's categories. theirs: of the source's.
    """
    pairs = same_named(names, theirs)
    moved: dict[str, Tensor] = {}
    for name, layout in ((n, rows[begin]) for n in own for begin in rows if n.startswith(begin) and n in source):
        fits = len(own[name]) == layout.count(len(names)) and len(source[name]) == layout.count(len(theirs))
        value = layout.moved(source[name].to(own[name]), own[name], pairs) if pairs and fits else None
        if value is not None:
            moved[name] = value
    return moved


def category_sentence(names: Sequence[str], theirs: Sequence[str], is_moved: bool) -> str:
    """What happened to the classifier of a checkpoint with other categories."""
    kept = {label for label, _ in same_named(names, theirs)} if is_moved else set()
    if not kept:
        return "its categories are not those of this run, so the classifier is newly initialised"
    added = [repr(name) for label, name in enumerate(names) if label not in kept]
    anew = f"; {len(added)} start from new weights: {', '.join(added)}" if added else ""
    return f"its categories are not those of this run; {len(kept)} of the same name keep their classifier rows{anew}"


def listing(names: list[str]) -> str:
    """(a, b, ...) with the first few names; empty for none."""
    return f" ({', '.join(names[:4])}{', ...' if len(names) > 4 else ''})" if names else ""


def restore_parts(
    model: nn.Module,
    ema: ModelEMA | None,
    criterion: nn.Module,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    checkpoint: dict[str, Any],
    path: str | Path,
) -> None:
    """Resuming: everything as it was.

    Raises:
        UserError: a checkpoint of another model, loss or averaging, or one without the state of a run.
    """
    if "optimizer" not in checkpoint:
        raise UserError(f"{path}: has no optimiser state to resume from; start a new run from it without --resume")
    if (ema is None) != (checkpoint["ema"] is None):
        raise UserError(f"{path}: the run was not started with ema {ema is not None}; resume with its own setting")
    load_weights(model, checkpoint["model"], path)
    load_weights(criterion, checkpoint["criterion"], path)
    if ema is not None:
        load_weights(ema.model, checkpoint["ema"]["model"], path)
        ema.next = checkpoint["ema"]["next"]
    try:
        optimizer.load_state_dict(checkpoint["optimizer"])
    except ValueError as error:
        raise UserError(f"{path}: the run used another optimiser ({error}); resume with its own settings") from error
    if checkpoint["scaler"] and scaler.is_enabled():
        scaler.load_state_dict(checkpoint["scaler"])
