"""The demo page: a local web server on the standard library that detects objects in the images one gives it.

Images stay on the machine that runs it. The page comes from yolox_lt/report/page/web/ and loads nothing from elsewhere.
"""

from __future__ import annotations

import contextlib
import io
import json
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import resources
from typing import Any

import cv2
import numpy as np
from loguru import logger
from PIL import Image

from yolox_lt.errors import UserError
from yolox_lt.inference import LoadedDetector

MAX_BYTES = 20 * 2**20
MAX_PIXELS = 50_000_000
"""150 MB once decoded: larger than photographs, smaller than what an image made to fill the memory needs."""

FORMATS = ("JPEG", "PNG", "WEBP", "BMP")
"""What both browsers and OpenCV read."""

PAGES = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/app.js": ("app.js", "text/javascript; charset=utf-8"),
    "/style.css": ("style.css", "text/css; charset=utf-8"),
}

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


class RefusedError(Exception):
    """A request that is not answered: status and one sentence."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status
        self.sentence = sentence


class DemoServer(ThreadingHTTPServer):
    """Serves the page, and detections of `detector`, one image at a time: memory stays that of one."""

    daemon_threads = True
    allow_reuse_port = False  # a second server on the same port has to fail

    def __init__(self, address: tuple[str, int], detector: LoadedDetector) -> None:
        super().__init__(address, Handler)
        self.detector = detector
        self.turn = threading.Lock()
        folder = resources.files("yolox_lt.report.page") / "web"
        self.pages = {path: (folder.joinpath(name).read_bytes(), kind) for path, (name, kind) in PAGES.items()}

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Called inside the handling of an exception; a client that went away is no error of ours."""
        if isinstance(sys.exc_info()[1], (ConnectionError, TimeoutError)):
            logger.debug(f"{client_address[0]}: connection lost")
        else:
            logger.exception("a request could not be answered")


class Handler(BaseHTTPRequestHandler):
    """GET / (page), /app.js, /style.css, /model (names and settings); POST /detect (an image as body)."""

    server: DemoServer
    server_version = "yolox_lt"
    sys_version = ""
    timeout = 30  # seconds that a silent client may keep a thread
    unread = 0  # bytes of the body that are still to come

    def parse_request(self) -> bool:
        parsed = super().parse_request()
        length = self.headers.get("Content-Length", "") if parsed else ""
        self.unread = int(length) if length.isdecimal() and len(length) < 16 else 0
        return parsed

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path in self.server.pages:
            content, kind = self.server.pages[path]
            self.reply(200, content, kind)
        elif path == "/model":
            self.reply_json(200, model_settings(self.server.detector))
        else:
            self.send_error(405 if path == "/detect" else 404)

    def do_POST(self) -> None:
        path = self.path.partition("?")[0]
        if path != "/detect":
            self.send_error(405 if path in (*self.server.pages, "/model") else 404)
            return
        try:
            image = decode(self.read_upload())
            start = time.perf_counter()
            with self.server.turn:
                found = self.server.detector(image, 0.0)  # the page itself leaves out what is too low
        except RefusedError as refused:
            self.refuse(refused.status, refused.sentence)
        except ConnectionError:
            raise
        except Exception as error:
            logger.exception("an image could not be processed")
            self.refuse(500, f"the image could not be processed ({type(error).__name__}); see the server's log")
        else:
            milliseconds = round(1000 * (time.perf_counter() - start), 1)
            size = {"width": image.shape[1], "height": image.shape[0]}
            self.reply_json(200, {**size, "milliseconds": milliseconds, "detections": found.to_list()})

    def read_upload(self) -> bytes:
        """The body of a request, checked before it is read."""
        if not self.unread:
            raise RefusedError(411, "the request has no Content-Length or no body; send an image as its body")
        if self.unread > MAX_BYTES:
            size, limit = self.unread / 2**20, MAX_BYTES // 2**20
            raise RefusedError(413, f"the file has {size:.1f} MB; give an image of at most {limit} MB")
        # Of other sites' pages browsers send no such request without asking us first, which we refuse (OPTIONS).
        if not self.headers.get("Content-Type", "").startswith("image/"):
            raise RefusedError(415, "the Content-Type of the request is not image/...; send an image as its body")
        length, self.unread = self.unread, 0
        try:
            body = self.rfile.read(length)
        except TimeoutError as error:
            raise RefusedError(408, f"no data came for {self.timeout} seconds; send the image again") from error
        if len(body) < length:
            raise RefusedError(400, "the upload broke off; send the image again")
        return body

    def wrong_method(self) -> None:
        self.send_error(405)

    do_PUT = do_DELETE = do_PATCH = do_OPTIONS = do_HEAD = wrong_method  # noqa: N815

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Every refusal as json, also those of the standard library's parser."""
        if code == 404:
            message = f"{self.path} is not here; open / in a browser, or send an image to /detect"
        elif code == 405:
            message = f"{self.command} does not work here; GET the page and /model, POST an image to /detect"
        self.refuse(code, message or "the request could not be read")

    def refuse(self, status: int, sentence: str) -> None:
        """Answer, then read what is on its way, within limits: who is cut off while sending misses the answer."""
        self.reply_json(status, {"error": sentence})
        rest = min(self.unread, 4 * MAX_BYTES)
        with contextlib.suppress(OSError):
            while rest > 0 and (part := self.rfile.read(min(rest, 2**16))):
                rest -= len(part)

    def reply_json(self, status: int, value: dict[str, Any]) -> None:
        self.reply(status, json.dumps(value, ensure_ascii=False).encode(), "application/json; charset=utf-8")

    def reply(self, status: int, content: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        if status == 405:
            self.send_header("Allow", "GET, POST")
        for name, value in HEADERS.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        logger.debug(f"{self.client_address[0]}: {format % args}")


def decode(data: bytes) -> np.ndarray:
    """uint8 [H, W, 3] BGR from a file's content, upright as `read_image` gives it from the file.

    Raises:
        RefusedError: no image of FORMATS, or one of more than MAX_PIXELS; its header tells, before it is decoded.
    """
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as header:
            width, height = header.size
    except Image.DecompressionBombError:
        width = height = MAX_PIXELS
    except Exception as error:  # broken headers make Pillow raise many kinds
        raise RefusedError(415, f"the file is no readable image; give one of {', '.join(FORMATS)}") from error
    if width * height > MAX_PIXELS:
        raise RefusedError(
            413, f"the image has more than {MAX_PIXELS // 10**6} million pixels; give one that is smaller"
        )
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error:
        image = None
    if image is None:
        raise RefusedError(415, "the image could not be decoded; it may be cut off or damaged")
    return image


def model_settings(detector: LoadedDetector) -> dict[str, Any]:
    """What the page has to know: category names, overlap above which two boxes share a place, largest upload, and the
    thresholds of the categories, null without any.
    """
    thresholds = detector.thresholds
    # 2: of this category nothing is reported.
    conf = None if thresholds is None else thresholds.conf.nan_to_num(2.0).tolist()
    return {"names": list(detector.names), "overlap": detector.exp.nmsthre, "max_bytes": MAX_BYTES, "conf": conf}


def make_server(detector: LoadedDetector, host: str = "127.0.0.1", port: int = 8000) -> DemoServer:
    """The server, bound but not running; port 0 picks a free one (`server.server_port`).

    Raises:
        UserError: an address that cannot be used.
    """
    try:
        return DemoServer((host, port), detector)
    except (OSError, OverflowError) as error:
        text = error.strerror if isinstance(error, OSError) else "no such port"
        raise UserError(f"{host} port {port}: {text}; give another --host or --port") from error


def serve(detector: LoadedDetector, host: str = "127.0.0.1", port: int = 8000) -> None:
    """Serve the page until the process is interrupted.

    Raises:
        UserError: an address that cannot be used.
    """
    with make_server(detector, host, port) as server:
        if not host.startswith("127.") and host != "localhost":
            logger.warning(f"--host {host}: whoever reaches this machine can send it images")
        logger.info(f"open http://{host}:{server.server_port} in a browser; stop with Ctrl-C")
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            logger.info("stopped")
