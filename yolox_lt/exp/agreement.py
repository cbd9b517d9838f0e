"""Whether an experiment and a checkpoint belong together: what a resumed run and an evaluation do where they differ."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from yolox_lt.checkpoint import plain
from yolox_lt.errors import UserError
from yolox_lt.exp.data import DataExp
from yolox_lt.exp.settings import BaseExp

STRUCTURE = frozenset(
    {"num_classes", "depth", "width", "act", "depthwise", "neck_shortcut", "quality", "anchor_scales", "anchor_ratios"}
    | {"resnet_depth", "fpn_channels", "box_code", "legacy", "pixel_mean", "pixel_std", "recipe"}
    | {"pad_value"}
    | {"head_width", "class_agnostic_boxes", "normed_classifier", "group_bins"}
)
"""What the network is and what it is shown: other values make the same weights another detector."""

OWN_STRUCTURE = {"two_stage": frozenset({"cls_loss"})}
"""Family -> what is structure there alone: the loss says what the classifier's columns are."""

LOSS = frozenset(
    {"assigner", "atss_cells", "cls_loss", "loss_alpha", "loss_gamma", "loss_scale", "loss_focusing", "loss_weighting"}
    | {
        "loss_alpha_in_statistic",
        "loss_focus",
        "loss_ratio",
        "loss_horizon",
        "cls_weight",
        "l1",
        "box_loss",
        "box_weight",
        "quality_weight",
    }
    | {"eql_threshold", "eql_frequency", "eqlv2_weights", "seesaw_exponents", "others_ratio", "class_weights"}
)
"""What is minimised; the state of the loss in a checkpoint belongs to it."""

OPTIMIZER = frozenset(
    {"optimizer", "momentum", "nesterov", "weight_decay", "decay_all", "cls_bias_decay", "ema", "ema_decay", "ema_ramp"}
    | {"trainable_layers", "freeze_bn", "classifier_only", "freeze"}
)
"""What the optimiser's state in a checkpoint is made for."""

ORDER = frozenset(
    {"seed", "sampler", "repeat_thresh", "repeat_rounding", "partners", "keep_empty", "group_aspect", "epoch_length"}
    | {"val_share", "repeat_power", "repeat_cap"}
    | {"glyph_categories", "glyph_image_size", "glyph_object_size", "glyph_profile", "glyph_seed"}
    | {"glyph_train_images", "glyph_val_images"}
)
"""What decides which images come next."""

START = frozenset({"fresh_std"})
"""What the first step began with."""

TEST = frozenset(
    {"test_size", "test_conf", "nmsthre", "pre_nms", "multi_label", "max_detections", "expand_detections"}
    | {"score_voting"}
)
"""What an evaluation may choose again, and says."""

OF_THE_PLACE = frozenset({"output_dir", "exp_name"})
"""Where the run's folder is now; a folder may have been moved."""

OF_THE_DATA = frozenset({"category_counts"})
"""What a run has counted at its beginning; an experiment does not set it."""

FOR_INFERENCE = frozenset(
    {"get_model", "get_coder", "get_predictor", "get_preprocessor", "normalize", "get_eval_transform", "get_collate"}
    | {"get_cls_loss", "num_outputs", "class_scores"}
)
"""Methods that decide what a trained detector finds."""

OF_THE_WEIGHTS = ("neck_shortcut", "pad_value")
"""What weights of YOLOX were trained with and no shape tells: runs from them take it over, see `adopt_weights`."""

FIXED = STRUCTURE | LOSS | OPTIMIZER | ORDER | START
"""What a resumed run cannot change."""


def differences(exp: BaseExp, settings: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Settings with another value than a checkpoint's: name -> (now, in the checkpoint). Both must have them.

    Args:
        settings: the part "exp" of a checkpoint.
    """
    now = plain(exp.attributes())
    return {name: (now[name], was) for name, was in settings.items() if name in now and now[name] != was}


def resume_settings(exp: DataExp, content: dict[str, Any], given: Iterable[str] | None, path: str | Path) -> list[str]:
    """Give a resumed run the settings it began with, but for those that are now set on purpose.

    What the experiment leaves to the data is the checkpoint's. On purpose is what the command line sets, and what the
    experiment file sets otherwise than when the run began. Of those, schedule, speed, augmentation and places are
    applied; structure, loss, optimiser and data order are refused.

    Args:
        exp: is changed. content: a checkpoint. given: names of settings on the command line; None: all of `exp`'s are
            on purpose (a run started from Python). path: of the checkpoint, for messages.

    Returns:
        What to say: a line of what stays as the run began, and one for each setting that changes.

    Raises:
        UserError: a setting that a resumed run cannot change, with both values.
    """
    left = exp.left_to_data()
    exp.update({name: value for name, value in content["exp"].items() if name in left})
    first = content.get("given")  # None in checkpoints of earlier versions, which did not record it
    kept, said = [], []
    for name, (now, was) in differences(exp, content["exp"]).items():
        wanted = given is None or name in given or (first is not None and name not in first)
        wanted = wanted and (name not in OF_THE_WEIGHTS or is_explicit(exp, name))
        if name in OF_THE_PLACE:
            continue
        if name in OF_THE_DATA and not now:
            exp.update({name: was})
            continue
        if not wanted or (name == "seed" and now is None):
            exp.update({name: was})
            kept.append(f"{name} {was!r} ({now!r})")
        elif name in FIXED:
            raise UserError(
                f"{path}: the run began with {name} {was!r}, now it is {now!r}, which a resumed run cannot change; "
                f"resume with {name} {was!r}, or start a new run from these weights with -c and without --resume"
            )
        else:
            said.append(f"{name} {now!r} from now on, until here {was!r}")
    if kept:
        said.insert(0, f"settings as the run began, in brackets the experiment's now: {', '.join(kept)}")
    return said


def check_structure(exp: BaseExp, content: dict[str, Any], path: str | Path) -> list[str]:
    """Refuse to run a checkpoint's weights in another network than they were trained in.

    Args:
        exp: of the evaluation. content: the checkpoint. path: of the checkpoint, for messages.

    Returns:
        What to say, a line for each test setting that differs.

    Raises:
        UserError: a structural setting that differs, with both values.
    """
    found = differences(exp, content["exp"])
    for name, (now, was) in found.items():
        if name in STRUCTURE | OWN_STRUCTURE.get(exp.family, frozenset()):
            raise UserError(
                f"{path}: was trained with {name} {was!r}, the experiment has {now!r}; leave out -f, so that the "
                f"checkpoint's own settings count, or add {name} {as_word(was)}"
            )
    return [f"{name} {now!r} (the checkpoint has {was!r})" for name, (now, was) in found.items() if name in TEST]


def adopt_given(exp: DataExp, content: dict[str, Any], given: Iterable[str]) -> None:
    """Give an experiment from a file what the command line of the training set, unless this command line sets it too,
    and what the file leaves to the data.

    Args:
        exp: is changed. content: the checkpoint. given: names of settings on this command line.
    """
    names = set(content.get("given", ())) - set(given) - OF_THE_PLACE
    names |= {name for name in OF_THE_WEIGHTS if not is_explicit(exp, name)} | exp.left_to_data()
    exp.update({name: value for name, value in content["exp"].items() if name in names})


def adopt_weights(exp: BaseExp, content: dict[str, Any], path: str | Path) -> list[str]:
    """Give a run that starts from a YOLOX checkpoint's weights the neck shortcuts and the padding they know.

    Args:
        exp: is changed, but for what it sets itself. content: the checkpoint at `path`.

    Returns:
        What to say, a line for each setting that changes.
    """
    theirs = content["exp"]
    if exp.family != "yolox" or content.get("family", "yolox") != "yolox":
        return []
    now = {"neck_shortcut": getattr(exp, "neck_shortcut", None), "pad_value": padding(plain(exp.attributes()))}
    was = {"neck_shortcut": theirs.get("neck_shortcut"), "pad_value": padding(theirs)}
    said = []
    for name in OF_THE_WEIGHTS:
        if was[name] is None or was[name] == now[name] or is_explicit(exp, name):
            continue
        exp.update({name: was[name]})
        said.append(f"{path}: was trained with {name} {was[name]}, so this run has it too, not its own {now[name]}")
    return said


def padding(settings: dict[str, Any]) -> int | None:
    """Grey level around the images under a YOLOX experiment's settings, None where they do not say."""
    own: int | None = settings.get("pad_value")
    return {"official": 114, "released": 0}.get(settings.get("recipe", "")) if own is None else own


def is_explicit(exp: BaseExp, name: str) -> bool:
    """Whether the user sets this: on the command line, on the object, or in a class outside of this package."""
    return name in vars(exp) or any(name in vars(cls) for cls in type(exp).__mro__ if not is_ours(cls))


def overridden_methods(exp: BaseExp) -> list[str]:
    """The methods of `FOR_INFERENCE` that a class outside of this package has, by name."""
    own = {
        name for cls in type(exp).__mro__ if not is_ours(cls) for name, value in vars(cls).items() if callable(value)
    }
    return sorted(own & FOR_INFERENCE)


def is_ours(cls: type) -> bool:
    """Whether a class is of this package or of Python itself."""
    return cls is object or cls.__module__.startswith("yolox_lt.")


def check_overrides(exp: BaseExp, content: dict[str, Any], path: str | Path) -> None:
    """Refuse to use a checkpoint without the methods that its own experiment overrides.

    Args:
        exp: what is to be used. content: the checkpoint; those of earlier versions did not record it.

    Raises:
        UserError: `exp` lacks a method.
    """
    missing = sorted(set(content.get("overrides", ())) - set(overridden_methods(exp)))
    if missing:
        file = content.get("exp_file") or "its experiment file"
        raise UserError(
            f"{path}: its experiment overrides {', '.join(missing)}, which no checkpoint holds; give the file with "
            f"-f {file} or load(..., exp={file!r})"
        )


def match_categories(names: Sequence[str], theirs: Sequence[str], where: str | Path, whose: str) -> np.ndarray | None:
    """Labels int64 [C] in an annotation file of the categories `names`, -1 for those that it does not list; None if
    they are the same in the same order.

    Args:
        names: of the model. theirs: of the file `where`. whose: what the names are, for messages.

    Raises:
        UserError: the file lists a category that the model does not have, or a name twice.
    """
    if list(names) == list(theirs):
        return None
    unknown = [name for name in theirs if name not in names]
    if unknown:
        raise UserError(
            f"{where}: lists {', '.join(map(repr, unknown[:3]))}{', ...' if len(unknown) > 3 else ''}, which {whose} "
            f"does not have ({', '.join(names[:3])}, ...); give annotations of the same categories, or rename them "
            "with category_map"
        )
    twice = next((name for some in (names, theirs) for name in some if list(some).count(name) > 1), None)
    if twice is not None:
        raise UserError(
            f"{where}: two categories are called {twice!r}, so they cannot be matched with {whose} by name; rename "
            "one, or number both files alike"
        )
    place = {name: label for label, name in enumerate(theirs)}
    return np.array([place.get(name, -1) for name in names], np.int64)


def as_word(value: Any) -> str:
    """A setting's value as it is written on a command line."""
    return str(tuple(value)).replace(" ", "") if isinstance(value, list) else str(value)


def check_categories(names: Iterable[str], content: dict[str, Any], path: str | Path, where: str | Path) -> None:
    """Refuse to resume with other categories than those of the checkpoint, or with the same in another order.

    Args:
        names: of the training annotations at `where`. content: the checkpoint at `path`.

    Raises:
        UserError: with the first category that differs.
    """
    own, theirs = list(names), list(content.get("names", names))
    if own == theirs:
        return
    pairs = [(i, a, b) for i, (a, b) in enumerate(zip(own, theirs), 1) if a != b]
    if pairs:
        position, here, there = pairs[0]
        first = f"category {position} of {where} is {here!r}, in the checkpoint {there!r}"
        more = f" ({len(pairs) - 1} more differ)" if len(pairs) > 1 else ""
    else:
        first, more = f"{where} has {len(own)} categories, the checkpoint {len(theirs)}", ""
    raise UserError(
        f"{path}: {first}{more}; resume with the annotations that the run began with, or start a new run from these "
        "weights with -c and without --resume, which matches categories by name"
    )
