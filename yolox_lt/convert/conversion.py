"""From a foreign file to a checkpoint of this project: recognise, rename, check every tensor, write."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from yolox_lt.checkpoint import FORMAT_VERSION, plain, save_checkpoint
from yolox_lt.convert import backbone, mmdetection, official, released
from yolox_lt.convert.categories import name_categories
from yolox_lt.convert.conversion_report import Conversion
from yolox_lt.convert.mapped import Mapped
from yolox_lt.convert.read import find_state, read_file
from yolox_lt.errors import UserError
from yolox_lt.exp import DetectorExp, Exp, ResNetExp, TwoStageExp, YOLOXStarExp
from yolox_lt.exp.load import exp_from_settings

CHANNELS = ("auto", "anchor-major", "category-major")

OWN = "checkpoint of this project"

OWN_ENTRIES = ("exp", "family", "names", "category_ids", "format_version")
"""What is kept of our own checkpoints beside the weights."""

SMALL_TEST_SIZE = (416, 416)
"""Input of official YOLOX-Nano and -Tiny; the others take 640."""

STRUCTURE = (
    *("num_classes", "depth", "width", "act", "depthwise", "neck_shortcut", "resnet_depth", "fpn_channels"),
    *("anchor_scales", "anchor_ratios", "quality", "legacy", "box_code"),
    *("head_width", "class_agnostic_boxes", "normed_classifier"),
)
"""Settings that weights of our own depend on; an experiment given for them must agree."""


def convert(
    source: str | Path, target: str | Path, exp: DetectorExp | None = None, channels: str = "auto"
) -> Conversion:
    """Write the weights in `source` as a checkpoint of this project, or as a backbone file.

    Recognised by content: official YOLOX, released EFL/EQFL files of United-Perception (YOLOX, ResNet), two-stage
    models of mmdetection, torchvision ResNets, and our own checkpoints of any age (the averaged weights, without the
    state of the run).

    Args:
        source: file written by torch.save; nothing in it is executed.
        target: file to write; it appears whole or not at all.
        exp: its settings are stored, and its categories if its annotations are at hand. None: the settings that
            belong to the file.
        channels: order of a released head's channels, "anchor-major", "category-major", or "auto" to decide by the
            weights.

    Raises:
        UserError: a file that cannot be read, is none of these, or whose tensors are not exactly those of the model; an
            experiment that describes another model; source and target are one file. Nothing is written then.
    """
    source, target = Path(source), Path(target)
    if channels not in CHANNELS:
        raise UserError(f"channels {channels!r} is unknown; choose one of {', '.join(CHANNELS)}")
    check_target(source, target)
    content = read_file(source)
    state, place = find_state(content, source)
    try:
        mapped = map_state(content, state, channels)
        described = describe(mapped, content, exp)
        weights = complete_state(mapped, empty_state(mapped, described))
    except UserError as error:
        raise UserError(f"{source}: {error}") from error
    note_left_out(mapped, content, place)
    if described is None:
        depth = mapped.settings["resnet_depth"]
        save_checkpoint(target, {"format": "resnet backbone", "depth": depth, "state_dict": weights})
    else:
        save_checkpoint(target, detector_content(mapped, weights, described, exp, content))
    return Conversion(
        source,
        target,
        mapped.kind,
        model_name(mapped, described),
        described.num_classes if described is not None else None,
        place,
        matched=tuple(weights),
        missing=(),
        unexpected=(),
        reordered=mapped.reordered,
        dropped=mapped.dropped,
        notes=tuple(mapped.notes),
    )


def check_target(source: Path, target: Path) -> None:
    """Refuse a target that cannot be written, or that is the source, before anything is read.

    Raises:
        UserError: see there.
    """
    if source.resolve() == target.resolve() or (source.exists() and target.exists() and source.samefile(target)):
        raise UserError(f"{target}: source and target are the same file; give another target")
    if target.is_dir():
        raise UserError(f"{target}: is a folder; give the name of the file to write")
    if not target.absolute().parent.is_dir():
        raise UserError(f"{target}: its folder does not exist; create it or give another path")


def map_state(content: Any, state: dict[str, Tensor], channels: str) -> Mapped:
    """Recognise the format by its names.

    Raises:
        UserError: none of those known, or `channels` for a format without two anchors.
    """
    if "exp" in content and "model" in content:
        mapped = map_own(content, state)
    elif official.MARK in state:
        mapped = official.map_official(state)
    elif released.YOLOX_MARK in state:
        return released.map_yolox(state, channels)
    elif released.RESNET_MARK in state:
        return released.map_resnet(state, channels)
    elif mmdetection.MARK in state:
        mapped = mmdetection.map_mmdetection(state)
    elif backbone.MARK in state:
        mapped = backbone.map_torchvision(state)
    else:
        raise UserError(
            f"weights of an unknown model (first tensor {next(iter(state))}); official YOLOX, released EFL models, "
            "mmdetection's two-stage models, torchvision ResNets and checkpoints of this project are converted"
        )
    if channels != "auto":
        raise UserError(f"--channels {channels} is for released EFL files only, not for {mapped.kind}; leave it out")
    return mapped


def map_own(content: Mapping[str, Any], state: dict[str, Tensor]) -> Mapped:
    """One of our checkpoints, also from before `family` and `format_version`.

    Raises:
        UserError: written by a newer version, or without usable settings.
    """
    version = content.get("format_version", 0)
    if version > FORMAT_VERSION:
        raise UserError(f"written by a newer version of this project (format {version}); update")
    if not isinstance(content["exp"], dict):
        raise UserError("has no usable settings (exp); give a file that tools/train.py has written")
    settings = {name: content["exp"][name] for name in STRUCTURE if name in content["exp"]}
    return Mapped(OWN, content.get("family", "yolox"), settings, dict(state))


def describe(mapped: Mapped, content: Mapping[str, Any], exp: DetectorExp | None) -> DetectorExp | None:
    """The experiment to store: the one given, else the one that the file's weights belong to; None for a backbone.

    Raises:
        UserError: an experiment of another model than the weights', or one for a backbone.
    """
    if mapped.family == "backbone":
        if exp is not None:
            raise UserError("a backbone has no categories or settings; leave -f out")
        return None
    if exp is None:
        return experiment_for(mapped, content)
    check_agreement(exp, mapped)
    if isinstance(exp, TwoStageExp) and exp.cls_loss == "bags":
        exp.counts_of_training()  # which column a category has depends on them
    return exp


def empty_state(mapped: Mapped, described: DetectorExp | None) -> dict[str, Tensor]:
    """Names and shapes of the model's tensors, without memory."""
    if described is None:
        return backbone.backbone_state(mapped.settings["resnet_depth"])
    with torch.device("meta"):
        return described.get_model().state_dict()


def note_left_out(mapped: Mapped, content: Mapping[str, Any], place: str) -> None:
    """Say which entries of the file beside the weights stay behind: the state of a run, weights not averaged."""
    if not place:
        return
    kept = (place.split(".")[0], *(OWN_ENTRIES if mapped.kind == OWN else ()))
    left = [str(key) for key in content if key not in kept]
    if left:
        mapped.notes.append(f"left out: {', '.join(left)}")


def detector_content(
    mapped: Mapped,
    weights: dict[str, Tensor],
    described: DetectorExp,
    exp: DetectorExp | None,
    content: Mapping[str, Any],
) -> dict[str, Any]:
    """What the checkpoint holds. There is no state of a run: training may start from it but not resume."""
    names, ids, origin = name_categories(described.num_classes, exp, content if mapped.kind == OWN else {})
    mapped.notes.append(f"categories: {origin}")
    return {
        "model": weights,
        "ema": None,
        "exp": plain(described.attributes()),
        "family": mapped.family,
        "names": names,
        "category_ids": ids,
        "epoch": 0,
    }


def complete_state(mapped: Mapped, own: dict[str, Tensor]) -> dict[str, Tensor]:
    """The mapped tensors in the order of the model's state dict `own`, which may be on the meta device.

    Raises:
        UserError: a tensor of the model is missing or has another shape or kind of number, or one of the source has no
            place.
    """
    problems = [f"no {name}" for name in own if name not in mapped.state]
    problems += [f"unknown {name}" for name in [*mapped.unexpected, *(n for n in mapped.state if n not in own)]]
    for name, wanted in own.items():
        found = mapped.state.get(name)
        if found is not None and found.shape != wanted.shape:
            problems.append(f"{name} is {tuple(found.shape)} instead of {tuple(wanted.shape)}")
        elif found is not None and found.is_floating_point() != wanted.is_floating_point():
            problems.append(f"{name} is {found.dtype} instead of {wanted.dtype}")
    if problems:
        raise UserError(
            f"the tensors do not make a complete model, {mapped.kind} ({problems[0]}; {len(problems)} differences); "
            "give the whole file, unchanged"
        )
    return {name: mapped.state[name] for name in own}


def check_agreement(exp: DetectorExp, mapped: Mapped) -> None:
    """Refuse an experiment of another model than the weights', also where shapes cannot tell (shortcuts, anchors).

    Raises:
        UserError: names the first setting that differs.
    """
    if exp.family != mapped.family:
        raise UserError(f"is a {mapped.family} model but -f describes a {exp.family} one; give the matching experiment")
    for name, value in mapped.settings.items():
        own = getattr(exp, name, None)
        if comparable(name, own) != comparable(name, value):
            raise UserError(f"was made with {name} {value} but -f says {name} {own}; give the matching experiment")


def comparable(name: str, value: Any) -> Any:
    """A setting such that two that make the same model are equal."""
    if name == "depth":
        return round(3 * value)
    if name == "width":
        return int(64 * value)
    return tuple(value) if isinstance(value, list) else value


def experiment_for(mapped: Mapped, content: Mapping[str, Any]) -> DetectorExp:
    """The experiment that a file's weights belong to, with default settings for the rest."""
    if mapped.kind == OWN:
        return exp_from_settings(mapped.family, content["exp"])
    made = {"resnet": ResNetExp, "two_stage": TwoStageExp}
    exp: DetectorExp = made.get(mapped.family, YOLOXStarExp)()
    if mapped.kind == official.KIND:
        exp = Exp()
        if official.size_name(mapped.settings) in ("nano", "tiny"):
            exp.test_size = exp.input_size = SMALL_TEST_SIZE
    exp.update(mapped.settings)
    if mapped.settings.get("cls_loss") == "bags":
        raise UserError(
            "holds a classifier in groups, and which column a category has depends on the training annotations; give "
            "an experiment that finds them with -f, for example exps/lvis/faster_rcnn_r50_bags.py"
        )
    return exp


def model_name(mapped: Mapped, described: DetectorExp | None) -> str:
    """YOLOX-S, YOLOX-S* (with the EFL head), ResNet-50, or YOLOX with its depth and width."""
    settings = mapped.settings if described is None else described.attributes()
    if "resnet_depth" in settings:
        return f"ResNet-{settings['resnet_depth']}"
    star = "*" if settings["quality"] == "iou" else ""
    size = official.size_name(settings)
    if size is None:
        return f"YOLOX{star} of depth {settings['depth']}, width {settings['width']}"
    return f"YOLOX-{size.upper() if len(size) == 1 else size.capitalize()}{star}"
