"""Images that a Python user or a tool gives, as arrays."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import cv2
import numpy as np

from yolox_lt.errors import UserError

if TYPE_CHECKING:
    import PIL.Image

Image: TypeAlias = "str | Path | np.ndarray | PIL.Image.Image"
"""A path, an array uint8 [H, W, 3] BGR as OpenCV reads, or a PIL image; see `read_image`."""


def read_image(image: Image) -> np.ndarray:
    """uint8 [H, W, 3] BGR from a path, an array, or a PIL image.

    Images stand upright: an EXIF orientation is applied to files, as OpenCV does, and to PIL images that still carry
    it, so a file and the PIL image opened from it give the same array. Training and evaluation read files likewise.
    Of a file with transparency the colours count alone.

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
    """A file upright, uint8 [H, W, 3] BGR; errors as `read_image`."""
    if not path.is_file():
        raise UserError(f"{path}: image file not found; check the path")
    data = np.fromfile(path, dtype=np.uint8)
    decoded = cv2.imdecode(data, cv2.IMREAD_COLOR) if len(data) else None
    if decoded is None:
        raise UserError(f"{path}: not a readable image; give a JPEG, PNG or another format that OpenCV reads")
    return decoded


def read_pil_image(image: PIL.Image.Image) -> np.ndarray:
    """A PIL image upright, uint8 [H, W, 3] BGR; errors as `read_image`."""
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
        raise UserError(f"PIL image could not be read ({error}); open a complete file and keep it open") from error
