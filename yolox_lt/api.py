"""The three lines of a Python user: load a checkpoint, call it on images, use the detections."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, overload

import cv2
import numpy as np
import torch
from torch import Tensor

from yolox_lt.checkpoint import check_weights, load_checkpoint, load_weights
from yolox_lt.convert.conversion import OWN, map_state
from yolox_lt.convert.read import find_state, read_file
from yolox_lt.data.collate import Item
from yolox_lt.errors import UserError
from yolox_lt.exp import DetectorExp, Exp
from yolox_lt.exp.load import exp_from_settings
from yolox_lt.types import Detections, Predictions, Priors

if TYPE_CHECKING:
    import PIL.Image

Image: TypeAlias = "str | Path | np.ndarray | PIL.Image.Image"
"""A path, an array uint8 [H, W, 3] BGR as OpenCV reads, or a PIL image; see `read_image`."""

Model: TypeAlias = Callable[[Tensor], tuple[Predictions, Priors]]
"""Float images [B, 3, H, W] -> predictions and priors: a Detector, or anything that takes its place."""


class LoadedDetector:
    """A trained detector. Call it on a path, an array (uint8 [H, W, 3] BGR, as OpenCV reads), a PIL image, or a list.

    Several threads may call one detector at the same time: a call changes nothing in it.

    Attributes: names (category names), exp (settings of the checkpoint; what is changed there counts from the next call
    on, `exp.test_size` for example), device (where images go), model (see Model; ready for inference on `device`).
    """

    def __init__(self, model: Model, exp: DetectorExp, names: tuple[str, ...], device: torch.device | str) -> None:
        self.model = model
        self.exp = exp
        self.names = names
        self.device = torch.device(device)

    @overload
    def __call__(
        self, images: Image, conf: float | None = None, class_agnostic: bool = False, batch_size: int = 16
    ) -> Detections: ...
    @overload
    def __call__(
        self,
        images: list[Any] | tuple[Any, ...],
        conf: float | None = None,
        class_agnostic: bool = False,
        batch_size: int = 16,
    ) -> list[Detections]: ...
    # No inference mode: users could not change its tensors in place.
    @torch.no_grad()
    def __call__(
        self,
        images: Image | list[Any] | tuple[Any, ...],
        conf: float | None = None,
        class_agnostic: bool = False,
        batch_size: int = 16,
    ) -> Detections | list[Detections]:
        """Detections in pixels of the image, best first; a list for a list, in its order, empty for an empty one.

        Images that reach the network at one size run as one batch: all of them for YOLOX, whose input is `test_size`.
        The input of ResNet models depends on the image; those of different sizes run one after the other, since
        padding to a common size would make detections depend on the neighbours in the list.

        Args:
            images: one image or several.
            conf: lowest score to report, in [0, 1]; None for the experiment's `test_conf`.
            class_agnostic: keep one category per place, the best; otherwise look-alikes may share it.
            batch_size: images that are in memory at a time, at least 1.

        Raises:
            UserError: something that is no readable image, see `read_image`, or a batch size below 1.
        """
        if batch_size < 1:
            raise UserError(f"batch_size is {batch_size}: give at least 1")
        if not isinstance(images, (list, tuple)):
            return self([images], conf, class_agnostic, batch_size)[0]
        transform = self.exp.get_eval_transform()
        found: list[Detections] = []
        for first in range(0, len(images), batch_size):
            items = [transform(read_image(image)) for image in images[first : first + batch_size]]
            found += self.detect(items, class_agnostic)
        return found if conf is None else [above(detections, conf) for detections in found]

    def detect(self, items: list[Item], class_agnostic: bool) -> list[Detections]:
        """Detections of transformed images, those of equal size in one batch, in the order of `items`."""
        positions: dict[tuple[int, ...], list[int]] = {}
        for position, item in enumerate(items):
            positions.setdefault(item.image.shape, []).append(position)
        predictor = replace(self.exp.get_predictor(self.names), class_agnostic=class_agnostic)
        found: dict[int, Detections] = {}
        for group in positions.values():
            batch = self.exp.get_collate()([items[position] for position in group])
            network_input = self.exp.normalize(batch.images.to(self.device), batch.image_sizes)
            predictions, priors = self.model(network_input)
            size = (network_input.shape[2], network_input.shape[3])
            detected = predictor(predictions, priors, batch.scales, batch.original_sizes, batch.image_sizes, size)
            found.update(zip(group, detected))
        return [found[position] for position in range(len(items))]


def load(checkpoint: str | Path, device: str | torch.device = "cpu") -> LoadedDetector:
    """The detector of a checkpoint; model, categories and test size come from the file, the averaged weights if it has
    them. Nothing in the file is executed.

    Files that `export` has written (.onnx, .torchscript) are loaded too and called alike.

    Raises:
        UserError: unreadable file, a file of another project, weights that do not fit the settings beside them, or a
            device that is not there.
    """
    suffix = Path(checkpoint).suffix
    if suffix in (".onnx", ".torchscript"):
        from yolox_lt.export import runtime  # needs what stands here

        return (runtime.load_onnx if suffix == ".onnx" else runtime.load_torchscript)(checkpoint, device)
    place = check_device(device)
    content = read_checkpoint(checkpoint)
    if "names" not in content:
        raise UserError(f"{checkpoint}: has no category names; give a file that tools/train.py has written")
    exp = exp_from_settings(content.get("family", Exp.family), content["exp"])
    try:
        with torch.device("meta"):  # settings of a hostile file may ask for any size: no memory before they fit
            check_weights(exp.get_model(), weights_of(content), checkpoint)
        model = exp.get_model()
    except UserError:
        raise
    except Exception as error:  # settings of any type reach any layer
        raise UserError(f"{checkpoint}: its settings make no model ({error}); train or copy it again") from error
    load_weights(model, weights_of(content), checkpoint)
    model.to(place).to(memory_format=torch.channels_last).eval()
    return LoadedDetector(model, exp, tuple(content["names"]), place)


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """`load_checkpoint`, with a remedy for files of other projects.

    Raises:
        UserError: as `load_checkpoint`; a foreign detector is named, with the command that converts it.
    """
    try:
        return load_checkpoint(path)
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


def check_device(device: str | torch.device) -> torch.device:
    """The device itself.

    Raises:
        UserError: no name of a device, or a GPU that is not there.
    """
    try:
        place = torch.device(device)
    except RuntimeError as error:
        raise UserError(f"device {device!r} is unknown; give 'cpu', 'cuda' or 'cuda:1'") from error
    count = torch.cuda.device_count()
    if place.type == "cuda" and (place.index or 0) >= count:
        raise UserError(f"device {str(place)!r}: this machine has {count} CUDA GPUs; use device='cpu'")
    return place


def read_image(image: Image) -> np.ndarray:
    """uint8 [H, W, 3] BGR from a path, an array, or a PIL image.

    Images stand upright: an EXIF orientation is applied to files, as OpenCV does, and to PIL images that still carry
    it, so a file and the PIL image opened from it give the same array. (Training and evaluation read files as they are
    stored, since that is what annotations refer to.) Of a file with transparency the colours count alone.

    Raises:
        UserError: a file that is missing or no image, an array of another kind, a PIL image of mode I or F, whose range
            is not defined, or something else.
    """
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
            raise UserError(f"expected an image array uint8 [H, W, 3] BGR, got {image.dtype} {list(image.shape)}")
        return image
    if isinstance(image, (str, Path)):
        return read_file_image(Path(image))
    if callable(getattr(image, "convert", None)) and callable(getattr(image, "getexif", None)):
        return read_pil_image(image)
    raise UserError(f"expected a path, an image array uint8 [H, W, 3] BGR or a PIL image, got {type(image).__name__}")


def read_file_image(path: Path) -> np.ndarray:
    if not path.is_file():
        raise UserError(f"{path}: image file not found; check the path")
    data = np.fromfile(path, dtype=np.uint8)
    decoded = cv2.imdecode(data, cv2.IMREAD_COLOR) if len(data) else None
    if decoded is None:
        raise UserError(f"{path}: not a readable image; give a JPEG, PNG or another format that OpenCV reads")
    return decoded


def read_pil_image(image: PIL.Image.Image) -> np.ndarray:
    from PIL import ImageOps  # no dependency of ours: whoever passes a PIL image has it

    if image.mode in ("I", "F"):
        raise UserError(f"PIL image of mode {image.mode}: its range is not defined; scale it to 0..255, mode L or RGB")
    try:
        upright = ImageOps.exif_transpose(image)
        if upright.mode.startswith("I;16"):  # PIL's own conversion cuts at 255
            grey = (np.asarray(upright) >> 8).astype(np.uint8)
            return np.repeat(grey[:, :, None], 3, axis=2)  # [H, W] -> [H, W, 3]
        return np.ascontiguousarray(np.asarray(upright.convert("RGB"))[:, :, ::-1])  # RGB -> BGR
    except (OSError, ValueError) as error:  # PIL decodes now; its file is cut off or closed
        raise UserError(f"PIL image could not be read ({error}); open a whole file and keep it open") from error


def above(detections: Detections, conf: float) -> Detections:
    keep = detections.scores >= conf
    return Detections(detections.boxes[keep], detections.scores[keep], detections.labels[keep], detections.names)
