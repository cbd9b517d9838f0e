"""What a run shows: the same numbers everywhere, also in runs that are cut short, tiny or find nothing."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest

from tests.report.test_page import parts
from tests.tiny import tiny_data, tiny_exp
from yolox_lt.commands import main
from yolox_lt.exp import YOLOXStarExp
from yolox_lt.report.analysis.analysis import Analysis
from yolox_lt.train.callbacks import report
from yolox_lt.train.engine import Trainer
from yolox_lt.train.options import TrainOptions

pytestmark = pytest.mark.usefixtures("with_report")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return tiny_data(tmp_path_factory)


def rows_of(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.open()))


def images(folder: Path) -> set[str]:
    return {path.name for path in (folder / "pictures").iterdir() if path.is_file()}


def test_numbers__of_console_csv_and_page_are_equal(data, tmp_path, log, monkeypatch):
    """Three evaluations. Nothing may be drawn before the end: the page is then that of the best one."""
    monkeypatch.setattr(report, "RENDERING_SHARE", 0)
    exp = tiny_exp(data, tmp_path, max_iter=3, max_epoch=3, eval_interval=1)
    seen = []
    exp.on_epoch_end = lambda trainer, epoch: seen.append((tmp_path / "tiny/report.html").exists())
    Trainer(exp, TrainOptions(4)).train()
    assert seen == [False, False, False]
    folder = tmp_path / "tiny"
    rows = rows_of(folder / "metrics.csv")
    tables = [line.splitlines() for line in log if line.startswith("epoch ")]
    for row, table in zip(rows, tables, strict=True):
        printed = dict(zip(" ".join(table[2::2]).split(), " ".join(table[3::2]).split(), strict=True))
        for name in ("AP", "AP50", "AP75", "APs", "APm", "APl", "APr", "APc", "APf", "AR"):
            assert printed[name] == (f"{100 * float(row[name]):.1f}" if row[name] else "-"), (row["epoch"], name)
    best = max(rows, key=lambda row: float(row["AP"]))
    ((run,), (_,)) = (part["runs"] if isinstance(part, dict) else part for part in parts(folder / "report.html"))
    assert run["best"] == {name: float(best[name]) if best[name] else None for name in run["best"]}
    assert run["evaluated_epoch"] == int(best["epoch"]) == Analysis.load(folder / "evaluation.npz").epoch
    assert not any("another evaluation" in line for line in run["notices"])  # all files are of the best one
    categories = rows_of(folder / "per_category.csv")
    for name in categories[0]:
        wanted = [row[name] if name in ("name", "group") else float(row[name]) for row in categories]
        shown = run["categories"][name]
        assert [v if v is not None else "nan" for v in shown] == [
            "nan" if isinstance(v, float) and math.isnan(v) else v for v in wanted
        ], name
    aps = [float(row["AP"]) for row in categories]
    assert np.nanmean(aps) == pytest.approx(float(best["AP"]), abs=1e-5)
    with np.load(folder / "balance.npz") as balance:
        g = balance["ratio"][balance["epochs"].tolist().index(int(best["epoch"]))]
    np.testing.assert_allclose([float(row["g"]) for row in categories], g, rtol=1e-5)
    # The same again on the console: what the run says of its data is what per_category.csv holds.
    counts = {row["name"]: f"{int(row['train_images']):,}" for row in categories}
    table = next(line for line in log if line.startswith("training data"))
    for line in table.splitlines():
        words = line.split()
        if len(words) > 3 and words[1] in counts:
            assert words[3] == counts.pop(words[1])
    assert counts == {}
    assert sum(line.startswith("images and pages: ") for line in log) == 1


@pytest.mark.parametrize("share", [1e9, 0])
def test_run__of_one_category_stopped_after_an_epoch_has_its_page(data, tmp_path, monkeypatch, share):
    """One category, so no rare group; Ctrl-C after the first epoch, which was evaluated. The page is made at once where
    there is time for it, and after the interruption where there is none.
    """
    monkeypatch.setattr(report, "RENDERING_SHARE", share)
    for split in ("train", "val"):
        content = json.loads((data / f"annotations/glyphs_{split}.json").read_text())
        content["categories"] = content["categories"][:1]
        first = content["categories"][0]["id"]
        content["annotations"] = [a for a in content["annotations"] if a["category_id"] == first]
        for image in content["images"]:
            image["neg_category_ids"] = image["not_exhaustive_category_ids"] = []
        (tmp_path / f"{split}.json").write_text(json.dumps(content))
    exp, small = YOLOXStarExp(), tiny_exp(data, tmp_path, max_iter=2, eval_interval=1, test_conf=0.0)
    for name, value in vars(small).items():
        setattr(exp, name, value)
    exp.train_ann, exp.val_ann = str(tmp_path / "train.json"), str(tmp_path / "val.json")
    exp.train_images, exp.val_images, exp.num_classes = None, None, 1

    folder = tmp_path / "tiny"

    def interrupt(trainer, epoch):
        assert (folder / "report.html").exists() == (share > 0)
        raise KeyboardInterrupt

    exp.on_epoch_end = interrupt
    with pytest.raises(KeyboardInterrupt):
        Trainer(exp, TrainOptions(4)).train()
    (run,) = parts(folder / "report.html")[0]["runs"]
    assert len(run["categories"]["name"]) == 1
    assert {"curves.png", "balance.png", "labels.png", "train_batch_0.jpg", "val_predictions.jpg"} <= images(folder)
    assert {"losses", "ap", "pr", "f1", "balance"} <= {chart["key"] for chart in run["charts"]}
    main(["report", str(folder)])


def test_run__that_finds_nothing_has_its_page(data, tmp_path):
    exp = tiny_exp(data, tmp_path, max_iter=2, max_epoch=1, eval_interval=1, test_conf=1.5)
    Trainer(exp, TrainOptions(4)).train()
    folder = tmp_path / "tiny"
    (run,) = parts(folder / "report.html")[0]["runs"]
    assert run["best"]["AP"] == 0
    found = Analysis.load(folder / "evaluation.npz")
    assert found.hits.sum() == 0
    assert found.errors[:, :5].sum() == 0
    assert found.errors[:, 5].sum() == found.box_counts.sum()  # everything is missed
    assert [row["threshold"] for row in rows_of(folder / "per_category.csv")] == ["nan"] * len(found.names)
    assert {"curves.png", "balance.png", "errors.png", "val_predictions.jpg"} <= images(folder)


def test_run__stopped_before_any_evaluation_still_has_curves_and_balance(data, tmp_path):
    exp = tiny_exp(data, tmp_path, max_iter=2)

    def interrupt(trainer, epoch):
        raise KeyboardInterrupt

    exp.on_epoch_end = interrupt
    with pytest.raises(KeyboardInterrupt):
        Trainer(exp, TrainOptions(4)).train()
    folder = tmp_path / "tiny"
    (run,) = parts(folder / "report.html")[0]["runs"]
    assert run["best"] == {}
    assert {"losses", "balance"} <= {chart["key"] for chart in run["charts"]}
    assert {"curves.png", "balance.png"} <= images(folder)
