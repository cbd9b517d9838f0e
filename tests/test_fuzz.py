"""Some executions of the fuzzing of `make fuzz`, and what it has found."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import HealthCheck, given, settings

from tests import fuzz

SOME = settings(
    max_examples=80, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)


@pytest.mark.parametrize("name", fuzz.TARGETS)
def test_readers__take_or_refuse_whatever_comes(name):
    outcomes = []

    @SOME
    @given(fuzz.TARGETS[name][1])
    def run(value):
        outcomes.append(fuzz.attempt(name, value))

    run()
    assert len(outcomes) >= 80
    assert len(set(outcomes)) == 2  # else everything is refused for a reason that has nothing to do with the change


def annotations(**image: object) -> bytes:
    content = fuzz.ANNOTATIONS | {"images": [fuzz.ANNOTATIONS["images"][0] | image, fuzz.ANNOTATIONS["images"][1]]}
    return json.dumps(content).encode()


@pytest.mark.parametrize(
    "content",
    [
        annotations().replace(b"http:", b"\x80ttp:"),  # no utf-8 inside a string
        annotations(file_name="\ud800", width=math.nan),  # half a pair of surrogates
        annotations(file_name="\ud800"),
        b"[" * 100_000,  # deeper than any stack
        b'{"images": ' + b"[" * 100_000 + b"NaN",
        annotations(width=2**63),
        annotations(width=2**40),
        b"\xff\xfe",
    ],
    ids=["utf-8", "surrogate beside NaN", "surrogate", "nested", "nested beside NaN", "65 bits", "wide", "utf-16"],
)
def test_annotations__found_by_fuzzing_are_refused(content):
    assert not fuzz.attempt("annotations", content)


@pytest.mark.parametrize("content", [b"[" * 100_000, b'[{"image_id": "\x80"}]', b"[NaN]", b"{}", b"3"])
def test_results__found_by_fuzzing_are_refused(content):
    assert not fuzz.attempt("results", content)


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("input_size", "{[]: 1}"),  # a TypeError inside literal_eval
        ("input_size", "(" * 300),  # a MemoryError there
        ("input_size", "(320,)"),
        ("input_size", "(320, 'a')"),
        ("input_size", "(320, True)"),
        ("basic_lr_per_img", "1e999"),
        ("basic_lr_per_img", "9" * 400),
        ("max_epoch", "9" * 5000),
        ("max_epoch", "\0"),
        ("anchor_scales", "(1, 1e999)"),
        ("9" * 5000, "1"),  # a message of several thousand characters
        ("two\nlines", "1"),
    ],
)
def test_overrides__found_by_fuzzing_are_refused(key, text):
    assert not fuzz.attempt("overrides", [(key, text)])


def test_overrides__that_are_right_still_pass():
    for key, text in [("input_size", "[320, 256]"), ("anchor_scales", "(3, 4.5)"), ("random_size", "none")]:
        assert fuzz.attempt("overrides", [(key, text)])


def test_attempt__tells_an_error_that_is_no_refusal():
    """The fuzzing itself can fail: a reader that raises anything but a UserError is a finding."""
    with pytest.raises(TypeError):
        fuzz.attempt("annotations", None)
