"""Find an experiment: by file, as users write them, or by the name of a stock model."""

from __future__ import annotations

import difflib
import importlib.util
import inspect
import sys
import traceback
from pathlib import Path
from typing import Any

from yolox_lt.errors import UserError
from yolox_lt.exp.detection import DetectorExp
from yolox_lt.exp.hooks import HOOKS
from yolox_lt.exp.resnet import ResNetExp
from yolox_lt.exp.two_stage import TwoStageExp
from yolox_lt.exp.yolox import Exp

FAMILIES: dict[str, type[DetectorExp]] = {cls.family: cls for cls in (Exp, ResNetExp, TwoStageExp)}
"""The class that reads a checkpoint's settings."""

PACKAGED = Path(__file__).resolve().parent / "default"
"""Where an installed package has the files of exps/default, see pyproject.toml."""

DEFAULT_FOLDER = PACKAGED if PACKAGED.is_dir() else PACKAGED.parents[2] / "exps" / "default"


OFFICIAL = {
    "get_dataset": {"cache_type"},
    "get_data_loader": {"batch_size", "is_distributed", "no_aug", "cache_img"},
    "get_eval_loader": {"is_distributed", "testdev", "legacy"},
    "get_evaluator": {"is_distributed", "testdev", "legacy"},
    "random_resize": {"data_loader", "loader", "epoch", "is_distributed"},
    "get_trainer": {"args"},
    "eval": {"is_distributed", "half", "return_outputs"},
}
"""Methods of official YOLOX's experiments that take other parameters here -> names that only the official ones have."""


def get_exp(file: str | Path | None = None, name: str | None = None) -> DetectorExp:
    """The experiment in `file` (class `Exp`), or the stock one called `name` (yolox-s, yolox_m, ...).

    The file is Python and is executed. `exp_name` is the file's stem unless the file sets it.

    Raises:
        UserError: neither or both given, no such file, an error inside the file (its line and message are given), no
            class Exp.
    """
    if (file is None) == (name is None):
        raise UserError("give an experiment: either -f FILE or -n NAME (for example -f exps/lvis/yolox_s_eqfl.py)")
    if name is not None:
        file = DEFAULT_FOLDER / f"{name.replace('-', '_')}.py"
        if not file.is_file():
            stock = sorted(p.stem.replace("_", "-") for p in DEFAULT_FOLDER.glob("*.py"))
            raise UserError(f"-n {name}: unknown model; choose one of {', '.join(stock)}")
    path = Path(str(file))
    if not path.is_file():
        raise UserError(f"{path}: experiment file not found; check the path after -f")
    exp = load_class(path)()
    exp._file = path.name
    if not exp.exp_name:
        exp.exp_name = path.stem
    check_names(exp, path)
    check_signatures(type(exp), path)
    return exp


def load_class(path: Path) -> type[DetectorExp]:
    """Execute the file and return its class Exp."""
    # A module name of its own: the file's stem may equal that of an installed module.
    spec = importlib.util.spec_from_file_location(f"yolox_lt_exp_{path.stem}_{abs(hash(path.resolve()))}", path)
    if spec is None or spec.loader is None:
        raise UserError(f"{path}: not a Python file; an experiment is a .py file with a class Exp")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if Path(f.filename) == path.resolve()]
        lines = lines or [
            f.lineno for f in traceback.extract_tb(error.__traceback__) if Path(f.filename).name == path.name
        ]
        where = f"{path}, line {lines[-1]}" if lines else str(path)
        if isinstance(error, ModuleNotFoundError) and (error.name or "").partition(".")[0] == "yolox":
            raise UserError(
                f"{where}: imports {error.name}, official YOLOX; write yolox_lt.exp in place of yolox.exp (README, "
                "Coming from YOLOX, has what else differs)"
            ) from error
        raise UserError(f"{where}: {type(error).__name__}: {error}; fix the experiment file") from error
    cls = getattr(module, "Exp", None)
    if not isinstance(cls, type) or not issubclass(cls, DetectorExp):
        raise UserError(f"{path}: has no class Exp derived from yolox_lt.exp.Exp")
    return cls


def check_names(exp: DetectorExp, path: Path) -> None:
    """Refuse a misspelt setting: an attribute that the library does not know but that resembles one it does."""
    known = {name for base in type(exp).__mro__ if base.__module__.startswith("yolox_lt.") for name in vars(base)}
    for name in exp.attributes():
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1, cutoff=0.85)
            if close:
                raise UserError(f"{path}: sets {name!r}, which is no setting; did you mean {close[0]!r}?")
    for name in dir(exp):
        if name.startswith("on_") and name not in HOOKS:
            raise UserError(f"{path}: has {name!r}, which is no callback; choose one of {', '.join(HOOKS)}")


def check_signatures(cls: type[DetectorExp], path: Path) -> None:
    """Refuse a method that is written for official YOLOX, whose parameters are others."""
    for name in ("get_optimizer", *OFFICIAL):
        found = getattr(cls, name)
        if found.__module__.startswith("yolox_lt."):
            continue
        ours, theirs = (inspect.signature(f).parameters for f in (getattr(DetectorExp, name, None) or found, found))
        takes_all = any(p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD) for p in theirs.values())
        lacks_model = name == "get_optimizer" and "model" not in theirs and not takes_all
        if lacks_model or OFFICIAL.get(name, set()) & set(theirs) - set(ours):
            raise UserError(
                f"{path}: {name}({', '.join([*theirs][1:])}) is written for official YOLOX; here it is "
                f"{name}({', '.join([*ours][1:])}): change the method (README, Coming from YOLOX)"
            )


def exp_from_settings(family: str, settings: dict[str, Any]) -> DetectorExp:
    """The experiment that a checkpoint describes.

    Raises:
        UserError: a family that this version does not know.
    """
    if family not in FAMILIES:
        raise UserError(f"the checkpoint is of a {family!r} model; known are {', '.join(FAMILIES)}; update")
    exp = FAMILIES[family]()
    exp.update(settings)
    return exp
