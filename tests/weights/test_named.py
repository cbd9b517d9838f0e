"""Weights by name against a server on this machine: whole, continued, broken, wrong, missing, offline."""

from __future__ import annotations

import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch

import yolox_lt
from yolox_lt.checkpoint import load_checkpoint
from yolox_lt.errors import UserError
from yolox_lt.weights import find_weights
from yolox_lt.weights.named import BUILT_IN, cached, sha256

pytestmark = pytest.mark.xdist_group("named")


class Server:
    """Serves `content` as /yolox_nano.pth; `cut`: bytes after which it breaks off. ranges: what was asked for."""

    def __init__(self, content):
        self.content, self.cut, self.ranges = content, None, []
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                server.answer(self)

            def log_message(self, *arguments):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()

    def answer(self, request):
        asked = request.headers.get("Range")
        self.ranges.append(asked)
        start = int(asked[6:-1]) if asked else 0
        if request.path != "/yolox_nano.pth" or start >= len(self.content):
            request.send_error(404 if request.path != "/yolox_nano.pth" else 416)
            return
        request.send_response(206 if asked else 200)
        if asked:
            request.send_header("Content-Range", f"bytes {start}-{len(self.content) - 1}/{len(self.content)}")
        request.send_header("Content-Length", str(len(self.content) - start))
        request.end_headers()
        request.wfile.write(self.content[start : self.cut])

    def close(self):
        self.http.shutdown()
        self.http.server_close()


@pytest.fixture(scope="module")
def official(tmp_path_factory):
    """The bytes of a file as Megvii's: the state dict under "model"."""
    path = tmp_path_factory.mktemp("official") / "yolox_nano.pth"
    torch.save({"model": load_checkpoint(BUILT_IN)["model"], "start_epoch": 300}, path)
    return path.read_bytes()


@pytest.fixture
def server(official, tmp_path, monkeypatch):
    server = Server(official)
    monkeypatch.setenv("YOLOX_LT_MIRROR", server.url + "/")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    yield server
    server.close()


def name_of(content):
    """yolox-nano with the hash of the official file, which is downloaded; without it the built-in one is meant."""
    return f"yolox-nano:{hashlib.sha256(content).hexdigest()[:12]}"


def test_download__once_recorded_and_equal_to_the_built_in_weights(server, official, tmp_path):
    path = find_weights(name_of(official))
    assert path == tmp_path / "yolox_lt/yolox_nano_coco.pth"
    record = json.loads(path.with_suffix(".json").read_text())
    assert record["bytes"] == len(official)
    assert record["sha256"] == hashlib.sha256(official).hexdigest()
    content, built_in = load_checkpoint(path), load_checkpoint(BUILT_IN)
    assert all(torch.equal(value, built_in["model"][name]) for name, value in content["model"].items())
    assert content["names"] == built_in["names"]
    assert content["names"][79] == "toothbrush"
    assert find_weights(name_of(official)) == path
    assert server.ranges == [None]
    assert sorted(p.name for p in path.parent.iterdir()) == [
        *("yolox_nano.lock", "yolox_nano_coco.json", "yolox_nano_coco.pth")
    ]


def test_download__continues_a_half_file_and_one_that_broke(server, official, tmp_path):
    part = tmp_path / "yolox_lt/yolox_nano.pth.part"
    part.parent.mkdir()
    part.write_bytes(official[:1000])
    server.cut = 70000
    with pytest.raises(UserError, match=rf"stopped after 70,000 of {len(official):,} bytes, .*continues there"):
        find_weights(name_of(official))
    assert part.read_bytes() == official[:70000]
    server.cut = None
    find_weights(name_of(official))
    assert server.ranges == ["bytes=1000-", "bytes=70000-"]


def test_download__a_part_of_another_file_is_not_kept(server, official, tmp_path):
    part = tmp_path / "yolox_lt/yolox_nano.pth.part"
    part.parent.mkdir()
    part.write_bytes(bytes(1000))
    with pytest.raises(UserError, match="its sha256 is"):
        find_weights(name_of(official))
    assert not part.exists()
    part.write_bytes(bytes(len(official)))  # nothing behind it: the server answers 416
    find_weights(name_of(official))
    assert server.ranges == ["bytes=1000-", f"bytes={len(official)}-", None]


def test_hash__of_the_user_and_of_the_first_use(server, official):
    with pytest.raises(UserError, match="but deadbeef is wanted; give the hash of the right file"):
        find_weights("yolox-nano:deadbeef")
    path = find_weights(name_of(official))
    with pytest.raises(UserError, match=r"but deadbeef is wanted; delete .*yolox_nano_coco\.json"):
        find_weights("yolox-nano:deadbeef")
    before = sha256(path)
    path.write_bytes(b"damaged")
    assert sha256(find_weights(name_of(official))) == before


def test_hash__another_file_behind_the_address_is_refused(server, official):
    path = find_weights(name_of(official))
    path.unlink()
    server.content = official + b" "
    with pytest.raises(UserError, match=r"its sha256 is .*delete .*yolox_nano_coco\.json if the new file is the right"):
        cached(path.parent, "nano", "")


def test_missing_and_offline__say_what_helps(server, monkeypatch):
    with pytest.raises(UserError, match=r"/yolox_x\.pth: the server answers 404 Not Found; set YOLOX_LT_MIRROR"):
        find_weights("yolox-x")
    monkeypatch.setenv("YOLOX_LT_MIRROR", "http://127.0.0.1:9")
    with pytest.raises(UserError, match=r"cannot be reached \(.*yolox-nano needs no network"):
        yolox_lt.load("yolox_s")
    monkeypatch.setenv("YOLOX_LT_MIRROR", "/somewhere")
    with pytest.raises(UserError, match=r"/somewhere/yolox_s\.pth: is no address"):
        yolox_lt.load("yolox_s")


def test_names__a_file_of_that_name_goes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find_weights("yolox-nano") == BUILT_IN
    (tmp_path / "yolox-nano").write_bytes(b"")
    assert str(find_weights("yolox-nano")) == "yolox-nano"
    assert str(find_weights("yolox-xl")) == "yolox-xl"
