"""The page in a real browser: sorting, filtering, a category's images, themes, a thousand categories."""

from __future__ import annotations

import numpy as np
import pytest

from tests.report.chromium import CHROMIUM, DRIVER, installed, started
from tests.report.made_run import make_run, write_categories
from tests.report.test_after_training import write_files
from yolox_lt.report.page.page import write_page
from yolox_lt.report.page.page_data import best_row
from yolox_lt.report.page.run_files import read_run

selenium = pytest.importorskip("selenium", reason="selenium is not installed (requirements-dev.txt)")

CATEGORIES = 1203

pytestmark = [
    pytest.mark.xdist_group("browser"),
    pytest.mark.skipif(not installed(), reason=f"needs {CHROMIUM} and {DRIVER}"),
]


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with started(tmp_path_factory.mktemp("profile")) as driver:
        yield driver


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Folder of a run of LVIS's size, the page written."""
    folder = tmp_path_factory.mktemp("runs") / "large"
    make_run(folder, CATEGORIES, epochs=60, images=1)
    write_page(folder)
    return folder


def opened(browser, page):
    browser.get(page.as_uri())
    browser.execute_script("document.getElementById('theme').value = ''; localStorage.clear()")
    return browser.execute_script


def click_heading(script, title):
    """Click the heading of the table."""
    script(
        """const buttons = [...document.querySelectorAll('#table th button')];
        buttons.find((b) => b.textContent === arguments[0]).click();""",
        title,
    )


def column(script, title):
    """Texts of a column of the table, rows in sight alone, from top to bottom."""
    return script(
        """const heads = [...document.querySelectorAll('#table th')].map((h) => h.textContent);
        const at = heads.indexOf(arguments[0]);
        return [...document.querySelectorAll('#table tbody tr:not([hidden])')].map((r) => r.cells[at].textContent);""",
        title,
    )


def percent(values):
    return ["-" if np.isnan(v) else f"{100 * v:.1f}" for v in values]


def falling(values):
    """NaN last."""
    return sorted(values, key=lambda v: (np.isnan(v), -v))


def test_table__sorts_a_thousand_rows_both_ways(browser, run):
    script = opened(browser, run / "report.html")
    ap = read_run(run).categories["AP"]
    click_heading(script, "AP")
    assert column(script, "AP") == percent(falling(ap))
    click_heading(script, "AP")
    assert column(script, "AP") == percent([-v for v in falling([-v for v in ap])])
    click_heading(script, "category")
    assert column(script, "category") == sorted(read_run(run).categories["name"])
    assert script("return document.querySelector('#table th[aria-sort]').getAttribute('aria-sort')") == "ascending"
    assert (run / "report.html").stat().st_size < 15e6


def test_table__filters_by_text_id_and_group(browser, run):
    script = opened(browser, run / "report.html")
    names, groups = read_run(run).categories["name"], read_run(run).categories["group"]
    fill = """const input = document.getElementById(arguments[0]);
        input.value = arguments[1];
        input.dispatchEvent(new Event(arguments[2]));
        return document.getElementById('count').textContent;"""
    wanted = [name for name in names if "_99" in name]
    assert script(fill, "search", "_99", "input") == f"{len(wanted)} of 1,203"
    assert sorted(column(script, "category")) == sorted(wanted)
    assert script(fill, "search", "301", "input") == "2 of 1,203"
    assert sorted(column(script, "category")) == ["category_100", "category_301"]  # the id of one, the name of one
    script(fill, "search", "", "input")
    assert script(fill, "group", "r", "change") == f"{groups.count('r')} of 1,203"
    assert set(column(script, "group")) == {"rare"}
    assert script(fill, "group", "", "change") == "1,203 of 1,203"


def test_category__shows_numbers_images_and_balance(browser, run):
    script = opened(browser, run / "report.html")
    found = read_run(run).analysis
    click_heading(script, "AP")
    click_heading(script, "category")
    script("document.querySelectorAll('#table tbody tr')[1].click()")
    assert script("return document.getElementById('category').open")
    assert script("return document.getElementById('category-name').textContent") == "category_1"
    shown = script(
        """return Promise.all([...document.querySelectorAll('#category img')].map(
            (image) => image.decode().then(() => [image.naturalWidth, image.alt])));"""
    )
    assert shown == [
        [96, "score 0.75 · image 41"],
        [96, "score 0.75 · wrong category: is category_2 · image 41"],
        [96, "image 41"],
    ]
    tiles = script(
        """return Object.fromEntries([...document.querySelectorAll('#category .numbers .tile')].map(
            (tile) => [...tile.children].map((child) => child.textContent)));"""
    )
    assert tiles["AP"] == percent([found.values["AP"][1]])[0]
    assert tiles["missed"] == str(found.errors[1, 5])
    browser.implicitly_wait(5)
    line = browser.find_element("css selector", "#category figure[data-key='Balance g over epochs'] path.line")
    assert line.get_attribute("d").count("L") == 59  # 60 epochs
    script("document.getElementById('next').click()")
    assert script("return document.getElementById('category-name').textContent") == "category_10"
    script("document.getElementById('close').click()")
    assert not script("return document.getElementById('category').open")


def test_page__is_drawn_without_errors_or_requests_in_both_themes(browser, run):
    script = opened(browser, run / "report.html")
    browser.implicitly_wait(5)
    browser.find_element("css selector", "#charts figure[data-key='ap'] svg path.line")
    keys = "return [...document.querySelectorAll(arguments[0])].map((f) => f.dataset.key)"
    assert script(keys, "#charts figure") == [
        "losses", "rate", "ap", "pr", "f1", "errors", "balance", "balance_images"
    ]  # fmt: skip
    assert script(keys, "#paper figure") == ["ratio", "loss_plain", "loss", "derivative", "margin"]
    best = read_run(run).column("AP")
    assert (
        script("return document.querySelector('[data-metric=AP] .value').textContent") == percent([np.nanmax(best)])[0]
    )
    switch = """const choice = document.getElementById('theme');
        choice.value = arguments[0];
        choice.dispatchEvent(new Event('change'));
        return getComputedStyle(document.body).backgroundColor;"""
    assert (script(switch, "dark"), script(switch, "light")) == ("rgb(20, 23, 28)", "rgb(245, 246, 248)")
    assert (
        script(
            "return performance.getEntriesByType('resource').map((e) => e.name).filter((n) => !n.startsWith('data:'))"
        )
        == []
    )
    assert browser.get_log("browser") == []


def tell_boxes(folder):
    """The first rare category's first true positive of run a lies where run b has missed an object."""
    for name, kind in (("a", "tp"), ("b", "missed")):
        found = read_run(folder / name).analysis
        found.groups[-1], found.threshold[-1] = "r", 0.5
        rare = np.flatnonzero(found.groups == "r")[0]
        found.threshold[rare] = 0.5
        entry = next(e for e in found.examples if (e["label"], e["kind"]) == (rare, kind))
        entry["box"] = [10, 10, 20, 20]
        found.save(folder / name / "evaluation.npz")
        write_categories(folder / name / "per_category.csv", found)


def test_paper__figures_are_folded_and_drawn_when_opened(browser, run):
    script = opened(browser, run / "report.html")
    assert not script("return document.querySelector('#paper details').open")
    assert script("return document.querySelectorAll('#paper svg').length") == 0
    script("[...document.querySelectorAll('#contents a')].find((a) => a.hash === '#paper').click()")
    browser.implicitly_wait(5)
    browser.find_element("css selector", "#paper figure[data-key='derivative'] svg path.line")
    assert script("return document.querySelectorAll('#paper svg').length") == 5
    assert browser.get_log("browser") == []


def test_failing__is_the_first_section_and_opens_a_category(browser, run):
    script = opened(browser, run / "report.html")
    assert script("return document.querySelector('main section').id") == "failing"
    ap = np.array(read_run(run).categories["AP"])
    rows = script(
        """return [...document.querySelectorAll('#failing tbody tr')].map(
            (row) => [...row.cells].map((cell) => cell.textContent));"""
    )
    lowest = np.argsort(ap)[:8]
    assert [row[0] for row in rows] == [f"category_{c}" for c in lowest]
    assert [row[2] for row in rows] == percent(ap[lowest])
    causes = script("return [...document.querySelectorAll('#failing dt')].map((term) => term.textContent)")
    assert all(any(row[3].startswith(cause) for cause in causes) for row in rows)
    low = (ap <= np.nanmean(ap) / 2).sum()
    line = script("return document.querySelector('#failing .line').textContent")
    assert line.startswith(f"{low} of 1202 categories have at most half the mean AP")
    script("document.querySelector('#failing td button').click()")
    assert script("return document.getElementById('category-name').textContent") == rows[0][0]
    script("document.getElementById('close').click()")


def test_page__fits_a_phone_and_compares_runs(browser, tmp_path):
    make_run(tmp_path / "a", 8)
    make_run(tmp_path / "b", 8, seed=1)
    tell_boxes(tmp_path)
    page = write_page(tmp_path / "a", [tmp_path / "b"])
    size = {"width": 390, "height": 800, "deviceScaleFactor": 1, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    script = opened(browser, page)
    assert script("return document.documentElement.scrollWidth") == 390
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    a, b = (read_run(tmp_path / name).categories for name in "ab")
    pairs = dict(zip(column(script, "category"), column(script, "a minus b")))
    change = np.array(a["AP"]) - np.array(b["AP"])
    for name, value in zip(a["name"], change):
        assert pairs[name] == ("-" if np.isnan(value) else f"{100 * value:+.1f}")
    script("document.querySelector('#differing input').click()")
    shown = (
        "return [...document.querySelectorAll('#settings tbody tr:not([hidden])')].map((r) => r.innerText.split('\\t'))"
    )
    assert script(shown) == [["loss_scale", "4.0", "5.0"]]
    assert len(script("return [...document.querySelectorAll('#comparison > .charts figure')]")) == 6
    best = [best_row(read_run(tmp_path / name))["AP"] for name in "ab"]
    tile = script("return document.querySelector('[data-metric=AP]').innerText").split()
    assert tile == ["AP", *percent(best), f"{100 * (best[0] - best[1]):+.1f}"]
    assert "Small: a minus b." in script("return document.getElementById('summary').textContent")
    assert script("return document.querySelectorAll('#failing h3').length") == 2
    shown = script("return [...document.querySelectorAll('#found-by-one figcaption')].map((c) => c.textContent)")
    rare = int(np.flatnonzero(read_run(tmp_path / "a").groups == "r")[0])
    assert shown == [f"category_{rare} · found by a, missed by b · score 0.75 · image {40 + rare}"]
    assert browser.get_log("browser") == []


def test_page__shows_scan_and_thresholds(browser, run, tmp_path):
    make_run(tmp_path / "run", 8)
    write_files(tmp_path / "run")
    script = opened(browser, write_page(tmp_path / "run"))
    tables = script(
        """return [...document.querySelectorAll("#after table")].map(
            (table) => [...table.rows].map((row) => [...row.cells].map((cell) => cell.textContent)));"""
    )
    (head, none, half), (_, rule) = tables
    assert head[:6] == ["tau", "AP", "APr", "APc", "APf", "AP fixed"]
    assert none == ["none", "20.0", "-", "10.0", "30.0", "30.0", "-", "30.0", "30.0", "0.0", "25.0", "75.0"]
    assert half[:2] == ["0.5", "25.0"]
    assert rule == ["best F1", "all", "8", "0.250", "50.0", "-", "40.0"]
    assert script("return document.querySelector('#after tr.chosen').cells[0].textContent") == "0.5"
    assert script("return [...document.querySelectorAll('#contents a')].map((a) => a.hash)").count("#after") == 1
    browser.implicitly_wait(5)
    browser.find_element("css selector", "#after figure[data-key='scan_places'] svg path.line")
    opened(browser, run / "report.html")
    assert script("return document.getElementById('after').hidden")
    assert browser.get_log("browser") == []


def test_page__takes_names_as_text_and_lists_the_groups(browser, tmp_path):
    evil = "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"
    found = make_run(tmp_path / "run", 9)
    found.names = (evil, *found.names[1:])
    found.save(tmp_path / "run/evaluation.npz")
    write_categories(tmp_path / "run/per_category.csv", found)
    script = opened(browser, write_page(tmp_path / "run"))
    script("[...document.querySelectorAll('#table tbody tr')].find((r) => r.textContent.includes('owned')).click()")
    assert script("return document.getElementById('category-name').textContent") == evil
    assert script("return document.querySelectorAll('main img, main script, #category script').length") == 0
    assert script("return document.title") == "run"
    shown = script(
        """const rows = [...document.querySelectorAll("#groups tr")];
        return rows.map((row) => [...row.cells].map((c) => c.textContent));"""
    )
    head, *rows = shown
    names = {"rare": found.groups == "r", "common": found.groups == "c", "frequent": found.groups == "f"}
    names = {name: of for name, of in names.items() if of.any()} | {"all": np.ones(9, bool)}
    assert [row[0] for row in rows] == list(names)
    for row, of in zip(rows, names.values()):
        cells = dict(zip(head, row))
        assert cells["categories"] == str(of.sum())
        assert [cells["AP"]] == percent([np.nanmean(found.values["AP"][of])])
    assert browser.get_log("browser") == []
