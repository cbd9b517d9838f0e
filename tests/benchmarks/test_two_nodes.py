"""Training over two network namespaces of this machine; what each part shows stands in benchmarks/two_nodes.py."""

from __future__ import annotations

import pytest

from benchmarks.kills import DATA
from benchmarks.two_nodes import PARTS, ip, two_nodes, why_not
from yolox_lt.data.glyphs.make import ensure_glyphs

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    lacking = why_not()
    if lacking is not None:
        pytest.skip(f"two nodes: {lacking}")
    folder = tmp_path_factory.mktemp("two_nodes")
    ensure_glyphs(folder, **DATA)
    return folder


@pytest.mark.parametrize("part", PARTS)
def test_two_nodes(data, tmp_path, part):
    with two_nodes() as nodes:
        PARTS[part](data, tmp_path, nodes)
    assert not {node.name for node in nodes} & set(ip("netns", "list").split())
