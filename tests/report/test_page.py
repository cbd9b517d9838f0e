"""The page: its numbers are those of the files, and it holds everything it needs."""

from __future__ import annotations

import base64
import csv
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from loguru import logger

from tests.report.made_run import make_run, write_categories
from yolox_lt.commands import report as command
from yolox_lt.errors import UserError
from yolox_lt.report.page import page
from yolox_lt.report.page.page import write_page, write_report
from yolox_lt.report.page.page_data import best_row, duration, text_of
from yolox_lt.report.page.run_files import PURPOSES, read_run

ROOT = Path(__file__).resolve().parents[2]


def parts(path):
    """(data, images) that a page holds."""
    found = re.findall(r'<script type="application/json" id="(\w+)">(.*?)</script>', path.read_text("utf-8"), re.DOTALL)
    assert [name for name, _ in found] == ["data", "pictures"]
    return [json.loads(text) for _, text in found]


def rows_of(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def number(text):
    value = float(text) if text else float("nan")
    return None if np.isnan(value) else value


def test_numbers__equal_the_csv_files(tmp_path):
    make_run(tmp_path / "run", 7, epochs=6)
    data, _ = parts(write_page(tmp_path / "run"))
    (run,) = data["runs"]
    rows = rows_of(tmp_path / "run/metrics.csv")
    assert {name: [number(row[name]) for row in rows] for name in rows[0]} == run["epochs"]
    best = max((row for row in rows if row["AP"]), key=lambda row: float(row["AP"]))
    assert run["best"] == {name: float(best[name]) for name in run["best"]}
    assert list(run["best"]) == ["epoch", "AP", "AP50", "AP75", "APs", "APm", "APl", "APr", "APc", "APf", "AR"]
    rows = rows_of(tmp_path / "run/per_category.csv")
    for name in rows[0]:
        column = [row[name] if name in ("name", "group") else number(row[name]) for row in rows]
        assert run["categories"][name] == column, name
    assert run["notices"] == []
    assert run["settings"]["test_size"] == "64 64"
    assert run["settings"]["version of torch"] == "2.6"


def test_numbers__equal_the_evaluation_and_the_balance(tmp_path):
    found = make_run(tmp_path / "run", 5, epochs=3)
    data, images = parts(write_page(tmp_path / "run"))
    (run,) = data["runs"]
    assert run["protocol"] == found.protocol
    columns = {
        name: np.array(values, float) for name, values in run["categories"].items() if name not in ("name", "group")
    }
    for name, values in {"F1": found.best_f1, "margin": found.margin, "missed": found.errors[:, 5]}.items():
        np.testing.assert_allclose(columns[name], values, rtol=1e-4)
    balance = read_run(tmp_path / "run").balance
    packed = np.frombuffer(base64.b64decode(run["balance"]["ratio"]), "<f4").reshape(3, 5)
    np.testing.assert_array_equal(packed, balance["ratio"])
    np.testing.assert_allclose(columns["gamma"], balance["focusing"][-1], rtol=1e-4)
    curve = np.frombuffer(base64.b64decode(run["curves"]["f1"]), "<f4").reshape(5, 101)
    np.testing.assert_array_equal(curve, found.f1)
    (shown,) = images
    assert [{k: v for k, v in entry.items() if k != "data"} for entry in shown] == found.examples
    content = (tmp_path / "run/pictures/categories" / shown[0]["file"]).read_bytes()
    assert base64.b64decode(shown[0]["data"]) == content


def test_groups__by_hand(tmp_path):
    found = make_run(tmp_path / "run", 5, epochs=2)
    found.groups = np.array(["r", "f", "r", "f", "f"])
    found.box_counts = np.array([3, 1, 2, 0, 4])
    found.values["AP"] = np.array([0.1, 0.5, 0.2, np.nan, 0.9])
    found.threshold = np.array([0.3, 0.4, np.nan, np.nan, 0.1])
    found.errors = np.array([[1, 0, 0, 0, 0, 3], [9, 0, 0, 0, 0, 0], [0] * 6, [0] * 6, [0] * 6])
    found.save(tmp_path / "run/evaluation.npz")
    write_categories(tmp_path / "run/per_category.csv", found)
    (run,) = parts(write_page(tmp_path / "run"))[0]["runs"]
    rare, frequent, everything = run["groups"]
    assert [row["group"] for row in run["groups"]] == ["r", "f", ""]
    assert (rare["categories"], rare["scored"], rare["AP"], rare["threshold"]) == (2, 2, 0.15, 0.3)
    assert (frequent["categories"], frequent["scored"], frequent["AP"], frequent["threshold"]) == (3, 2, 0.7, 0.25)
    assert (rare["worst"], frequent["worst"]) == (["missed", 0.75], ["classification", 1.0])
    assert everything["AP"] == 0.425
    assert everything["draws"] is None  # this per_category.csv knows of none


def test_balance__that_does_nothing_is_said(tmp_path):
    make_run(tmp_path / "run", 3, epochs=2)
    path = tmp_path / "run/balance.npz"
    with np.load(path) as archive:
        columns = dict(archive)
    columns["ratio"][-1] = 1
    np.savez(path, **columns)
    (run,) = parts(write_page(tmp_path / "run"))[0]["runs"]
    (line,) = run["notices"]
    assert line.startswith("run: after epoch 2 g is 1 for 100% of the categories")


def test_balance__of_a_loss_with_another_memory_is_a_column_of_the_categories(tmp_path):
    make_run(tmp_path / "run", 3, epochs=2)
    counts = np.array([[1.0, 2.0, 3.0], [10.0, 20.0, 30.0]])
    np.savez(tmp_path / "run/balance.npz", epochs=np.arange(2), counts=counts)
    (run,) = parts(write_page(tmp_path / "run"))[0]["runs"]
    assert run["categories"]["counts"] == [10.0, 20.0, 30.0]
    assert run["balance"] is None
    np.savez(tmp_path / "run/balance.npz", epochs=np.arange(2), counts=counts[:, :2])
    with pytest.raises(UserError, match=r"balance\.npz has 2 categories \(counts\) and per_category\.csv 3"):
        read_run(tmp_path / "run")


def test_balance__of_many_epochs_is_thinned_with_the_last_one_kept(tmp_path):
    make_run(tmp_path / "run", 2, epochs=301)
    (run,) = parts(write_page(tmp_path / "run"))[0]["runs"]
    assert len(run["balance"]["epochs"]) == 100
    assert run["balance"]["epochs"][::99] == [1, 301]


def test_page__needs_nothing_from_outside(tmp_path):
    make_run(tmp_path / "run", 3)
    text = write_page(tmp_path / "run").read_text("utf-8")
    assert set(re.findall(r"https?://[^\"' ]+", text)) == {"http://www.w3.org/2000/svg"}  # a name, not an address
    assert not re.search(r"<(link|script|img)[^>]*\s(src|href)=(?!\"data:)", text)
    assert "default-src 'none'" in text
    assert not re.search("@[A-Z]+@", text)


@pytest.mark.parametrize("evil", ["<script>alert(1)</script>", '</script><img src=x onerror="alert(1)">@SCRIPT@'])
def test_page__a_name_cannot_become_markup(tmp_path, evil):
    """Category names come from annotation files, checkpoints and exported files, settings from experiments."""
    found = make_run(tmp_path / "run", 3)
    config = json.loads((tmp_path / "run/config.json").read_text())
    (tmp_path / "run/config.json").write_text(json.dumps(config | {"exp": {"exp_name": evil}, "device": evil}))
    found.names = ("a", evil, "<!--c")
    found.save(tmp_path / "run/evaluation.npz")
    write_categories(tmp_path / "run/per_category.csv", found)
    path = write_page(tmp_path / "run")
    text = path.read_text("utf-8")
    assert "<img src=x" not in text
    assert "<script>alert" not in text
    assert "\\u003cscript>alert(1)" in text or "\\u003cimg src=x" in text  # it is there, as text
    assert parts(path)[0]["runs"][0]["categories"]["name"] == list(found.names)


def test_scripts__put_texts_into_the_page_as_texts_alone():
    """What the page shows, and the demo page, is made with textContent; nothing is parsed as markup or run as code."""
    folder = ROOT / "yolox_lt/report/page"
    scripts = [*folder.glob("*.js"), *folder.glob("web/*.js")]
    assert len(scripts) >= 5
    for path in scripts:
        assert not re.search(
            r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function", path.read_text()
        )


def test_images__too_many_are_left_out_first_ones_stay(tmp_path, monkeypatch):
    make_run(tmp_path / "run", 4, images=3)
    whole = write_page(tmp_path / "run").stat().st_size
    monkeypatch.setattr(page, "MOST_CHARACTERS", whole * 2 // 3)
    path = write_page(tmp_path / "run")
    data, (shown,) = parts(path)
    assert 0 < data["pictures_left_out"] == 4 * 9 - len(shown)
    first, second, third = (sum(entry["file"].endswith(f"_{rank}.jpg") for entry in shown) for rank in range(3))
    assert first == 12
    assert third == 0 or second == 12
    assert [entry["label"] for entry in shown] == sorted(entry["label"] for entry in shown)


def test_stale__an_evaluation_of_another_epoch_says_so(tmp_path):
    found = make_run(tmp_path / "run", 4)
    last = {name: np.array(values) / 2 for name, values in found.values.items()}
    best, found.values = found.values, last
    write_categories(tmp_path / "run/per_category.csv", found)
    (run,) = parts(write_page(tmp_path / "run"))[0]["runs"]
    assert "those of the best evaluation (epoch 4)" in run["notices"][0]
    np.testing.assert_allclose(np.array(run["categories"]["AP"], float), last["AP"], atol=1e-6)
    np.testing.assert_allclose(np.array(run["categories"]["AP_best"], float), best["AP"], atol=1e-6)


@pytest.mark.parametrize("kept", sorted(PURPOSES))
def test_poor_run__one_file_alone_gives_what_there_is(kept, tmp_path):
    make_run(tmp_path / "run", 3)
    for name in PURPOSES:
        if name != kept:
            (tmp_path / "run" / name).unlink()
    data, _ = parts(write_page(tmp_path / "run"))
    (line,) = data["missing"]
    assert line.startswith("run: not there: ")
    assert [name for name in PURPOSES if name in line] == [name for name in PURPOSES if name != kept]
    (run,) = data["runs"]
    assert bool(run["best"]) == (kept in ("metrics.csv", "evaluation.npz"))
    assert bool(run["categories"]) == (kept in ("per_category.csv", "evaluation.npz"))
    keys = {chart["key"] for chart in run["charts"]}
    assert keys == {
        "metrics.csv": {"losses", "rate", "ap"},
        "metrics.jsonl": {"losses", "rate"},
        "balance.npz": {"balance", "loss_plain", "loss", "derivative"},
        "evaluation.npz": {"pr", "f1", "errors", "margin"},
    }.get(kept, set())


def test_half_written_lines__are_left_out(tmp_path):
    make_run(tmp_path / "run", 3, epochs=2)
    for name in ("metrics.csv", "metrics.jsonl"):
        with (tmp_path / "run" / name).open("a") as file:
            file.write('{"iteration": 3, "lo' if name.endswith("jsonl") else "3,0.5")
    run = read_run(tmp_path / "run")
    assert run.epochs["epoch"] == [1, 2]
    assert run.steps["iteration"] == [4, 9]
    assert np.isnan(run.steps["box"]).all()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("config.json", "{", r"config\.json: cannot be read"),
        ("config.json", "[]", r"config\.json: holds no settings"),
        ("metrics.csv", "epoch,AP\n1,x\n", r"metrics\.csv: cannot be read"),
        ("per_category.csv", "id,name\n1,a\n", r"per_category\.csv: has not the columns"),
        ("balance.npz", "no archive", r"balance\.npz: cannot be read"),
        ("evaluation.npz", "no archive", r"evaluation\.npz: not a readable evaluation"),
    ],
)
def test_unreadable_file__is_named(name, content, message, tmp_path):
    make_run(tmp_path / "run", 2)
    (tmp_path / "run" / name).write_text(content)
    with pytest.raises(UserError, match=message):
        write_page(tmp_path / "run")


def test_other_categories__are_refused_in_one_run_and_left_apart_in_two(tmp_path):
    make_run(tmp_path / "a", 3)
    make_run(tmp_path / "b", 5, seed=1)
    data, _ = parts(write_page(tmp_path / "a", [tmp_path / "b"], tmp_path / "both.html"))
    assert data["title"] == "a and b"
    three, _ = parts(write_page(tmp_path / "a", [tmp_path / "b", tmp_path / "b"], tmp_path / "three.html"))
    assert three["title"] == "a, b and b"
    (margin,) = [chart for chart in data["comparison"] if chart["key"] == "margin"]
    assert [series["name"] for series in margin["series"]] == ["a"]  # b has other categories
    assert [run["settings"]["loss_scale"] for run in data["runs"]] == ["4.0", "5.0"]
    for name in ("evaluation.npz", "balance.npz"):
        (tmp_path / "b" / name).replace(tmp_path / "a" / name)
        with pytest.raises(UserError, match=rf"{name} .*categories.*; delete the older"):
            read_run(tmp_path / "a")
        (tmp_path / "a" / name).unlink()


def test_folder__that_is_no_run(tmp_path):
    with pytest.raises(UserError, match="no such folder"):
        write_page(tmp_path / "none")
    with pytest.raises(UserError, match="holds no files of a run"):
        write_page(tmp_path)


def test_command__page_and_images_of_all_runs(tmp_path, capsys):
    for name in ("a", "b"):
        make_run(tmp_path / name, 2, epochs=1)
        for file in ("balance.npz", "metrics.jsonl", "evaluation.npz"):
            (tmp_path / name / file).unlink()
    lines: list[str] = []
    handler = logger.add(lambda message: lines.append(message.record["message"]), level="WARNING")
    command.main(command.make_parser().parse_args([str(tmp_path / "a"), str(tmp_path / "b")]))
    logger.remove(handler)
    assert capsys.readouterr().out == f"{tmp_path / 'a' / 'report.html'}\n"
    assert [line.split(":")[0] for line in lines] == ["a", "b"]
    for name in ("a", "b"):
        assert (tmp_path / name / "pictures/curves.png").is_file()
    command.main(command.make_parser().parse_args([str(tmp_path / "b"), "-o", str(tmp_path / "page.html")]))
    assert parts(tmp_path / "page.html")[0]["title"] == "b"
    assert not (tmp_path / "b/report.html").exists()
    with pytest.raises(UserError, match="its folder does not exist"):
        command.main(command.make_parser().parse_args([str(tmp_path / "b"), "-o", str(tmp_path / "no/page.html")]))


def test_write_report__is_what_the_command_writes(tmp_path):
    make_run(tmp_path / "run", 2, epochs=1)
    for name in ("balance.npz", "evaluation.npz"):
        (tmp_path / "run" / name).unlink()
    path = write_report(tmp_path / "run")
    assert path == tmp_path / "run/report.html"
    assert [p.name for p in sorted((tmp_path / "run/pictures").glob("*.png"))] == ["curves.png"]


def test_texts__by_hand():
    assert [duration(s) for s in (12.4, 307, 3725)] == ["12 s", "5 min 07 s", "1 h 02 min"]
    assert text_of([1, [2, None], "a"]) == "1 2 none a"


def test_package__every_file_of_the_page_is_there():
    folder = ROOT / "yolox_lt/report/page"
    listed = {"page.html", *page.STYLES, *page.SCRIPTS}
    assert {p.name for suffix in ("html", "css", "js") for p in folder.glob(f"*.{suffix}")} == listed


def test_best__is_the_row_of_best_pth_by_the_run_s_own_metric(tmp_path):
    """APr falls where AP rises; of the equal ones of AP50 the latest."""
    make_run(tmp_path / "run", 3)
    epochs = {
        "epoch": [1, 2, 3, 4],
        "AP": [0.1, 0.2, 0.3, 0.4],
        "APr": [0.4, 0.3, 0.3, 0.2],
        "AP50": [0.5, 0.7, 0.7, 0.6],
    }
    for metric, epoch in (("APr", 1), ("AP", 4), ("AP50", 3)):
        run = replace(read_run(tmp_path / "run"), config={"exp": {"best_metric": metric}}, epochs=epochs)
        assert best_row(run)["epoch"] == epoch


def test_comparison__is_the_first_run_minus_each_other(tmp_path):
    """By hand: 40 - 25 = 15, and a metric that one run lacks has no difference."""
    make_run(tmp_path / "run", 3)
    run = replace(read_run(tmp_path / "run"), name="new", epochs={"epoch": [1], "AP": [0.4], "APr": [0.1]})
    old = replace(run, name="old", epochs={"epoch": [1, 2], "AP": [0.2, 0.25]})
    assert command.comparison([run, old]).splitlines() == [
        "              AP   AP50    APr    APc    APf",
        "new         40.0      -   10.0      -      -",
        "old         25.0      -      -      -      -",
        "new - old  +15.0      -      -      -      -",
    ]
