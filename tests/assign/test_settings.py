"""Defaults and limits of the assigners' settings."""

from __future__ import annotations

import pytest

from yolox_lt.assign import FCOSAssigner, MaxIoUAssigner, PAAAssigner
from yolox_lt.errors import UserError


def test_defaults__are_those_of_the_papers():
    assert FCOSAssigner() == FCOSAssigner(radius=1.5, ranges=(64, 128, 256, 512))
    assert MaxIoUAssigner() == MaxIoUAssigner(pos_iou=0.5, neg_iou=0.4, low_quality=True)
    assert PAAAssigner() == PAAAssigner(min_iou=0.1, topk=9, box_weight=1.3, alpha=0.25, gamma=2.0)


def test_limits__belong_to_what_is_allowed():
    assert MaxIoUAssigner(1.0, 1.0).pos_iou == 1
    assert PAAAssigner(1.0, 1).topk == 1


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        (MaxIoUAssigner, (0.5, 0)),
        (MaxIoUAssigner, (0.4, 0.5)),
        (MaxIoUAssigner, (1.1, 0.4)),
        (PAAAssigner, (0, 9)),
        (PAAAssigner, (1.1, 9)),
        (PAAAssigner, (0.1, 0)),
        (FCOSAssigner, (1.5, (64, 64))),
    ],
)
def test_beyond_the_limits__is_refused(kind, values):
    with pytest.raises(UserError, match="for example"):
        kind(*values)
