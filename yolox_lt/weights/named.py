"""From the name of an official model (yolox-nano, tiny, s, m, l, x) to a checkpoint of this project on this machine.

YOLOX-Nano lies beside this file. Another size is downloaded at its first use, converted and kept in the cache folder
with a record of size and SHA-256; later uses check the record.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
from pathlib import Path
from typing import Any

from loguru import logger

from yolox_lt.convert import convert
from yolox_lt.errors import UserError
from yolox_lt.weights.download import download

BUILT_IN = Path(__file__).with_name("yolox_nano_coco.pt")

RELEASE = "https://github.com/Megvii-BaseDetection/YOLOX/releases/download/0.1.1rc0"
"""Folder of the official files, or what the environment variable `MIRROR` says."""

MIRROR = "YOLOX_LT_MIRROR"

NAME = re.compile(r"yolox[-_](nano|tiny|s|m|l|x)(?::([0-9a-fA-F]{8,64}))?")
"""yolox-s, or yolox-s:HASH with the first 8 or more digits of the SHA-256 that the official file must have."""


def find_weights(checkpoint: str | Path) -> Path:
    """The file that a checkpoint's path or the name of an official model stands for; a file of that name goes first.

    Raises:
        UserError: the official file cannot be had, or is another one than it was or should be.
    """
    found = NAME.fullmatch(str(checkpoint))
    if found is None or Path(checkpoint).exists():
        return Path(checkpoint)
    size, wanted = found[1], (found[2] or "").lower()
    if size == "nano" and not wanted:
        return BUILT_IN
    folder = cache_folder()
    with open(folder / f"yolox_{size}.lock", "w") as file:
        fcntl.lockf(file, fcntl.LOCK_EX)  # a second process waits, and finds what the first one has fetched
        return cached(folder, size, wanted)


def cached(folder: Path, size: str, wanted: str) -> Path:
    """The converted file of a size in the cache `folder`, after a download if it is not there.

    Args:
        wanted: the beginning of the official file's SHA-256, empty for any.
    """
    target, record_file = folder / f"yolox_{size}_coco.pth", folder / f"yolox_{size}_coco.json"
    record = read_record(record_file)
    check_hash(record.get("sha256", wanted), wanted, target, f"delete {record_file} and {target} to download it again")
    if record and target.is_file():
        if sha256(target) == record["converted_sha256"]:
            return target
        logger.warning(f"{target}: is not as it was recorded in {record_file}; it is downloaded again")
    url = f"{os.environ.get(MIRROR, RELEASE).rstrip('/')}/yolox_{size}.pth"
    source = download(url, folder / f"yolox_{size}.pth.part")
    found, count = sha256(source), source.stat().st_size
    try:
        check_hash(found, wanted, url, "give the hash of the right file, or another mirror")
        check_hash(found, record.get("sha256", ""), url, f"delete {record_file} if the new file is the right one")
        conversion = convert(source, target)
        if conversion.model.lower() != f"yolox-{size}":
            target.unlink()
            raise UserError(f"{url}: holds {conversion.model}, not yolox-{size}; give another mirror with {MIRROR}")
    finally:
        source.unlink()  # a wrong file would be continued for ever
    record = {"url": url, "bytes": count, "sha256": found, "converted_sha256": sha256(target)}
    record_file.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    logger.info(f"{target}: {conversion.model} from {url}, {count:,} bytes, sha256 {found}")
    return target


def cache_folder() -> Path:
    """Where downloaded weights are kept: `$XDG_CACHE_HOME/yolox_lt`, else ~/.cache/yolox_lt; it is made.

    Raises:
        UserError: it cannot be made.
    """
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "yolox_lt"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"{folder}: cannot be made for downloaded weights ({error.strerror}); set XDG_CACHE_HOME to a folder that "
            "can be written"
        ) from error
    return folder


def read_record(path: Path) -> dict[str, Any]:
    """What is known of a downloaded file since its first use; empty before.

    Raises:
        UserError: a record that cannot be read.
    """
    if not path.is_file():
        return {}
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        return {name: record[name] for name in ("url", "bytes", "sha256", "converted_sha256")}
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: is no record of downloaded weights; delete it, and it is made again") from error


def check_hash(found: str, wanted: str, what: str | Path, remedy: str) -> None:
    """Refuse a file of another SHA-256; `wanted` may be its beginning.

    Raises:
        UserError: see there.
    """
    if not found.startswith(wanted):
        raise UserError(f"{what}: its sha256 is {found}, but {wanted} is wanted; {remedy}")


def sha256(path: Path) -> str:
    """SHA-256 of a file, 64 hexadecimal digits."""
    total = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(2**20):
            total.update(block)
    return total.hexdigest()
