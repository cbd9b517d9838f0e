"""Parameters and operations against the lines that official YOLOX prints."""

from __future__ import annotations

import builtins
import re

import pytest

from yolox_lt.exp import get_exp
from yolox_lt.models.complexity import model_info

FIGURES = {"nano": (0.91, 1.11), "tiny": (5.06, 6.49), "s": (8.97, 26.93), "m": (25.33, 73.98)}


@pytest.mark.parametrize("name", FIGURES)
def test_info__equals_official_yolox(name):
    exp = get_exp(name=f"yolox-{name}")
    parameters, operations = (float(v) for v in re.findall(r"[\d.]+", model_info(exp.get_model(), exp.test_size)))
    # Official YOLOX also counts its up-sampling layers, a hundredth at most.
    assert (parameters, operations) == (FIGURES[name][0], pytest.approx(FIGURES[name][1], abs=0.03))


def test_info__without_thop_torch_counts_convolutions(monkeypatch):
    """thop says 1.11: it counts BatchNorm, activations and pooling too."""
    real = builtins.__import__

    def without_thop(name, *args, **kwargs):
        if name == "thop":
            raise ImportError("No module named 'thop'")
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_thop)
    exp = get_exp(name="yolox-nano")
    assert model_info(exp.get_model(), exp.test_size) == "Params: 0.91M, Gflops: 1.05"
