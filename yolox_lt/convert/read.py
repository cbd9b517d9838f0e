"""Reading a foreign checkpoint without executing anything that is in it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
import torch
from torch import Tensor

from yolox_lt.archive import NUMPY_NUMBERS, check_archive, is_archive
from yolox_lt.errors import UserError


def read_file(path: Path) -> Any:
    """Content of a file written by torch.save: tensors, plain values, and numpy numbers.

    Official YOLOX writes its AP as a numpy number, which `weights_only` alone refuses. Nothing else is let in.

    Raises:
        UserError: missing, truncated, no checkpoint, or holding an object whose loading would run code.
    """
    if not path.is_file():
        raise UserError(f"{path}: file not found; check the path")
    if is_archive(path):
        check_archive(path, NUMPY_NUMBERS | {("numpy.dtypes", kind.__name__) for kind in numpy_dtypes()})
    try:
        with torch.serialization.safe_globals(numpy_number_parts()):
            return torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:  # a damaged file fails anywhere inside the unpickler
        refused = re.search(r"GLOBAL (\S+)", str(error))
        if refused:
            raise UserError(
                f"{path}: holds the Python object {refused[1]}, which is not loaded because that would run code; save "
                "the state dict alone where the file was made"
            ) from error
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise UserError(f"{path}: not a readable checkpoint ({reason}); download or copy it again") from error


def numpy_number_parts() -> list[Any]:
    """What a pickled numpy number is made of, under its names in numpy 1 and 2."""
    scalar = np.float64(0).__reduce__()[0]
    names = ("numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar")
    return [*((scalar, name) for name in names), np.dtype, *numpy_dtypes()]


def numpy_dtypes() -> set[type]:
    """Types of numpy's dtypes of numbers."""
    return {type(np.dtype(code)) for code in "?bBhHiIlLqQefd"}


def find_state(content: Any, path: Path) -> tuple[dict[str, Tensor], str]:
    """The state dict of a file without `module.` prefixes, and its place in the file ("" for the file itself).

    Averaged weights (`ema.ema_state_dict`, in our own files `ema.model`) come before `model` and `state_dict`: they are
    the ones that the released code evaluates.

    Raises:
        UserError: no dict of tensors in any of these places, or two keys that differ by the prefix only.
    """
    outer = content if isinstance(content, dict) else {}
    ema = outer["ema"] if isinstance(outer.get("ema"), dict) else {}
    places = {
        "ema.ema_state_dict": ema.get("ema_state_dict"),
        "ema.model": ema.get("model"),
        "model": outer.get("model"),
        "state_dict": outer.get("state_dict"),
        "": outer,
    }
    for place, found in places.items():
        if not is_state_dict(found):
            continue
        state = {name.removeprefix("module."): tensor.detach() for name, tensor in found.items()}
        if len(state) != len(found):
            twice = next(n for n in found if n.startswith("module.") and n.removeprefix("module.") in found)
            raise UserError(f"{path}: holds both {twice} and the same name without module.; save one of the two")
        return state, place
    raise UserError(
        f"{path}: holds no weights (a dict of tensors, by itself or as model, state_dict or ema.ema_state_dict); "
        "give a checkpoint of official YOLOX, of the released EFL models, of torchvision's ResNets or of this project"
    )


def is_state_dict(found: Any) -> TypeGuard[dict[str, Tensor]]:
    """Whether an object is a dict of names and tensors that is not empty."""
    return (
        isinstance(found, dict)
        and len(found) > 0
        and all(isinstance(name, str) and isinstance(value, Tensor) for name, value in found.items())
    )
