"""Charts: the arrays they hold, and the images a run's folder gets."""

from __future__ import annotations

import warnings

import cv2
import numpy as np
import pytest
import torch

from tests.report.made_run import make_run
from yolox_lt.losses.focal import focal_positive
from yolox_lt.report.analysis.tide import KINDS
from yolox_lt.report.page import charts
from yolox_lt.report.page.chart import MOST_POINTS, Chart, Series, column_means, members, running_median, thinned
from yolox_lt.report.page.figures import IMAGES, render_figures
from yolox_lt.report.page.run_charts import charts_of, comparison_charts
from yolox_lt.report.page.run_files import read_run

GROUPS = np.array(["f", "f", "c", "r", "r"])
BALANCE_IMAGES = ["balance.png", "fig2_ratio.png", "fig3_loss.png", "fig5_derivative.png"]


def by_name(chart: Chart) -> dict[str, Series]:
    return {series.name: series for series in chart.series}


def test_losses__the_sum_first_and_only_what_is_a_loss():
    columns = {
        "iteration": [4, 9],
        "epoch": [1, 1],
        "cls": [2, 1],
        "box": [3, 1],
        "loss": [5, 2],
        "lr": [1, 1],
        "AP": [9, 9],
    }
    made = charts.losses_chart(columns, [5, 10], "iteration")
    assert [s.name for s in made.series] == ["sum", "cls", "box"]
    assert made.series[0].x.tolist() == [5, 10]
    assert by_name(made)["box"].y.tolist() == [3, 1]


def test_ap__epochs_that_were_evaluated_in_percent():
    nan = np.nan
    made = charts.ap_chart({"AP": [nan, 0.25, nan, 0.5], "APr": [nan] * 4, "APf": [nan, 0.5, nan, nan]}, [1, 2, 3, 4])
    assert [s.name for s in made.series] == ["AP", "APf"]
    assert (by_name(made)["AP"].x.tolist(), by_name(made)["AP"].y.tolist()) == ([2, 4], [25, 50])


def test_balance__median_and_quartiles_of_each_group():
    ratio = np.array([[1, 1, 1, 1, 1], [0.5, 0.9, 0.4, 0.1, 0.3]], np.float32)
    made = by_name(charts.balance_chart(np.array([3, 6]), ratio, GROUPS))
    assert list(made) == ["rare", "common", "frequent"]
    assert made["rare"].x.tolist() == [3, 6]
    np.testing.assert_allclose(made["rare"].y, [1, 0.2], rtol=1e-6)
    np.testing.assert_allclose(made["rare"].low, [1, 0.15], rtol=1e-6)
    np.testing.assert_allclose(made["rare"].high, [1, 0.25], rtol=1e-6)
    assert list(by_name(charts.balance_chart(np.array([1]), ratio[:1], np.full(5, "")))) == ["all"]
    assert charts.balance_chart(np.array([1]), ratio[:1] * 100, GROUPS).y_log


def test_balance_by_images__a_point_for_every_category():
    ratio, images = np.array([0.9, 0.8, 0.7, 0.6, 0.5]), np.array([500, 300, 50, 9, 0])
    made = by_name(charts.balance_by_images_chart(ratio, images, GROUPS))
    assert made["rare"].x.tolist() == [9, 0]
    assert made["rare"].y.tolist() == [0.6, 0.5]
    assert made["rare"].items.tolist() == [3, 4]


def test_precision_and_f1__means_over_the_categories_of_a_group():
    values = np.arange(5)[:, None] * np.ones(101) / 10
    values[4] = np.nan
    for build in (charts.precision_chart, charts.f1_chart):
        made = by_name(build(values, GROUPS))
        assert {name: round(float(s.y[7]), 6) for name, s in made.items()} == {
            "all": 0.15, "rare": 0.3, "common": 0.2, "frequent": 0.05
        }  # fmt: skip
        np.testing.assert_allclose(made["all"].x, np.arange(101) / 100)


def test_members__all_before_groups_and_alone_where_they_say_no_more():
    assert list(members(GROUPS)) == ["all", "r", "c", "f"]
    assert list(members(GROUPS, everything=False)) == ["r", "c", "f"]
    assert members(GROUPS)["c"].tolist() == [False, False, True, False, False]
    for groups, alone in ((np.array(["", ""]), "all"), (np.array(["f", "f"]), "f")):
        assert list(members(groups)) == ["all"]
        assert list(members(groups, everything=False)) == [alone]


def test_gradient_ratio__log10_in_the_order_of_images():
    positive, negative = np.array([1, 10, 0, 5, 1]), np.array([10, 1, 3, 0, 100])
    made = by_name(charts.gradient_ratio_chart(positive, negative, np.array([1, 0, 4, 3, 2]), GROUPS))
    assert made["frequent"].x.tolist() == [2, 1]
    np.testing.assert_allclose(made["frequent"].y, [-1, 1])
    assert made["rare"].x.tolist() == [4, 3]
    np.testing.assert_allclose(made["rare"].y, [np.nan, -2])
    assert np.isnan(made["common"].y).all()


def test_loss_shapes__are_those_of_the_losses():
    gamma, weight = {"r": 5.5, "f": 2.0}, {"r": 2.75, "f": 1.0}
    plain, weighted = (by_name(chart) for chart in charts.loss_charts(gamma, weight))
    derivative = by_name(charts.derivative_chart(gamma, weight))
    for name, group in (("rare: gamma 5.50, w 2.75", "r"), ("frequent: gamma 2.00, w 1.00", "f")):
        x = torch.from_numpy(plain[name].x)
        value, slope = (part.numpy() for part in focal_positive(x, gamma[group]))
        np.testing.assert_allclose(plain[name].y, value, rtol=1e-12)
        np.testing.assert_allclose(weighted[name].y, weight[group] * value, rtol=1e-12)
        np.testing.assert_allclose(derivative[name].y, weight[group] * slope, rtol=1e-9, atol=1e-15)


def test_margin__of_two_runs_and_a_running_median_for_many_categories():
    margins = {"focal": np.array([0.1, 0.2, np.nan]), "eqfl": np.array([0.3, 0.4, 0.5])}
    made = charts.margin_chart(margins, np.array([2, 0, 1]))
    assert [s.name for s in made.series] == ["focal", "eqfl"]
    assert made.series[1].x.tolist() == [2, 3, 1]
    assert made.series[1].y.tolist() == [0.3, 0.4, 0.5]
    many = charts.margin_chart({"a": np.arange(100.0)}, np.arange(100)[::-1])
    assert [s.kind for s in many.series] == ["points", "line"]
    assert many.series[1].x.tolist() == list(range(1, 101))
    assert many.series[1].y[50] == 49  # the category in place 51


def test_ap__of_a_group_that_holds_all_categories_is_one_line():
    columns = {"AP": [np.nan, 0.1], "APr": [np.nan, np.nan], "APf": [np.nan, 0.1]}
    assert [s.name for s in charts.ap_chart(columns, [1, 2]).series] == ["AP"]
    columns["APf"] = [np.nan, 0.2]
    assert [s.name for s in charts.ap_chart(columns, [1, 2]).series] == ["AP", "APf"]


def test_margin__of_one_run_is_coloured_by_group():
    margin = np.array([0.1, np.nan, 0.3, 0.4])
    made = charts.margin_chart({"eqfl": margin}, np.array([3, 2, 1, 0]), np.array(["r", "f", "f", "r"]))
    assert [(s.name, s.color) for s in made.series] == [("rare", "r"), ("frequent", "f")]
    assert made.series[0].x.tolist() == [4, 1]
    assert made.series[0].y.tolist() == [0.1, 0.4]
    assert made.series[1].items.tolist() == [1, 2]


def test_running_median__by_hand():
    values = np.array([5, 1, np.nan, 3, 9])
    assert running_median(values, 3).tolist() == [3, 3, 2, 6, 6]
    assert np.isnan(running_median(np.array([np.nan]), 5)).all()


def test_errors__shares_of_each_group():
    errors = np.zeros((5, 6), int)
    errors[0] = [1, 2, 3, 4, 0, 0]
    errors[3] = [0, 0, 0, 0, 1, 3]
    made = charts.error_chart(errors, GROUPS)
    assert made.rows == ["all (14)", "rare (4)", "common (0)", "frequent (10)"]
    assert [s.name for s in made.series] == list(KINDS)
    shares = np.array([s.y for s in made.series]).T
    np.testing.assert_allclose(shares[0], np.array([1, 2, 3, 4, 1, 3]) / 14)
    assert shares[1].tolist() == [0, 0, 0, 0, 0.25, 0.75]
    assert shares[2].tolist() == [0] * 6


def test_thinned__means_of_consecutive_values():
    x = np.arange(6 * MOST_POINTS, dtype=float)
    xs, ys = thinned(x, np.where(x < 6, np.nan, 2 * x))
    assert (len(xs), xs[0], xs[-1]) == (MOST_POINTS, 2.5, 6 * MOST_POINTS - 3.5)
    assert np.isnan(ys[0])
    assert ys[1] == 17
    assert column_means(np.array([[1, np.nan], [3, np.nan]])).tolist()[0] == 2


def test_as_json__short_numbers_and_null():
    series = Series("a", "0", np.array([1, 2]), np.array([1 / 3, np.nan]))
    made = Chart("key", "title", "x", "y", [series]).as_json()["series"][0]
    assert (made["x"], made["y"]) == ([1, 2], [0.33333, None])


def test_figures__all_of_a_whole_run_with_the_margins_of_another(tmp_path):
    found = make_run(tmp_path / "a", 12)
    make_run(tmp_path / "b", 12, seed=1)
    runs = [read_run(tmp_path / name) for name in "ab"]
    drawn = render_figures(runs[0], runs[1:])
    assert list(drawn) == list(IMAGES)
    for name in drawn:
        image = cv2.imread(str(tmp_path / "a/pictures" / name))
        assert image.shape[0] > 300
        assert image.std() > 5
    margin = by_name(drawn["fig4_margin.png"][0])
    assert list(margin) == ["a", "b"]
    np.testing.assert_allclose(margin["a"].y, found.margin)
    assert drawn["fig4_margin.png"][0].x_label == "category, most training images first"
    balance = runs[0].balance
    points = drawn["balance.png"][1].series
    at = np.concatenate([s.items for s in points])
    np.testing.assert_allclose(np.concatenate([s.y for s in points]), balance["ratio"][-1][at])
    compared = {chart.key: chart for chart in comparison_charts(runs)}
    np.testing.assert_allclose(by_name(compared["compare_AP"])["b"].y, 100 * runs[1].column("AP")[1::2])
    assert set(by_name(compared["compare_pr"])) == {"a", "b"}


@pytest.mark.parametrize(
    ("num_categories", "gone", "expected"),
    [
        (1, (), list(IMAGES)),
        (3, ("balance.npz",), ["curves.png", "pr.png", "f1.png", "errors.png", "fig4_margin.png"]),
        (3, ("balance.npz", "evaluation.npz", "metrics.jsonl"), ["curves.png"]),
        (3, ("metrics.csv", "metrics.jsonl", "evaluation.npz"), BALANCE_IMAGES),
        (3, ("metrics.csv", "metrics.jsonl", "evaluation.npz", "balance.npz"), []),
    ],
)  # fmt: skip
def test_figures__of_a_poor_run(num_categories, gone, expected, tmp_path):
    """One epoch, one category or few files: what is there is drawn, and nothing warns."""
    make_run(tmp_path / "run", num_categories, epochs=1)
    for name in gone:
        (tmp_path / "run" / name).unlink()
    run = read_run(tmp_path / "run")
    assert run.missing == [
        name for name in ("metrics.csv", "metrics.jsonl", "balance.npz", "evaluation.npz") if name in gone
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        drawn = render_figures(run)
    assert list(drawn) == expected
    assert all((tmp_path / "run/pictures" / name).is_file() for name in expected)


def test_charts__without_detections_or_groups(tmp_path):
    found = make_run(tmp_path / "run", 3)
    for name in ("precision", "f1"):
        getattr(found, name)[:] = np.nan
    found.positive_score[:] = np.nan
    found.errors[:], found.groups[:] = 0, ""
    found.save(tmp_path / "run/evaluation.npz")
    made = {chart.key: chart for chart in charts_of(read_run(tmp_path / "run"))}
    assert not {"pr", "f1", "margin"} & set(made)
    assert made["errors"].rows == ["all (0)"]
    assert [s.name for s in made["balance"].series] == ["all"]
