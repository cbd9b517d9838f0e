"""The demo page by real requests to a real server on a free port."""

from __future__ import annotations

import http.client
import io
import json
import re
import socket
import threading
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from tests.data.broken import png_header
from tests.tiny import tiny_exp
from yolox_lt.commands import demo
from yolox_lt.commands.web import MAX_BYTES, PAGES, DemoServer, make_server
from yolox_lt.errors import UserError
from yolox_lt.images import read_image
from yolox_lt.inference import LoadedDetector

pytestmark = pytest.mark.xdist_group("web")

WEB = Path(__file__).resolve().parents[2] / "yolox_lt/report/page/web"
NAMES = tuple(f"glyph \u00e9 {i}" for i in range(4))
JPEG_TYPE = {"Content-Type": "image/jpeg"}


@pytest.fixture(scope="module")
def detector(tmp_path_factory) -> LoadedDetector:
    """An untrained detector of 64-pixel input: it finds 84 cells' worth of something in any image."""
    torch.manual_seed(0)
    exp = tiny_exp(tmp_path_factory.getbasetemp(), tmp_path_factory.getbasetemp())
    return LoadedDetector(exp.get_model().eval(), exp, NAMES, "cpu")


@pytest.fixture(scope="module")
def server(detector):
    with make_server(detector, port=0) as made:
        thread = threading.Thread(target=made.serve_forever, args=(0.01,))
        thread.start()
        yield made
        made.shutdown()
        thread.join()


def ask(
    server: DemoServer, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None
) -> tuple[http.client.HTTPResponse, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=20)
    connection.request(method, path, body, headers or {})
    response = connection.getresponse()
    content = response.read()
    connection.close()
    return response, content


def error_of(answer: tuple[http.client.HTTPResponse, bytes]) -> tuple[int, str]:
    """Status and sentence of a refusal."""
    response, content = answer
    assert response.getheader("Content-Type") == "application/json; charset=utf-8"
    value = json.loads(content)
    assert list(value) == ["error"]
    assert "\n" not in value["error"]
    return response.status, value["error"]


def encode(image: np.ndarray, suffix: str = ".jpg") -> bytes:
    return cv2.imencode(suffix, image)[1].tobytes()


def picture(height: int = 90, width: int = 130) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


def test_page__is_complete_and_loads_nothing_from_elsewhere(server):
    for path, (name, kind) in PAGES.items():
        response, content = ask(server, "GET", path)
        assert response.status == 200
        assert response.getheader("Content-Type") == kind
        assert content == (WEB / name).read_bytes()
        policy = dict(rule.strip().split(" ", 1) for rule in response.getheader("Content-Security-Policy").split(";"))
        assert policy["default-src"] == "'none'"
        assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
        assert not re.search(rb"https?://|//[a-z]+\.", content)
    page = (WEB / "index.html").read_text()
    assert re.findall(r'(?:src|href)="([^"]+)"', page) == ["data:,", "style.css", "app.js"]
    assert ask(server, "GET", "/?x=1")[0].status == 200
    # What the script looks for is in the page.
    wanted = set(re.findall(r'byId\("(\w+)"\)', (WEB / "app.js").read_text()))
    assert wanted == set(re.findall(r'id="(\w+)"', page)) - {"stage"}


def test_model__names_and_limits(server):
    response, content = ask(server, "GET", "/model")
    assert response.status == 200
    assert json.loads(content) == {"names": list(NAMES), "overlap": 0.65, "conf": None, "max_bytes": 20 * 2**20}


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".bmp"])
def test_detect__equals_the_detector_on_the_file(server, detector, tmp_path, suffix):
    path = tmp_path / f"photo{suffix}"
    path.write_bytes(encode(picture(), suffix))
    response, content = ask(server, "POST", "/detect", path.read_bytes(), JPEG_TYPE)
    assert response.status == 200
    answer = json.loads(content)
    expected = detector(path, conf=0)
    assert len(expected) > 50
    assert answer["detections"] == expected.to_list()
    assert (answer["width"], answer["height"]) == (130, 90)
    assert answer["milliseconds"] > 0


def test_detect__an_image_that_lies_on_its_side_is_turned(server, detector, tmp_path):
    """A file with an EXIF orientation: boxes refer to the image as a browser shows it."""
    path, exif = tmp_path / "turned.jpg", Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(picture()).save(path, exif=exif)
    answer = json.loads(ask(server, "POST", "/detect", path.read_bytes(), JPEG_TYPE)[1])
    assert (answer["width"], answer["height"]) == (90, 130) == read_image(path).shape[1::-1]
    assert answer["detections"] == detector(path, conf=0).to_list()


def test_detect__several_clients_at_once(server, detector):
    pictures = [picture(40 + 10 * i, 60) for i in range(4)]
    answers: dict[int, Any] = {}

    def post(i: int) -> None:
        answers[i] = json.loads(ask(server, "POST", "/detect", encode(pictures[i], ".png"), JPEG_TYPE)[1])

    threads = [threading.Thread(target=post, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [answers[i]["detections"] for i in range(4)] == [d.to_list() for d in detector(pictures, conf=0)]


@pytest.mark.parametrize(
    "body", [b"# no image\n" * 9, b"GIF89a" + bytes(60), b"\xff\xd8\xff\xe0" + bytes(20), b"\x89PNG\r\n\x1a\n"]
)
def test_not_an_image__is_refused(server, body):
    status, sentence = error_of(ask(server, "POST", "/detect", body, JPEG_TYPE))
    assert status == 415
    assert "JPEG, PNG, WEBP, BMP" in sentence


def test_cut_off_image__is_refused(server):
    status, sentence = error_of(ask(server, "POST", "/detect", encode(picture(), ".png")[:200], JPEG_TYPE))
    assert (status, "could not be decoded" in sentence) == (415, True)


@pytest.mark.parametrize(("width", "height"), [(10_000, 5_001), (40_000, 40_000)])
def test_decompression_bomb__is_refused_by_its_header(server, width, height):
    status, sentence = error_of(ask(server, "POST", "/detect", png_header(width, height), JPEG_TYPE))
    assert status == 413
    assert "more than 50 million pixels" in sentence


def test_too_large__is_answered_while_it_is_sent(server):
    status, sentence = error_of(ask(server, "POST", "/detect", bytes(MAX_BYTES + 2**20), JPEG_TYPE))
    assert status == 413
    assert sentence == "the file has 21.0 MB; give an image of at most 20 MB"
    # Who only says so gets the same answer at once.
    with socket.create_connection(("127.0.0.1", server.server_port), timeout=10) as raw:
        raw.sendall(b"POST /detect HTTP/1.1\r\nContent-Type: image/png\r\nContent-Length: 99999999999\r\n\r\n")
        assert raw.recv(4096).startswith(b"HTTP/1.0 413 ")


@pytest.mark.parametrize(
    ("method", "path", "headers", "body", "status", "words"),
    [
        ("GET", "/etc/passwd", {}, None, 404, "/etc/passwd is not here"),
        ("GET", "/../web.py", {}, None, 404, "is not here"),
        ("GET", "/%2e%2e/%2e%2e/etc/passwd", {}, None, 404, "is not here"),
        ("GET", "/..%2f..%2fweb.py", {}, None, 404, "is not here"),
        ("GET", "//etc/passwd", {}, None, 404, "is not here"),
        ("GET", "/app.js/../../web.py", {}, None, 404, "is not here"),
        ("GET", "http://elsewhere/app.js", {}, None, 404, "is not here"),
        ("POST", "/detect/../model", JPEG_TYPE, b"x", 404, "is not here"),
        ("GET", "/index.html", {}, None, 404, "open / in a browser"),
        ("POST", "/other", JPEG_TYPE, b"x" * 5000, 404, "/other is not here"),
        ("GET", "/detect", {}, None, 405, "GET does not work here"),
        ("POST", "/", JPEG_TYPE, b"x", 405, "POST does not work here"),
        ("PUT", "/detect", JPEG_TYPE, b"x", 405, "PUT does not work here"),
        ("OPTIONS", "/detect", {"Origin": "http://elsewhere"}, None, 405, "OPTIONS does not work here"),
        ("BREW", "/", {}, None, 501, "Unsupported method"),
        ("POST", "/detect", {"Content-Type": "text/plain"}, b"x", 415, "Content-Type"),
        ("POST", "/detect", {**JPEG_TYPE, "Content-Length": "0"}, b"", 411, "no body"),
        ("POST", "/detect", {**JPEG_TYPE, "Content-Length": "-5"}, b"", 411, "no Content-Length"),
    ],
)
def test_wrong_requests__are_refused_in_one_sentence(server, method, path, headers, body, status, words):
    response, content = ask(server, method, path, body, headers)
    assert error_of((response, content))[0] == status
    assert words in json.loads(content)["error"]
    if status == 405:
        assert response.getheader("Allow") == "GET, POST"
    assert response.getheader("Access-Control-Allow-Origin") is None


def test_broken_requests__leave_the_server_alive(server):
    for request in (
        b"\r\n\r\n",
        b"GET\r\n\r\n",
        b"\x16\x03\x01\x02\x00",
        b"POST /detect HTTP/1.1\r\nContent-Length: 9\r\n",
    ):
        with socket.create_connection(("127.0.0.1", server.server_port), timeout=10) as raw:
            raw.sendall(request)
    assert ask(server, "GET", "/")[0].status == 200


def test_upload_that_breaks_off__is_refused(server):
    with socket.create_connection(("127.0.0.1", server.server_port), timeout=10) as raw:
        raw.sendall(b"POST /detect HTTP/1.1\r\nContent-Type: image/png\r\nContent-Length: 900\r\n\r\nabc")
        raw.shutdown(socket.SHUT_WR)
        answer = io.BytesIO()
        while part := raw.recv(4096):
            answer.write(part)
    assert answer.getvalue().startswith(b"HTTP/1.0 400 ")
    assert b"the upload broke off" in answer.getvalue()


def test_detector_that_fails__is_an_answer_and_not_the_end(detector):
    def broken(images: torch.Tensor) -> Any:
        raise RuntimeError("secret path /data/model")

    with make_server(LoadedDetector(broken, detector.exp, NAMES, "cpu"), port=0) as made:
        thread = threading.Thread(target=made.serve_forever, args=(0.01,))
        thread.start()
        status, sentence = error_of(ask(made, "POST", "/detect", encode(picture()), JPEG_TYPE))
        assert status == 500
        assert "secret" not in sentence
        assert ask(made, "GET", "/")[0].status == 200
        made.shutdown()
        thread.join()


def test_address__is_local_and_one_sentence_if_taken(server, detector):
    assert server.server_address[0] == "127.0.0.1"
    assert demo.make_parser().parse_args(["web", "-c", "x.pth"]).host == "127.0.0.1"
    # Another address of this machine, also a loopback one, does not reach it.
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.2", server.server_port), timeout=10)
    with pytest.raises(UserError, match=f"127.0.0.1 port {server.server_port}: Address already in use; give another"):
        make_server(detector, port=server.server_port)
    with pytest.raises(UserError, match="port 99999: no such port"):
        make_server(detector, port=99999)


def test_many_categories__are_listed(detector):
    names = tuple(f"category {i}" for i in range(1203))
    with make_server(LoadedDetector(detector.model, detector.exp, names, "cpu"), port=0) as made:
        thread = threading.Thread(target=made.serve_forever, args=(0.01,))
        thread.start()
        assert json.loads(ask(made, "GET", "/model")[1])["names"] == list(names)
        made.shutdown()
        thread.join()
