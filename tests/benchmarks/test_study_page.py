"""The study's tables by hand, and that the page says what the csv files hold."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

from studies import page
from studies.cells import Table
from studies.claims import Claim
from studies.figures import render_all
from studies.forecast import forecast_table, rest_of_groups
from studies.measure import experiment
from studies.records import COURSES, EARLIER, REGIME, RUNS, key_of, read_rows
from studies.sets import SETS
from studies.tables import (
    LIMIT,
    LONG,
    TABLES,
    Long,
    agreement_of_levels,
    agreement_table,
    difference,
    pair_table,
)
from tests.tiny import tiny_data

FEW = {"num_classes": 4, "glyph_image_size": 64, "glyph_train_images": 360, "glyph_val_images": 12}
FEW |= {"glyph_object_size": None, "input_size": (64, 64), "test_size": (64, 64)}
"""The tiny glyphs of tests.tiny."""

pytestmark = pytest.mark.xdist_group("study")


def test_difference__of_a_derived_metric():
    rows = [
        {"set": "cpu", "case": "EFL", "seed": "0", "pos_score_r": "0.5", "neg_score_r": "0.1"},
        {"set": "cpu", "case": "FL", "seed": "0", "pos_score_r": "0.3", "neg_score_r": "0.2"},
    ]
    found = difference(rows, Claim("", ("cpu", "EFL"), ("cpu", "FL"), "margin_r"))
    assert found.mean == pytest.approx(0.3)


def rows_with(differences):
    """FL at 10 and EFL that much above it, one seed each."""
    pairs = [(seed, case, 10 + d * (case == "EFL")) for seed, d in enumerate(differences) for case in ("FL", "EFL")]
    return [{"set": "cpu", "case": case, "seed": str(seed), "APr_300": str(value)} for seed, case, value in pairs]


@pytest.mark.parametrize(
    ("other", "again"),
    [
        # 2 ± 4.303 / sqrt(3) = [-0.5, 4.5] and three more: [2.5, 7.5]
        ((4, 5, 6), "| +2.0 [-0.5, +4.5] | +5.0 [+2.5, +7.5] | yes | inconclusive; **reproduced** |"),
        ((2, 3, 1), "| +2.0 [-0.5, +4.5] | +2.0 [-0.5, +4.5] | yes | inconclusive |"),
        ((8, 9, 10), "| +2.0 [-0.5, +4.5] | +9.0 [+6.5, +11.5] | **no** | inconclusive; **reproduced** |"),
    ],
)
def test_agreement__of_two_studies_by_hand(other, again):
    lines = str(agreement_table(rows_with((1, 2, 3)), rows_with(other))).splitlines()
    assert len(lines) == 3  # no other claim compares the two by this metric
    assert lines[2].endswith(again)
    assert lines[2].startswith("| EFL lifts rare categories over FL")


def test_agreement_of_levels__counts_means_by_hand():
    # FL has no spread: it meets itself only. EFL: [9.5, 14.5] against [12.5, 17.5], means 12 and 15.
    said = agreement_of_levels(rows_with((1, 2, 3)), rows_with((4, 5, 6)))
    assert said.startswith("2 means")
    assert "the intervals of 2 overlap, 1 of these" in said


def test_page__tables_are_those_of_the_csv_files():
    text = page.PAGE.read_text(encoding="utf-8")
    assert set(TABLES) == {name for _, name, _ in page.BLOCK.findall(text)}
    rows = [read_rows(page.DATA / name) for name in (RUNS, REGIME, EARLIER)]
    assert page.render(text, *rows) == text
    files = page.long_tables(*rows)
    assert set(files) == {"agreement.csv", "tail.csv"}
    for name, content in files.items():
        assert (page.DATA / name).read_text(encoding="utf-8") == content


def test_page__no_table_is_longer_than_the_limit_and_long_ones_are_linked():
    text = page.PAGE.read_text(encoding="utf-8")
    for part in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        assert len(part.splitlines()) <= LIMIT + 2, part.splitlines()[0]
    for link in re.findall(r"\]\((results/[^)]+)\)", text):
        assert (page.PAGE.parent / link).is_file(), link
    for name, long in LONG.items():
        assert f"(results/{long.source or f'{name}.csv'}): {long.says}" in text


@pytest.mark.parametrize("kept", ["1", "none of them"])
def test_block__a_long_table_is_a_link_and_the_rows_that_are_kept(kept, monkeypatch):
    body = [[str(i), "**a**, b"] for i in range(LIMIT)]
    monkeypatch.setitem(LONG, "x", Long("numbers", "The first", lambda row: row["n"] == kept))
    assert page.block("x", Table(["n", "m"], body)).count("\n") == LIMIT + 1  # not too long: all of it
    long = Table(["n", "m"], [*body, ["99", "c"]])
    shown = "\n\n| n | m |\n|---|---|\n| 1 | **a**, b |" if kept == "1" else " none."
    assert page.block("x", long) == f"[results/x.csv](results/x.csv): numbers; {LIMIT + 1} rows. The first:{shown}"
    assert long.csv().splitlines()[:2] == ["n,m", '0,"a, b"']


def test_page__every_published_run_is_of_the_grid_and_complete():
    grid = {(name, case.name, str(seed)) for name, s in SETS.items() for case in s.cases for seed in range(case.seeds)}
    rows = read_rows(page.DATA / RUNS)
    keys = [key_of(row) for row in rows if row["set"] != "start"]
    assert len(set(keys)) == len(keys)
    assert set(keys) <= grid
    courses = [(*key_of(row), row["iteration"], row["group"]) for row in read_rows(page.DATA / COURSES)]
    assert len(set(courses)) == len(courses)
    assert {key for key in keys if key[0] != "two_stage"} <= {course[:3] for course in courses}
    for row in rows:
        assert all(row[name] for name in ("AP_300", "AP_100", "AP_20", "AP_fixed", "commit", "processor_seconds"))
        if row["set"] not in ("start", "two_stage"):  # those losses have no g
            assert all(row[f"g_{group}"] for group in "rcf") or "balanced" in row["case"]


def test_figures__are_those_of_the_csv_files(tmp_path):
    rows = [read_rows(page.DATA / name) for name in (RUNS, COURSES, REGIME)]
    made = render_all(tmp_path, *rows)
    text = page.PAGE.read_text(encoding="utf-8")
    for path in made:
        assert f"images/{path.name}" in text
        published = imread(page.IMAGES / path.name)
        assert published.shape == imread(path).shape


@pytest.mark.parametrize("sampler", ["uniform", "repeat_factor"])
def test_rest_of_groups__from_the_boxes_of_the_annotation_file(sampler, tmp_path_factory):
    folder = tmp_path_factory.getbasetemp()
    settings = {**FEW, "data_dir": str(tiny_data(tmp_path_factory)), "sampler": sampler, "repeat_thresh": 0.5}
    exp = experiment(settings, folder, "forecast")
    content = json.loads((Path(exp.data_dir) / "annotations/glyphs_train.json").read_text(encoding="utf-8"))
    drawn = dict.fromkeys((a["image_id"] for a in content["annotations"]), 1.0)  # images without objects are left out
    assert len(drawn) < len(content["images"])
    if sampler == "repeat_factor":
        index = exp.get_index("train")
        positions = exp.train_positions(index)
        factors = exp.get_factors(index, positions)
        drawn = dict(zip(index.image_ids[positions].tolist(), factors.tolist(), strict=True))
        assert max(factors) > 1
    boxes = dict.fromkeys((c["id"] for c in content["categories"]), 0.0)
    for annotation in content["annotations"]:
        boxes[annotation["category_id"]] += drawn[annotation["image_id"]]
    priors = 2 * (8 * 8 + 4 * 4 + 2 * 2)  # 64 pixels, two anchors a cell
    rows = rest_of_groups(exp)
    assert sum(row["members"] for row in rows) == len(boxes)
    for row in rows:
        of = [c["id"] for c in content["categories"] if c["frequency"] == row["group"]]
        shares = [boxes[i] * 7.5 / (sum(drawn.values()) * priors) for i in of]
        assert row["members"] == len(of)
        assert row["share"] == pytest.approx(float(np.median(shares)))
        assert row["rest"] == pytest.approx((0.25 * row["share"] / (0.75 * 3)) ** (1 / 3))


def test_forecast__counts_the_runs_that_end_where_the_rule_says():
    forecast = [{"data": "study", "sampler": "uniform", "group": "r", "rest": "0.02"}]
    common = {"set": "cpu", "num_classes": "90", "sampler": "uniform", "cls_loss": "efl", "fresh_std": ""}
    low, high = {**common, "prior_prob": "0.01"}, {**common, "prior_prob": "0.05"}
    runs = [
        *({**low, "g_r": g} for g in ("1.0", "0.96", "0.9")),  # the last ends below 1 all the same
        *({**high, "g_r": g} for g in ("0.5", "0.99")),  # the last has risen to 1
        {**high, "g_r": "0.5", "cls_loss": "qfl"},  # no g of its own
        {**high, "g_r": "0.5", "loss_ratio": "samples"},  # another g
        {**high, "g_r": "0.99", "category_prior": "rest"},  # not one prior for all
        {**high, "g_r": "0.5", "sampler": "class_balanced"},  # the rule was not asked
        *({**high, "g_r": "0.99", name: value} for name, value in (("repeat_power", "1.0"), ("repeat_cap", "3.0"))),
        {**high, "g_r": "0.99", "set": "detectors"},  # another network
    ]
    assert forecast_table(forecast, runs).body == [
        ["study", "uniform", "0.01", "default", "0.020", "1", "0.95", "2 of 3"],
        ["study", "uniform", "0.05", "default", "0.020", "below 1", "0.74", "1 of 2"],
    ]


def test_pairs__differences_over_the_seeds_that_both_have():
    rows = [
        {"set": "a", "case": case, "seed": str(seed), "AP": str(ap)}
        for case, aps in (("x", (5, 7, 9)), ("y", (4, 5)))
        for seed, ap in enumerate(aps)
    ]
    table = pair_table(rows, [(("a", "x"), ("a", "y")), (("a", "x"), ("a", "z"))], ("AP",), with_set=True)
    # 1 and 2: 1.5 ± 12.706 * sqrt(0.5) / sqrt(2)
    assert [list(line) for line in table.body] == [["a", "x - y", "2", "+1.5 [-4.9, +7.9]"], ["a", "x - z", "0", "-"]]
