"""Training over two network namespaces of this machine; what each part shows stands in benchmarks/two_nodes.py."""

from __future__ import annotations

import os
import subprocess

import pytest

from benchmarks.kills import DATA
from benchmarks.nodes import ip, two_nodes, why_not
from benchmarks.two_nodes import PARTS, main
from yolox_lt.data.glyphs.make import ensure_glyphs


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    lacking = why_not()
    assert lacking is None, f"two nodes: not run, {lacking}"  # who asks for slow tests is not told that they passed
    folder = tmp_path_factory.mktemp("two_nodes")
    ensure_glyphs(folder, **DATA)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("part", PARTS)
def test_two_nodes(data, tmp_path, part):
    with two_nodes() as nodes:
        PARTS[part](data, tmp_path, nodes)
    assert not {node.name for node in nodes} & set(ip("netns", "list").split())


@pytest.fixture
def failing_ip(tmp_path, monkeypatch):
    """failing_ip("words"): from now on the command ip fails and says so, also for root."""
    monkeypatch.setattr(os, "geteuid", lambda: 0)

    def make(words: str) -> None:
        program = tmp_path / "ip"
        program.write_text(f"#!/bin/sh\necho '{words}' >&2\nexit 1\n")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")

    return make


def test_why_not__a_machine_that_forbids_namespaces_is_named_and_is_no_success(failing_ip, monkeypatch, capsys):
    failing_ip("mount --make-shared /run/netns failed: Operation not permitted")
    lacking = "network namespaces cannot be made here (mount --make-shared /run/netns failed: Operation not permitted)"
    assert why_not() == lacking
    monkeypatch.setattr("sys.argv", ["two_nodes"])
    assert main() == 2
    assert capsys.readouterr().out == f"two nodes: not run, {lacking}\n"


def test_why_not__another_failure_is_a_fault_and_skips_nothing(failing_ip):
    failing_ip('Error: argument "veth" is wrong: unknown option')
    with pytest.raises(subprocess.CalledProcessError):
        why_not()


def test_why_not__without_root(monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert why_not() == "needs root"
