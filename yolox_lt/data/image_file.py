"""One image file: its header is looked at before anything is decoded, then its pixels are read."""

from __future__ import annotations

import io
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from yolox_lt.errors import UserError

MAX_PIXELS = 89_000_000
"""267 MB once decoded, just below the size that Pillow warns of. Larger images are to be cut into tiles."""

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "PPM", "JPEG2000")
"""What OpenCV decodes and Pillow knows the headers of."""


class BadImageError(UserError):
    """An image file that is missing, cannot be decoded, or is not of the size that the annotations say.

    path: of the file, "" if the error came from another process.
    """

    def __init__(self, message: str, path: str | Path = "") -> None:
        super().__init__(message)
        self.path = str(path)


def read_image_file(path: Path, width: int, height: int, entry: str) -> np.ndarray:
    """uint8 [H, W, 3] BGR, upright: an EXIF rotation is applied, as annotation tools, demo and api do.

    Grey images fill three channels, alpha is dropped, 16 bits lose the lower 8, CMYK becomes BGR.

    Args:
        path: of the file.
        width, height: that the annotations give, in pixels of the image as it is shown.
        entry: of the annotations, for messages.

    Raises:
        BadImageError: missing, undecodable, of more than MAX_PIXELS, or of another size than the annotations say.
    """
    skip = f"or set skip_bad_images True ({entry})"
    if not path.is_file():  # also a loop of links, a device or a pipe
        raise BadImageError(f"{path}: image file not found; check data_dir and the image folder, {skip}", path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise BadImageError(f"{path}: cannot be read ({error.strerror}); check it, {skip}", path) from error
    size, is_turned = header_size(data)
    if size is None:
        raise BadImageError(f"{path}: not a readable image ({len(data)} bytes); repair it, {skip}", path)
    if size[0] * size[1] > MAX_PIXELS:
        raise BadImageError(
            f"{path}: has more than {MAX_PIXELS // 10**6} million pixels; cut it into tiles, {skip}", path
        )
    if size != (width, height) and is_turned and size == (height, width):
        raise BadImageError(
            f"{path}: has an EXIF rotation, so it is shown as {size[0]}x{size[1]}, but the annotations "
            f"say {width}x{height}, as it is stored; write them with the size and the boxes of the image as shown, or "
            f"store the images upright, {skip}",
            path,
        )
    if size != (width, height):
        raise BadImageError(
            f"{path}: image is {size[0]}x{size[1]} but the annotations say {width}x{height}; "
            f"correct the annotation file, {skip}",
            path,
        )
    image = decode(data)
    if image is None or image.shape != (height, width, 3):
        raise BadImageError(f"{path}: image data is cut off or damaged; repair it, {skip}", path)
    return image


PNG_DEPTH = 24
"""Place of the byte in a PNG that says how many bits a channel has."""


def highest_level(path: Path) -> int | None:
    """The highest value of a PNG or TIFF of 16 bits a channel; None for other files, and for one that is damaged."""
    if path.suffix.lower() not in (".png", ".tif", ".tiff"):
        return None
    with path.open("rb") as file:
        head = file.read(PNG_DEPTH + 1)
    if path.suffix.lower() == ".png" and head[PNG_DEPTH:] != b"\x10":
        return None
    try:
        image = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error:
        return None
    return int(image.max()) if image is not None and image.dtype == np.uint16 else None


EXIF_ORIENTATION = 0x0112
"""Tag of the EXIF entry that says how an image is to be turned; values from 5 on exchange width and height."""


def header_size(data: bytes) -> tuple[tuple[int, int] | None, bool]:
    """(width, height) as shown, from the header of an image file's content, None if it is no image of FORMATS; and
    whether an EXIF rotation exchanges them.
    """
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as header:
            return shown_size(header)
    except Image.DecompressionBombError:
        return (MAX_PIXELS, 2), False
    except Exception:  # broken headers make Pillow raise many kinds
        return None, False


def shown_size(header: Image.Image) -> tuple[tuple[int, int], bool]:
    """(width, height) of an opened image as shown, and whether an EXIF rotation exchanges them.

    Only JPEG: OpenCV applies the entry of no other format everywhere.
    """
    turned = header.format == "JPEG" and header.getexif().get(EXIF_ORIENTATION, 1) >= 5
    return (header.size[::-1] if turned else header.size), turned


def decode(data: bytes) -> np.ndarray | None:
    """uint8 [H, W, 3] BGR upright, None if OpenCV cannot decode it to its end."""
    try:
        return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error:
        return None
