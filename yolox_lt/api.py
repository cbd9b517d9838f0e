"""The three lines of a Python user: load a checkpoint, call it on images, use the detections."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from loguru import logger
from torch import Tensor

from yolox_lt.calibrate import Calibrator, fold_into
from yolox_lt.calibrate.calibrator_state import calibrator_of, thresholds_of
from yolox_lt.checkpoint import check_weights, data_root_beside, load_checkpoint, load_weights
from yolox_lt.convert.conversion import OWN, map_state
from yolox_lt.convert.read import find_state, read_file
from yolox_lt.errors import UserError
from yolox_lt.exp import DetectorExp, Exp, get_exp
from yolox_lt.exp.agreement import adopt_given, check_overrides, check_structure
from yolox_lt.exp.load import exp_from_settings
from yolox_lt.inference import LoadedDetector, check_device
from yolox_lt.weights import find_weights

__all__ = ["LoadedDetector", "load", "read_checkpoint", "weights_of"]


def load(
    checkpoint: str | Path, device: str | torch.device = "cpu", exp: str | Path | DetectorExp | None = None
) -> LoadedDetector:
    """The detector of a checkpoint; model, categories and test size come from the file, the averaged weights if it has
    them. Nothing in the file is executed.

    The name of an official model works as well: yolox-nano comes with the package, yolox-tiny, s, m, l and x are
    downloaded at their first use. Files that `export` has written (.onnx, .torchscript) are loaded too and called
    alike.

    Args:
        exp: experiment, or its file (Python, which is executed), for a checkpoint whose experiment overrides methods.
            Its settings count, but for those that the command line of the training set.

    Raises:
        UserError: unreadable file, a file of another project, weights that do not fit the settings beside them, an
            experiment of another structure or without the methods of the checkpoint's, or a device that is not there.
    """
    suffix = Path(checkpoint).suffix
    if suffix in (".onnx", ".torchscript"):
        from yolox_lt.export import runtime  # onnxruntime and what it needs, where it is used alone

        return (runtime.load_onnx if suffix == ".onnx" else runtime.load_torchscript)(checkpoint, device, exp)
    place = check_device(device)
    content = read_checkpoint(checkpoint)
    if "names" not in content:
        raise UserError(f"{checkpoint}: has no category names; give a file that tools/train.py has written")
    exp = experiment_of(content, checkpoint, exp)
    try:
        with torch.device("meta"):  # settings of a hostile file may ask for any size: no memory before they fit
            check_weights(exp.get_model(), weights_of(content), checkpoint)
        model = exp.get_model()
    except UserError:
        raise
    except Exception as error:  # settings of any type reach any layer
        raise UserError(f"{checkpoint}: its settings make no model ({error}); train or copy it again") from error
    load_weights(model, weights_of(content), checkpoint)
    model, calibrator = calibrated(model, content, exp, checkpoint)
    thresholds = thresholds_of(content, checkpoint)
    if thresholds is not None:
        logger.info(
            f"{checkpoint}: every category is reported from its own threshold on ({thresholds.rule}), conf='auto'"
        )
    model.to(place).to(memory_format=torch.channels_last).eval()
    return LoadedDetector(model, exp, tuple(content["names"]), place, calibrator, thresholds)


def calibrated(
    model: torch.nn.Module, content: dict[str, Any], exp: DetectorExp, path: str | Path
) -> tuple[Any, Calibrator | None]:
    """A checkpoint's model with its calibrator folded into a copy, and what could not be folded.

    Raises:
        UserError: a calibrator of other categories.
    """
    calibrator = calibrator_of(content, path)
    if calibrator is None:
        return model, None
    return fold_into(model, calibrator, exp.get_predictor().scores is not None)


def experiment_of(
    content: dict[str, Any],
    path: str | Path,
    exp: str | Path | DetectorExp | None = None,
    pairs: Sequence[str] = (),
) -> DetectorExp:
    """The experiment with which a checkpoint is used: the one given, or the checkpoint's own settings.

    Test settings in which a given one differs from the checkpoint are said.

    Args:
        content: of the checkpoint at `path`. exp: experiment or its file. pairs: KEY VALUE overrides.

    Raises:
        UserError: another structure than the checkpoint's, or without the methods that its experiment overrides.
    """
    own = as_exp(exp)
    if own is None:
        own = exp_from_settings(content.get("family", Exp.family), content["exp"])
        if own.data_dir is None:
            own.data_dir = data_root_beside(Path(path))
    elif isinstance(exp, DetectorExp):
        own = copy.copy(exp)
        adopt_given(own, content | {"given": ()}, ())
    else:
        adopt_given(own, content, pairs[::2])
    own.merge(list(pairs))
    for line in check_structure(own, content, path):
        logger.warning(f"{path}: {line}")
    check_overrides(own, content, path)
    return own


def as_exp(exp: str | Path | DetectorExp | None) -> DetectorExp | None:
    """The experiment itself, of a file the one in it."""
    return get_exp(exp) if isinstance(exp, (str, Path)) else exp


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """`load_checkpoint` of a file or of an official model's name, with a remedy for files of other projects.

    Raises:
        UserError: as `load_checkpoint`; a foreign detector is named, with the command that converts it.
    """
    try:
        return load_checkpoint(find_weights(path))
    except UserError as error:
        kind = foreign_detector(Path(path))
        if kind is None:
            raise
        raise UserError(
            f"{path}: {kind}, no checkpoint of this project; convert it with python tools/convert.py {path} NEW.pth, "
            "or yolox-lt convert where there is no checkout"
        ) from error


def foreign_detector(path: Path) -> str | None:
    """What a file of another project holds if `convert` can make a detector of it, for example "official YOLOX"."""
    try:
        content = read_file(path)
        state, _ = find_state(content, path)
        mapped = map_state(content, state, "auto")
    except UserError:
        return None
    return mapped.kind if mapped.kind != OWN and mapped.family != "backbone" else None


def weights_of(content: dict[str, Any]) -> dict[str, Tensor]:
    """The weights to use for inference: averaged ones if there are any."""
    return content["ema"]["model"] if content.get("ema") else content["model"]
