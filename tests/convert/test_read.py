"""Reading foreign files: numpy numbers get in, nothing else does, and the weights are found where they are."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from yolox_lt.convert.read import find_state, read_file
from yolox_lt.errors import UserError

STATE = {"a.weight": torch.arange(6.0).reshape(2, 3), "b": torch.tensor(3)}
NUMBERS = {
    "best_ap": np.float64(0.405),
    "curr_ap": np.float32(0.25),
    "start_epoch": np.int64(300),
    "done": np.bool_(True),
}


def rename_globals(path: Path, old: bytes, new: bytes) -> None:
    """Rewrite the pickle inside the file as another version of a library would have written it."""
    with zipfile.ZipFile(path) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in content.items():
            archive.writestr(name, data.replace(old, new) if name.endswith("data.pkl") else data)


@pytest.mark.parametrize("module", ["numpy.core.multiarray", "numpy._core.multiarray"])
def test_numpy_numbers__of_both_numpy_versions_are_read(tmp_path, module):
    path = tmp_path / "best_ckpt.pth"
    torch.save({"model": STATE, **NUMBERS}, path)
    for other in ("numpy.core.multiarray", "numpy._core.multiarray"):
        rename_globals(path, f"c{other}\n".encode(), f"c{module}\n".encode())
    content = read_file(path)
    assert {name: content[name] for name in NUMBERS} == NUMBERS
    assert torch.equal(content["model"]["a.weight"], STATE["a.weight"])


def test_numpy_numbers__are_let_in_for_this_reading_only(tmp_path):
    path = tmp_path / "best_ckpt.pth"
    torch.save({"model": STATE, **NUMBERS}, path)
    read_file(path)
    with pytest.raises(Exception, match="Unsupported global"):
        torch.load(path, weights_only=True)


class Bomb:
    def __reduce__(self):
        return os.mkdir, ("executed",)


@pytest.mark.parametrize(
    ("content", "name"),
    [
        ({"model": STATE, "hook": Bomb()}, r"\w+\.mkdir"),
        ({"model": torch.nn.Linear(2, 2)}, "Linear"),
        ({"model": {"a": np.zeros(3)}}, "_reconstruct"),
    ],
    ids=["code", "module", "numpy array"],
)
def test_objects__are_refused_by_name_and_nothing_is_executed(tmp_path, monkeypatch, content, name):
    monkeypatch.chdir(tmp_path)
    torch.save(content, "bad.pth")
    with pytest.raises(UserError, match=rf"bad\.pth: holds the Python object \S*{name}, which is not loaded"):
        read_file(Path("bad.pth"))
    assert os.listdir() == ["bad.pth"]


def test_object_numbers__are_refused(tmp_path):
    """A numpy number of type object could hold anything; its type is not among those let in."""
    torch.save({"best_ap": np.dtype("O")}, tmp_path / "bad.pth")
    with pytest.raises(UserError, match=r"bad\.pth: not a readable checkpoint"):
        read_file(tmp_path / "bad.pth")


@pytest.mark.parametrize("kind", ["truncated", "text", "empty", "zip of something else", "noise"])
def test_damaged_file__is_named(tmp_path, kind):
    path = tmp_path / "bad.pth"
    torch.save({"model": STATE}, path)
    data = path.read_bytes()
    if kind == "zip of something else":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("readme.txt", "hello")
    else:
        noise = np.random.default_rng(0).bytes(5000)
        path.write_bytes({"truncated": data[: len(data) // 2], "text": b"hello\n", "empty": b"", "noise": noise}[kind])
    with pytest.raises(UserError, match=r"bad\.pth: not a readable checkpoint .+ download or copy it again"):
        read_file(path)


def test_missing_file__is_named(tmp_path):
    with pytest.raises(UserError, match=r"none\.pth: file not found"):
        read_file(tmp_path / "none.pth")


@pytest.mark.parametrize(
    ("content", "place"),
    [
        ({"model": STATE, "optimizer": {}, "epoch": 3}, "model"),
        ({"state_dict": STATE}, "state_dict"),
        (STATE, ""),
        ({"model": {"x": torch.zeros(1)}, "ema": {"ema_state_dict": STATE, "decay": 0.9998}}, "ema.ema_state_dict"),
        ({"model": {"x": torch.zeros(1)}, "ema": {"model": STATE, "next": 5}}, "ema.model"),
        ({"model": STATE, "ema": {"ema_state_dict": {}, "decay": 0.9998}}, "model"),
        ({"model": STATE, "ema": None}, "model"),
        ({"model": {f"module.{name}": tensor for name, tensor in STATE.items()}}, "model"),
        ({f"module.{name}": torch.nn.Parameter(t.float()) for name, t in STATE.items()}, ""),
    ],
)
def test_state__is_found_without_prefix_averaged_first(content, place):
    state, found = find_state(content, Path("f.pth"))
    assert found == place
    assert list(state) == list(STATE)
    assert all(torch.equal(state[name], STATE[name]) for name in STATE)
    assert not any(tensor.requires_grad for tensor in state.values())


@pytest.mark.parametrize("content", [[], 3, {}, {"model": {}}, {"model": {"lr": 0.1}}, {"a": torch.zeros(1), "b": 1}])
def test_no_state__says_what_is_wanted(content):
    with pytest.raises(UserError, match=r"f\.pth: holds no weights .+official YOLOX"):
        find_state(content, Path("f.pth"))


def test_prefix__on_one_of_two_equal_names_is_refused():
    with pytest.raises(UserError, match=r"f\.pth: holds both module\.a and the same name"):
        find_state({"a": torch.zeros(1), "module.a": torch.ones(1)}, Path("f.pth"))
