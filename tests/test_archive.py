"""Hostile checkpoints: refused before anything is executed or allocated."""

from __future__ import annotations

import io
import os
import pickle
import resource
import zipfile
from collections import OrderedDict
from pathlib import Path

import pytest
import torch

import yolox_lt
from tests.tiny import tiny_exp
from yolox_lt.archive import check_archive
from yolox_lt.checkpoint import load_checkpoint, plain, save_checkpoint
from yolox_lt.convert.read import read_file
from yolox_lt.errors import UserError

STATE = {"weight": torch.arange(12.0).reshape(3, 4), "count": torch.tensor(3)}
READERS = {"load_checkpoint": load_checkpoint, "read_file": lambda path: read_file(path)}


class Storage:
    """Pickles as a storage of `count` float32 that lies in record data/0."""

    def __init__(self, count: int) -> None:
        self.count = count


class Pickler(pickle.Pickler):
    def persistent_id(self, value):
        return ("storage", torch.FloatStorage, "0", "cpu", value.count) if isinstance(value, Storage) else None


class Call:
    """Pickles as the call of a function."""

    def __init__(self, function, *arguments) -> None:
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def tensor(count: int, size: tuple[int, ...], stride: tuple[int, ...]) -> Call:
    rebuild = torch._utils._rebuild_tensor_v2
    return Call(rebuild, Storage(count), 0, size, stride, False, OrderedDict())


def pickled(content: object) -> bytes:
    buffer = io.BytesIO()
    Pickler(buffer, 2).dump(content)
    return buffer.getvalue()


def write_archive(path: Path, data: bytes, records: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> None:
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("archive/data.pkl", data)
        for name, content in {"byteorder": b"little", "version": b"3\n", **records}.items():
            archive.writestr(f"archive/{name}", content)


def whole(model: object) -> dict[str, object]:
    return {"model": model, "exp": {}, "names": ["a"], "format_version": 1}


ZEROS = bytes(48)
BOMBS = {
    "code": (pickled(whole(Call(os.mkdir, "executed"))), r"holds the Python object \w+\.mkdir"),
    "code in a state": (
        b"\x80\x02cos\nsystem\nX\x0e\x00\x00\x00mkdir executed\x85R.",
        r"holds the Python object os\.system",
    ),
    "memory of bytearray": (pickled(whole(Call(bytearray, 3 * 10**9))), "holds the Python object .*bytearray"),
    "memory of a storage": (pickled(whole(Call(torch.FloatStorage, 10**9))), "not callable"),
    "tensor of 4 TB": (pickled(whole({"a": tensor(10**12, (10**12,), (1,))})), "a tensor of shape"),
    "one number shown 10^12 times": (pickled(whole({"a": tensor(12, (10**12,), (0,))})), "a tensor of shape"),
    "bytearray opcode": (b"\x80\x05\x96" + (2**40).to_bytes(8, "little") + b".", "BYTEARRAY8|expected .* bytes"),
    "table of 32 GB": (b"\x80\x02Nr\xff\xff\xff\x7f.", "the pickle numbers an object"),
    "class": (pickled(whole(Call(zipfile.ZipFile, "x"))), r"holds the Python object zipfile\.ZipFile"),
    "persistent object": (b"\x80\x02X\x01\x00\x00\x00aQ.", "not a readable checkpoint"),
}


@pytest.fixture
def little_memory():
    """A process that may take 1 GB more than now: what a bomb asks for would end in MemoryError, or be counted."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + 2**30, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("name", BOMBS)
def test_bomb__is_refused_and_nothing_is_executed(tmp_path, monkeypatch, little_memory, name, reader):
    monkeypatch.chdir(tmp_path)
    data, words = BOMBS[name]
    write_archive(tmp_path / "bad.pth", data, {"data/0": ZEROS})
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(UserError, match=rf"bad\.pth: .*({words})") as refused:
        READERS[reader](tmp_path / "bad.pth")
    assert "\n" not in str(refused.value)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak < 100_000  # KB
    assert os.listdir(tmp_path) == ["bad.pth"]


def test_zip_bomb__compressed_records_are_refused(tmp_path, little_memory):
    """A hundred megabytes of zeros in a hundred kilobytes."""
    path = tmp_path / "bad.pth"
    count = 25 * 2**20
    write_archive(
        path, pickled(whole({"a": tensor(count, (count,), (1,))})), {"data/0": bytes(4 * count)}, zipfile.ZIP_DEFLATED
    )
    assert path.stat().st_size < 200_000
    for reader in READERS.values():
        with pytest.raises(UserError, match=r"bad\.pth: not a readable checkpoint .*its records are compressed"):
            reader(path)


def test_zip_bomb__records_that_share_their_bytes_are_refused(tmp_path):
    """The directory names the same megabyte ten times."""
    path = tmp_path / "bad.pth"
    write_archive(path, pickled(whole({})), {"data/0": bytes(2**20)})
    with zipfile.ZipFile(path, "a") as archive:
        (record,) = (r for r in archive.infolist() if r.filename.endswith("data/0"))
        for i in range(1, 10):
            copy = zipfile.ZipInfo(f"archive/data/{i}")
            for field in ("header_offset", "file_size", "compress_size", "CRC", "compress_type"):
                setattr(copy, field, getattr(record, field))
            archive.filelist.append(copy)
        archive._didModify = True
    with pytest.raises(UserError, match=r"its records claim 10,\d+,\d+ bytes in a file of 1,\d+,\d+"):
        load_checkpoint(path)


def test_record__shorter_than_its_tensor_is_refused(tmp_path):
    write_archive(tmp_path / "bad.pth", pickled(whole({"a": tensor(100, (100,), (1,))})), {"data/0": ZEROS})
    with pytest.raises(UserError, match=r"bad\.pth: not a readable checkpoint .*record size"):
        load_checkpoint(tmp_path / "bad.pth")


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.999])
def test_truncated__is_refused(tmp_path, share):
    path = tmp_path / "bad.pth"
    save_checkpoint(path, whole(STATE))
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    for reader in READERS.values():
        with pytest.raises(UserError, match=r"bad\.pth: not a readable checkpoint"):
            reader(path)


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("model", {"a": 3}),
        ("model", [torch.zeros(1)]),
        ("model", {3: torch.zeros(1)}),
        ("exp", [1]),
        ("exp", {3: 1}),
        ("names", 5),
        ("names", [5]),
        ("ema", {"next": 1}),
        ("ema", 7),
        ("format_version", "1"),
        ("family", 3),
    ],
)
def test_parts_of_another_kind__are_named(tmp_path, part, value):
    torch.save(whole(STATE) | {part: value}, tmp_path / "bad.pth")
    with pytest.raises(UserError, match=rf"bad\.pth: its part '{part}' is not what this project writes"):
        load_checkpoint(tmp_path / "bad.pth")


def test_whole_checkpoints__pass(tmp_path):
    """Everything a run saves: optimiser, scaler, random states, half precision, a parameter, a view."""
    model = torch.nn.Linear(4, 4)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(2, 4)).sum().backward()
    optimizer.step()
    content = whole(model.state_dict()) | {
        "optimizer": optimizer.state_dict(),
        "half": torch.zeros(3, dtype=torch.bfloat16),
        "mask": torch.ones(2, dtype=torch.bool),
        "parameter": model.weight,
        "view": torch.arange(12.0).reshape(3, 4).T[1:],
        "large": 2**60,
        "none": None,
    }
    save_checkpoint(tmp_path / "a.pth", content)
    check_archive(tmp_path / "a.pth")
    loaded = load_checkpoint(tmp_path / "a.pth")
    assert torch.equal(loaded["view"], content["view"])
    assert torch.equal(loaded["optimizer"]["state"][0]["exp_avg"], optimizer.state_dict()["state"][0]["exp_avg"])


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"width": 1e3}, "weights of another model"),
        ({"num_classes": 10**9}, "weights of another model"),
        ({"depth": "deep"}, "its settings make no model"),
        ({"num_classes": None}, "its settings make no model"),
    ],
)
def test_settings_of_any_size__are_refused_before_a_model_is_built(tmp_path, little_memory, settings, words):
    exp = tiny_exp(tmp_path, tmp_path)
    content = whole(exp.get_model().state_dict()) | {"names": ["a"] * 4, "exp": plain(exp.attributes()) | settings}
    save_checkpoint(tmp_path / "a.pth", content)
    with pytest.raises(UserError, match=rf"a\.pth: {words}"):
        yolox_lt.load(tmp_path / "a.pth")
