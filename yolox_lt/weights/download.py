"""A file over HTTP, continued where an earlier try stopped."""

from __future__ import annotations

import http.client
import re
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from tqdm import tqdm

from yolox_lt.errors import UserError

TIMEOUT = 30
"""Seconds without a byte after which a server is given up."""

BLOCK = 2**16

ELSEWHERE = "set YOLOX_LT_MIRROR to another server's folder, or convert a file from elsewhere with tools/convert.py"


def download(url: str, part: Path) -> Path:
    """Fetch `url` into `part`, appending to what is there; a bar on a terminal shows the bytes.

    Returns:
        `part`, with as many bytes as the server said.

    Raises:
        UserError: no such file, no connection, or one that broke; what has come stays for the next try.
    """
    if not url.startswith(("http://", "https://")):
        raise UserError(f"{url}: is no address; give YOLOX_LT_MIRROR a folder that begins with http:// or https://")
    start = part.stat().st_size if part.is_file() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={start}-"} if start else {})
    total, done = None, start
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:
            if answer.status != 206:
                start = done = 0  # the server sends the whole file
            total = whole_size(answer, start)
            with open(part, "ab" if start else "wb") as file:
                for block in blocks(answer, total, start, url):
                    file.write(block)
                    done += len(block)
    except urllib.error.HTTPError as error:
        if error.code == 416:  # nothing behind what is there, so that is whole or of another file
            part.unlink()
            return download(url, part)
        raise UserError(f"{url}: the server answers {error.code} {error.reason}; {ELSEWHERE}") from error
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None) or str(error) or type(error).__name__
        if done == start:
            raise UserError(
                f"{url}: cannot be reached ({reason}); yolox-nano needs no network, for others {ELSEWHERE}"
            ) from error
        raise stopped(url, done, total, part) from error
    if total is not None and done != total:
        raise stopped(url, done, total, part)
    return part


def stopped(url: str, done: int, total: int | None, part: Path) -> UserError:
    """The error of a connection that broke."""
    return UserError(
        f"{url}: stopped after {done:,} of {'?' if total is None else f'{total:,}'} bytes, which are kept in {part}; "
        "the same command continues there"
    )


def whole_size(answer: http.client.HTTPResponse, start: int) -> int | None:
    """Bytes of the whole file as the server says, None where it does not."""
    found = re.search(r"/(\d+)$", answer.headers.get("Content-Range", ""))
    length = answer.headers.get("Content-Length")
    if start and found is not None:
        return int(found[1])
    return None if length is None else start + int(length)


def blocks(answer: http.client.HTTPResponse, total: int | None, start: int, url: str) -> Iterator[bytes]:
    """The answer's bytes in pieces, counted by a bar on a terminal."""
    name = url.rsplit("/", 1)[-1]
    with tqdm(total=total, initial=start, unit="B", unit_scale=True, desc=name, disable=None) as bar:
        while block := answer.read(BLOCK):
            bar.update(len(block))
            yield block
