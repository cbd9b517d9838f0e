"""Why a category fails: every rule by hand, which one comes first, and what is there without figures."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.report.made_run import make_run
from yolox_lt.inference import DEFAULT_CONF as OF_PREDICTOR
from yolox_lt.report.analysis.causes import (
    DEFAULT_CONF,
    RULES,
    UNCLEAR,
    Cause,
    Measured,
    causes_of,
    counts_of,
    failing,
    lowest,
)
from yolox_lt.report.page.failing import failing_categories, failing_line
from yolox_lt.report.page.found_by_one import found_by_one, matches
from yolox_lt.report.page.page_data import category_columns
from yolox_lt.report.page.run_files import read_run

COLUMNS = (
    *("ap", "ar", "boxes", "train_images", "draws", "g", "gamma", "weight"),
    *("threshold", "best_f1", "default_f1", "true_score"),
)
GOOD = {"ap": 0.5, "ar": 0.6, "boxes": 20, "train_images": 1000, "draws": 1000, "g": 1, "gamma": 2, "weight": 1} | {
    "threshold": 0.3,
    "best_f1": 0.7,
    "default_f1": 0.7,
    "true_score": 0.6,
}


def measured(count=3, confusion=(), errors=(0, 0, 0, 0, 0, 0), **last):
    """`count` categories a, b, c ... that all do well but for the figures of the last one."""
    table = {name: np.full(count, float(GOOD[name])) for name in COLUMNS}
    for name, value in last.items():
        table[name][-1] = value
    counts = np.zeros((count, 6), np.int64)
    counts[-1] = errors
    rows = np.array(confusion, np.int64).reshape(-1, 3)
    return Measured(names=tuple("abcdefgh"[:count]), errors=counts, confusion=rows, **table)


def last(found):
    cause = causes_of(found)[-1]
    return cause.cause, cause.text


def test_threshold__objects_are_told_apart_below_the_default_score():
    assert last(measured(best_f1=0.6, default_f1=0.3, threshold=0.12)) == (
        "threshold",
        "F1 60.0 from score 0.12 on, 30.0 from 0.3 on",
    )
    assert last(measured(best_f1=0.6, default_f1=0.31))[0] == UNCLEAR  # more than half of it
    assert last(measured(best_f1=0.49, default_f1=0.0))[0] == UNCLEAR  # not told apart at any score
    assert DEFAULT_CONF == OF_PREDICTOR


def test_confusion__errors_with_others_in_both_directions():
    # 2 of c on others' objects, 3 of b on c's objects: 5 of 3 + 2 + 3 = 8 errors around c.
    both = ((2, 1, 3), (0, 2, 2))
    assert last(measured(errors=(2, 0, 0, 0, 0, 3), confusion=both)) == (
        "confusion",
        "5 of 8 errors are wrong categories, 3 with b",
    )
    assert last(measured(errors=(2, 0, 0, 0, 0, 6), confusion=both))[0] == UNCLEAR  # 5 of 11
    assert last(measured(errors=(3, 0, 0, 0, 0, 3)))[1] == "3 of 6 errors are wrong categories"  # just half, no pair
    assert last(measured(errors=(2, 0, 0, 0, 0, 0)))[0] == UNCLEAR  # two are chance


def test_localisation__wrong_places_and_objects_found_already():
    assert last(measured(errors=(0, 2, 0, 1, 0, 3))) == (
        "localisation",
        "of 6 errors 2 lie in the wrong place, 1 on what was found already",
    )
    assert last(measured(errors=(0, 2, 0, 1, 0, 4)))[0] == UNCLEAR


def test_sampler__few_images_that_are_not_repeated():
    # Draws: 2,005 of 2,005 images, so one an image is the usual. AR: (0.6 + 0.6 + 0.3) / 3 = 0.5.
    assert last(measured(train_images=5, draws=5, ar=0.3)) == (
        "sampler",
        "5 training images, 5 draws an epoch (most: 1,000); repeat factor 1.0; AR 30.0 (mean 50.0)",
    )
    assert last(measured(train_images=20, draws=20, ar=0.3))[0] == "sampler"  # 2 % of 1,000
    assert last(measured(train_images=21, draws=21, ar=0.3))[0] == UNCLEAR
    assert last(measured(train_images=5, draws=5, ar=0.7))[0] == UNCLEAR  # its objects are found


def test_sampler__repeats_are_relative_to_the_other_categories():
    """With mosaic every image is drawn three times: 12 draws of 4 images are no repeats."""
    found = measured(train_images=4, draws=12, ar=0.3)
    found = replace(found, draws=np.array([3000.0, 3000.0, 12.0]))
    assert found.repeat.tolist() == pytest.approx([1, 1, 1])
    assert last(found)[0] == "sampler"


def test_data__few_images_though_they_are_repeated():
    # 2,020 draws of 2,005 images; 20 / 5 = 4 over 1.0075.
    assert last(measured(train_images=5, draws=20, ar=0.3)) == (
        "data",
        "5 training images, repeat factor 4.0; AR 30.0 (mean 50.0)",
    )
    assert last(measured(train_images=1, draws=np.nan, ar=0.3))[1] == "1 training image; AR 30.0 (mean 50.0)"
    assert last(measured(train_images=0, draws=0, ar=0.0))[0] == "data"
    assert last(measured(train_images=11, draws=44, ar=0.3))[0] == UNCLEAR


def test_loss__negatives_outweigh_or_true_positives_score_low():
    assert last(measured(g=0.19, gamma=5.24, weight=2.62)) == (
        "loss",
        "balance g 0.190: negatives have exponent 5.24, weight 2.62",
    )
    assert last(measured(g=0.2))[0] == UNCLEAR
    assert last(measured(true_score=0.25)) == (
        "loss",
        "AR 60.0 (mean 60.0), but true positives score 0.25; median 0.60",
    )
    assert last(measured(true_score=0.3))[0] == UNCLEAR
    assert last(measured(true_score=0.25, ar=0.1))[0] == UNCLEAR  # its objects are not found at all


def test_order__the_first_rule_that_fits():
    """One category that all rules fit; then the first of them no longer does."""
    every = {"best_f1": 0.6, "default_f1": 0.1, "train_images": 5, "draws": 5, "ar": 0.3, "g": 0.1}
    found = measured(errors=(4, 4, 0, 0, 0, 0), **every)
    assert last(found)[0] == "threshold"
    found = replace(found, default_f1=found.best_f1)
    assert last(found)[0] == "confusion"  # as many as of localisation
    found = replace(found, errors=np.array([[0] * 6, [0] * 6, [0, 4, 0, 0, 0, 0]]))
    assert last(found)[0] == "localisation"
    found = replace(found, errors=np.zeros((3, 6), np.int64))
    assert last(found)[0] == "sampler"
    found = replace(found, draws=np.array([1000.0, 1000, 20]))
    assert last(found)[0] == "data"
    found = replace(found, train_images=np.full(3, 1000.0), draws=np.full(3, 1000.0))
    assert last(found)[0] == "loss"
    assert list(RULES) == ["threshold", "confusion", "localisation", "sampler", "data", "loss"]


def test_not_told__says_the_most_frequent_error():
    assert last(measured(errors=(1, 0, 0, 0, 2, 4))) == (
        UNCLEAR,
        "most frequent error: missed (4 of 7); 1,000 training images",
    )
    assert last(measured()) == (UNCLEAR, "no errors are recorded")


def test_no_data__nothing_is_claimed():
    """Only AP is known; the category without boxes has no cause."""
    empty = {name: np.full(2, np.nan) for name in COLUMNS}
    nothing = Measured(("a", "b"), **empty, errors=np.zeros((2, 6), int), confusion=np.zeros((0, 3), int))
    assert causes_of(nothing) == [None, None]
    known = replace(nothing, ap=np.array([0.0, np.nan]))
    assert causes_of(known) == [Cause(UNCLEAR, "no errors are recorded"), None]


def test_empty_set__no_category():
    none = np.zeros(0)
    empty = Measured((), **dict.fromkeys(COLUMNS, none), errors=np.zeros((0, 6), int), confusion=np.zeros((0, 3), int))
    assert causes_of(empty) == []
    assert lowest(none, none) == []
    assert failing(none)[1] == []
    assert failing_line(0, float("nan"), 0, []) == "No category with boxes has been evaluated."


def test_lowest__ascending_up_to_the_mean_of_equal_ones_the_one_with_most_boxes():
    # Mean of the known: (0.2 + 0 + 0.8 + 0 + 0.5) / 5 = 0.3.
    ap = np.array([0.2, 0.0, 0.8, np.nan, 0.0, 0.5])
    boxes = np.array([9.0, 3, 9, 0, 7, 9])
    assert lowest(ap, boxes) == [4, 1, 0]
    assert lowest(ap, boxes, most=2) == [4, 1]
    assert lowest(np.full(3, 0.1), np.full(3, 5.0)) == [0, 1, 2]  # all equal: all at the mean
    assert lowest(np.array([0.9, 0.8, 0.0]), np.ones(3)) == [2]  # the last one


def test_failing__half_the_mean_and_the_sentence():
    limit, low = failing(np.array([0.2, 0.0, 0.8, np.nan, 0.1, 0.9]))  # mean 0.4
    assert (limit, low) == (pytest.approx(0.2), [0, 1, 4])
    counts = counts_of([Cause("loss", ""), Cause("data", ""), Cause(UNCLEAR, ""), Cause("loss", "")])
    assert counts == [("loss", 2), ("data", 1), (UNCLEAR, 1)]  # equal ones in the order of the rules
    assert failing_line(5, limit, 3, counts) == (
        "3 of 5 categories have at most half the mean AP (20.0); most often: loss (2), data (1), unclear (1)."
    )
    assert failing_line(5, limit, 0, []) == "0 of 5 categories have at most half the mean AP (20.0)."
    assert failing(np.zeros(2)) == (0, [0, 1])


def test_page__takes_the_figures_of_the_evaluation_or_of_per_category_csv(tmp_path):
    found = make_run(tmp_path / "run", 4)
    found.values["AP"][:] = [0.5, 0.1, np.nan, 0.6]
    found.errors[:] = 0
    found.errors[1] = [0, 5, 0, 0, 0, 5]
    found.confusion = np.zeros((0, 3), int)
    found.best_f1[1] = 0.2
    found.save(tmp_path / "run/evaluation.npz")
    run = read_run(tmp_path / "run")
    made = failing_categories(run, category_columns(run))
    assert [(row["label"], row["AP"], row["cause"]) for row in made["rows"]] == [(1, 0.1, "localisation")]
    assert made["line"].startswith(
        "1 of 3 categories have at most half the mean AP (20.0); most often: localisation (1)"
    )
    (tmp_path / "run/evaluation.npz").unlink()
    run = read_run(tmp_path / "run")
    made = failing_categories(run, category_columns(run))
    assert [row["label"] for row in made["rows"]] == lowest(np.array(run.categories["AP"]), np.ones(4))


def example(kind, label, image, box, score=None, file=""):
    entry = {"kind": kind, "label": label, "image": image, "score": score, "file": file}
    return entry | ({"box": box} if box else {})


def test_matches__one_object_of_one_label_and_image():
    there = [0, 0, 10, 10]
    missed = [example("missed", label, 5, there) for label in (1, 2, 3)] + [example("fp", 4, 5, there)]
    found = [
        example("tp", 1, 5, [0, 0, 10, 5], 0.4, "half"),  # IoU exactly 0.5
        example("tp", 1, 5, there, 0.6, "better"),
        example("tp", 1, 6, there, 0.9, "another image"),
        example("tp", 2, 5, [0, 0, 10, 4.9], 0.9, "another place"),
        example("tp", 3, 5, there, 0.7, "best"),
        example("fp", 3, 5, there, 0.9, "no true positive"),
        example("tp", 4, 5, there, 0.9, "nothing missed"),
    ]
    thresholds = {1: 0.3, 2: 0.3, 3: 0.3, 4: 0.3}
    assert [entry["file"] for entry in matches(found, missed, thresholds)] == ["best", "better"]
    assert [entry["file"] for entry in matches(found, missed, {1: 0.3})] == ["better"]  # no other label is asked for
    assert [entry["file"] for entry in matches(found, missed, thresholds | {3: 0.71})] == ["better"]
    assert matches(found, missed, {3: float("nan")}) == []  # nothing counts without a threshold
    assert matches(found, [], thresholds) == matches([], missed, thresholds) == []
    old = [example("missed", 1, 5, None)]  # of an evaluation before boxes were kept
    assert matches(found, old, thresholds) == []


def test_found_by_one__rare_categories_of_equal_lists_both_ways(tmp_path):
    for name, kinds in (("a", ("tp", "missed")), ("b", ("missed", "tp"))):
        found = make_run(tmp_path / name, 3)
        found.groups, found.threshold = np.array(["r", "r", "f"]), np.full(3, 0.5)
        found.examples = [
            example(kind, label, 7, [0, 0, 8, 8], 0.6, f"{name}{label}") for label, kind in enumerate((*kinds, "tp"))
        ]
        found.save(tmp_path / name / "evaluation.npz")
    runs = [read_run(tmp_path / name) for name in "ab"]
    for run in runs:
        run.analysis.names = ("x", "y", "z")
    assert found_by_one(runs, 1) == [
        {"found": 0, "missed": 1, "label": 0, "file": "a0"},
        {"found": 1, "missed": 0, "label": 1, "file": "b1"},
    ]
    runs[1].analysis.names = ("x", "y", "other")
    assert found_by_one(runs, 1) == []
    assert found_by_one([runs[0], replace(runs[1], analysis=None)], 1) == []
