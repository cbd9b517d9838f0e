"""Sizes from JPEG headers equal those of the decoded images."""

from __future__ import annotations

import io

import cv2
import numpy as np
import pytest
from PIL import Image

from yolox_lt.data.image_size import jpeg_size, jpeg_sizes
from yolox_lt.errors import UserError


def jpeg(height: int, width: int, mode: str = "RGB", **options: object) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.zeros((height, width, 3), np.uint8)).convert(mode).save(file, "JPEG", **options)
    return file.getvalue()


def rotated() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned by 90 degrees
    return jpeg(30, 47, exif=exif, icc_profile=bytes(70_000))  # segments longer than one header can hold


CASES = {
    "baseline": jpeg(37, 501),
    "progressive": jpeg(5, 3, progressive=True),
    "grey": jpeg(1, 2, "L"),
    "cmyk": jpeg(640, 480, "CMYK"),
    "rotated": rotated(),
    "comment": jpeg(9, 8, comment=b"\xff\xc0" * 300),  # what looks like a frame inside another segment
    "filled": b"\xff\xd8\xff\xff\xff" + jpeg(9, 8)[3:],  # markers may be filled up with 0xff
}


@pytest.mark.parametrize("name", CASES)
def test_jpeg_size__of_the_pixels_as_shown(name, tmp_path):
    path = tmp_path / "a.jpg"
    path.write_bytes(CASES[name])
    pixels = cv2.imread(str(path))
    assert jpeg_size(path) == pixels.shape[:2]


def test_jpeg_sizes__many_files_in_order(tmp_path):
    names = [f"{k}.jpg" for k in range(1100)]
    for k, name in enumerate(names):
        (tmp_path / name).write_bytes(CASES["baseline" if k % 3 else "grey"])
    sizes = jpeg_sizes(tmp_path, names)
    assert sizes.dtype == np.int64
    np.testing.assert_array_equal(sizes, [(37, 501) if k % 3 else (1, 2) for k in range(1100)])
    assert jpeg_sizes(tmp_path, []).shape == (0, 2)


@pytest.mark.parametrize(
    "content", [b"", b"GIF89a", b"\xff\xd8", CASES["baseline"][:100], b"\xff\xd8\x00\x00" + CASES["baseline"]]
)
def test_jpeg_size__not_a_jpeg(content, tmp_path):
    path = tmp_path / "a.jpg"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"a\.jpg: not a JPEG with a size in its header; copy the file again"):
        jpeg_size(path)


def test_jpeg_size__no_such_file(tmp_path):
    with pytest.raises(UserError, match=r"a\.jpg: image file not found; complete the folder, or leave its rows out"):
        jpeg_sizes(tmp_path, ["a.jpg"])
