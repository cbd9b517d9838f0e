"""Checkpoint files: whole or not at all, refused before anything is executed or changed."""

from __future__ import annotations

import os
import pickle

import pytest
import torch
from torch import nn

from yolox_lt.checkpoint import (
    load_checkpoint,
    load_weights,
    plain,
    random_states,
    restore_random_states,
    save_checkpoint,
)
from yolox_lt.errors import UserError


def content():
    return {"model": nn.Linear(2, 3).state_dict(), "exp": {"depth": 0.33}, "best": 0.5}


def test_round_trip__keeps_everything_and_leaves_no_temporary_file(tmp_path):
    before = content()
    save_checkpoint(tmp_path / "a.pth", before)
    after = load_checkpoint(tmp_path / "a.pth")
    assert torch.equal(after["model"]["weight"], before["model"]["weight"])
    assert (after["exp"], after["best"]) == (before["exp"], 0.5)
    assert os.listdir(tmp_path) == ["a.pth"]


class Bomb:
    def __reduce__(self):
        return os.mkdir, ("executed",)


@pytest.mark.parametrize("kind", ["truncated", "text", "empty", "pickled code", "other dict", "newer"])
def test_unusable_file__is_named_and_nothing_is_executed(tmp_path, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "bad.pth"
    save_checkpoint(path, content())
    data = path.read_bytes()
    if kind == "truncated":
        path.write_bytes(data[: len(data) // 2])
    elif kind == "text":
        path.write_text("hello")
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "pickled code":
        torch.save({"model": Bomb(), "exp": {}}, path)
    elif kind == "other dict":
        torch.save({"state": 1}, path)
    else:
        torch.save(content() | {"format_version": 99}, path)
    with pytest.raises(UserError, match=r"bad\.pth"):
        load_checkpoint(path)
    assert not (tmp_path / "executed").exists()
    with pytest.raises(UserError, match="checkpoint not found"):
        load_checkpoint(tmp_path / "none.pth")


def test_numpy_scalars__never_get_in():
    assert pickle.dumps(plain({"a": 1, "b": (1, 2), "c": object(), "d": None})) == pickle.dumps(
        {"a": 1, "b": [1, 2], "d": None}
    )


def test_other_model__is_refused_before_anything_changes(tmp_path):
    model = nn.Linear(2, 3)
    before = model.weight.clone()
    state = {"weight": torch.zeros(3, 2), "bias": torch.zeros(4)}
    with pytest.raises(UserError, match=r"file\.pth: weights of another model \(bias is \(4,\) instead of \(3,\)"):
        load_weights(model, state, "file.pth")
    assert torch.equal(model.weight, before)


def test_unwritable_folder__says_so_and_keeps_the_old_file(tmp_path):
    path = tmp_path / "a.pth"
    save_checkpoint(path, content())
    old = path.read_bytes()
    with pytest.raises(UserError, match="could not be written"):
        save_checkpoint(tmp_path / "missing" / "a.pth", content())
    with pytest.raises((UserError, pickle.PicklingError, AttributeError)):
        save_checkpoint(path, content() | {"bad": lambda: None})
    assert path.read_bytes() == old
    assert os.listdir(tmp_path) == ["a.pth"]


def test_random_states__restore_the_same_numbers(tmp_path):
    torch.manual_seed(3)
    save_checkpoint(tmp_path / "a.pth", content() | {"random": random_states()})
    want = torch.rand(3)
    restore_random_states(load_checkpoint(tmp_path / "a.pth")["random"])
    assert torch.equal(torch.rand(3), want)
