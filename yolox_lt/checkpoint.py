"""Checkpoint files: written whole or not at all, loaded without executing anything."""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from yolox_lt.archive import check_archive, is_archive
from yolox_lt.errors import UserError

FORMAT_VERSION = 2


def save_checkpoint(path: Path, content: dict[str, Any]) -> None:
    """Write `content` to a temporary file in the same folder, flush it to disk and rename it to `path`.

    Raises:
        UserError: the folder is full or cannot be written; what was there before stays.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            torch.save(content | {"format_version": FORMAT_VERSION}, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except (OSError, RuntimeError) as error:
        raise UserError(
            f"{path}: checkpoint could not be written ({error}); free space or change output_dir"
        ) from error
    finally:
        with contextlib.suppress(OSError):  # the reason has been given above
            temporary.unlink(missing_ok=True)


def load_checkpoint(path: str | Path, device: str | torch.device = "cpu") -> dict[str, Any]:
    """Read a checkpoint of this project.

    Raises:
        UserError: missing, truncated, not a checkpoint, holding code, declaring more than the file has, of another
            format.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: checkpoint not found; give an existing file with -c")
    if not is_archive(path):
        raise UserError(f"{path}: not a readable checkpoint of this project (cut off, or not written by torch.save)")
    check_archive(path)
    try:
        content = torch.load(path, map_location=device, weights_only=True)
    except OSError:
        raise
    except Exception as error:  # a damaged file fails anywhere inside the unpickler
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise UserError(f"{path}: not a readable checkpoint of this project ({reason})") from error
    check_content(content, path)
    content["exp"] = local_settings(path) | content["exp"]
    # Weights that come with the package are stored in half precision.
    content["model"] = {n: t.float() if t.dtype == torch.float16 else t for n, t in content["model"].items()}
    return content


def check_content(content: Any, path: Path) -> None:
    """Refuse what is no checkpoint of this project before anything of it is used.

    Raises:
        UserError: parts that are missing or of another kind, a newer format.
    """
    if not isinstance(content, dict) or "model" not in content or "exp" not in content:
        raise UserError(
            f"{path}: holds no model and settings of this project; give a file that tools/train.py has written"
        )
    version = content.get("format_version", 0)
    if isinstance(version, int) and version > FORMAT_VERSION:
        raise UserError(f"{path}: written by a newer version of this project (format {version}); update")
    ema = content.get("ema")
    sound = {
        "model": is_state(content["model"]),
        "exp": isinstance(content["exp"], dict) and all(isinstance(name, str) for name in content["exp"]),
        "names": isinstance(content.get("names", []), (list, tuple))
        and all(isinstance(name, str) for name in content.get("names", [])),
        "ema": ema is None or (isinstance(ema, dict) and is_state(ema.get("model"))),
        "format_version": isinstance(version, int),
        "family": isinstance(content.get("family", ""), str),
    }
    for part, is_sound in sound.items():
        if not is_sound:
            raise UserError(f"{path}: its part {part!r} is not what this project writes; train or copy it again")


def is_state(value: Any) -> bool:
    """Whether `value` is a state dict, which may be empty."""
    return isinstance(value, dict) and all(isinstance(k, str) and isinstance(v, torch.Tensor) for k, v in value.items())


def load_weights(model: nn.Module, state: dict[str, torch.Tensor], path: str | Path) -> None:
    """Load every tensor, refusing a file of another model before anything is changed.

    Raises:
        UserError: names or shapes that differ, with the first of them.
    """
    check_weights(model, state, path)
    model.load_state_dict(state, strict=True)


def check_weights(model: nn.Module, state: dict[str, torch.Tensor], path: str | Path) -> None:
    """Refuse weights of another model; the model may be on the meta device, without any memory.

    Raises:
        UserError: names or shapes that differ, with the first of them.
    """
    own = model.state_dict()
    problems = [f"no {key}" for key in own if key not in state]
    problems += [f"unknown {key}" for key in state if key not in own]
    problems += [
        f"{key} is {tuple(state[key].shape)} instead of {tuple(value.shape)}"
        for key, value in own.items()
        if key in state and state[key].shape != value.shape
    ]
    if problems:
        raise UserError(
            f"{path}: weights of another model ({problems[0]}; {len(problems)} differences); "
            "use the exp file that the checkpoint was trained with"
        )


def random_states() -> dict[str, Any]:
    """States of the global generators, as plain tensors and numbers (`weights_only` can read them)."""
    name, keys, position, has_gauss, gauss = np.random.get_state()
    version, internal, extra = random.getstate()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "numpy": [
            str(name),
            torch.from_numpy(np.asarray(keys).astype(np.int64)),
            int(position),
            int(has_gauss),
            float(gauss),
        ],
        "python": [version, list(internal), extra],
    }


def restore_random_states(states: dict[str, Any]) -> None:
    """Inverse of `random_states`."""
    torch.set_rng_state(states["torch"].cpu())
    if states["cuda"] and torch.cuda.is_available() and len(states["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all([s.cpu() for s in states["cuda"]])
    name, keys, position, has_gauss, gauss = states["numpy"]
    np.random.set_state((name, keys.cpu().numpy().astype(np.uint32), position, has_gauss, gauss))
    version, internal, extra = states["python"]
    random.setstate((version, tuple(internal), extra))


def numbered_checkpoints(folder: Path) -> dict[int, Path]:
    """The folder's epoch_N.pth by N."""
    found = ((re.fullmatch(r"epoch_(\d+)\.pth", path.name), path) for path in sorted(folder.glob("epoch_*.pth")))
    return {int(match[1]): path for match, path in found if match}


def remove_old(folder: Path, epoch: int, keep: int) -> None:
    """Keep the latest `keep` of the folder's epoch_N.pth up to `epoch`; later ones stay."""
    numbered = numbered_checkpoints(folder)
    for number in sorted(n for n in numbered if n <= epoch)[:-keep]:
        numbered[number].unlink()


def portable(settings: dict[str, Any]) -> dict[str, Any]:
    """Plain settings without those that name a place of this machine: absolute paths."""
    return {name: value for name, value in settings.items() if not is_local(value)}


def is_local(value: Any) -> bool:
    """Whether a setting is an absolute path, or a list or a dict with one."""
    values = value.values() if isinstance(value, dict) else value if isinstance(value, list) else [value]
    return any(isinstance(text, str) and Path(text).is_absolute() for text in values)


def local_settings(path: Path) -> dict[str, Any]:
    """Absolute paths among the settings of the run in whose folder a checkpoint lies, from its config.json.

    A checkpoint itself holds none, so that it can be given away; empty where there is no config.json that can be read.
    """
    settings = run_config(path).get("exp")
    return {n: value for n, value in settings.items() if is_local(value)} if isinstance(settings, dict) else {}


def data_root_beside(path: Path) -> str | None:
    """Folder of the data of the run in whose folder a checkpoint lies, where its experiment has a `data_root` of its
    own, which settings alone do not know; None otherwise, and where the folder is not there any more.
    """
    root = run_config(path).get("data_root")
    return root if isinstance(root, str) and Path(root).is_dir() else None


def run_config(path: Path) -> dict[str, Any]:
    """config.json in the folder of a checkpoint, empty where there is none that can be read."""
    try:
        content = json.loads(path.with_name("config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def plain(values: dict[str, Any]) -> dict[str, Any]:
    """Settings that a `weights_only` checkpoint can hold; others are left out."""
    allowed = (bool, int, float, str, type(None))
    result: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, allowed):
            result[name] = value
        elif isinstance(value, (tuple, list)) and all(isinstance(v, allowed) for v in value):
            result[name] = list(value)
        elif isinstance(value, dict) and all(isinstance(v, allowed) for item in value.items() for v in item):
            result[name] = dict(value)
    return result
