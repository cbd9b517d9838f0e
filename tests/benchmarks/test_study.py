"""The study: its arithmetic, its grid, and what it measures in a run. Tables and page are in test_study_page.py."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from studies.__main__ import waiting_runs
from studies.cells import by_seed, number, signed
from studies.claims import (
    CLAIMS,
    CONTROLS,
    DETECTOR_CLAIMS,
    KEPT_CLAIMS,
    REPEAT_PAIRS,
    TAIL_PAIRS,
    TWO_STAGE,
    WIDE_PAIRS,
)
from studies.compare import Estimate, estimate, paired, rank_correlation, verdict
from studies.grid import DETECTORS, EXP_FILE, RESNET_FILE, START_FILES, STARTS, TWO_STAGE_FILE, Case, Set
from studies.measure import CAPS, experiment, make_start, run
from studies.priors import category_priors
from studies.records import RUNS, append_rows, key_of, read_rows
from studies.regime import LVIS_PRIORS, POSITIVES_A_BOX, lvis_rest, resting_score
from studies.sets import SETS
from studies.tail import PRIORS_FILE
from studies.thresholds import cell, scores_of
from studies.worker import run_name, train_job
from tests.processes import run_script
from yolox_lt.assign.atss import ATSSAssigner
from yolox_lt.checkpoint import load_checkpoint
from yolox_lt.exp import ATSSExp, FCOSExp, PAAExp, RetinaNetExp, get_exp
from yolox_lt.losses import EqualizedFocalLoss
from yolox_lt.models.priors import AnchorGrid
from yolox_lt.train.engine import Trainer
from yolox_lt.train.options import TrainOptions
from yolox_lt.train.run_lock import run_lock

pytestmark = pytest.mark.xdist_group("study")

CPU = torch.device("cpu")
TINY = {
    "num_classes": 3,
    "glyph_image_size": 64,
    "glyph_train_images": 150,
    "glyph_val_images": 6,
    "glyph_object_size": (16, 30),
    "input_size": (64, 64),
    "test_size": (64, 64),
    "batch_size": 4,
    "max_iter": 2,
    "max_epoch": 1,
}


# ------------------------------------------------------------------------------------------------- arithmetic


def test_estimate__interval_of_three_by_hand():
    found = estimate(np.array([1.0, 2.0, 6.0]))  # mean 3, deviation sqrt(7)
    assert found.mean == 3
    assert found.half == pytest.approx(4.303 * math.sqrt(7) / math.sqrt(3))
    assert (found.low, found.high) == pytest.approx((3 - found.half, 3 + found.half))
    assert math.isnan(estimate(np.array([4.0])).half)
    assert estimate(np.zeros(0)).n == 0


def test_paired__takes_the_seeds_that_both_have():
    found = paired({"0": 5.0, "1": 7.0, "2": 100.0}, {"1": 4.0, "0": 1.0, "3": 0.0})
    assert (found.mean, found.n) == (3.5, 2)
    assert found.half == pytest.approx(12.706 * math.sqrt(0.5) / math.sqrt(2))


@pytest.mark.parametrize(
    ("mean", "half", "n", "kind", "want"),
    [
        (2.0, 1.0, 3, "more", "reproduced"),
        (2.0, 2.5, 3, "more", "inconclusive"),
        (-2.0, 1.0, 3, "more", "not reproduced"),
        (2.0, 0.1, 2, "more", "inconclusive"),  # two seeds show nothing
        (0.0, 0.0, 0, "more", "not run"),
        (0.3, 0.5, 3, "same", "reproduced"),
        (0.3, 0.9, 3, "same", "inconclusive"),
        (-2.5, 1.0, 3, "same", "not reproduced"),
    ],
)
def test_verdict__by_the_interval(mean, half, n, kind, want):
    assert verdict(Estimate(mean, half, n), kind) == want


def test_rank_correlation__by_hand_with_ties():
    a, b = np.array([1.0, 2.0, 2.0, 9.0]), np.array([3.0, 5.0, 4.0, 4.0])
    # Ranks 1, 2.5, 2.5, 4 and 1, 4, 2.5, 2.5, less their mean 2.5: products 2.25, 0, 0, 0; squares 4.5 on each side.
    assert rank_correlation(a, b) == pytest.approx(2.25 / 4.5)
    assert rank_correlation(a, a**3) == pytest.approx(1)
    assert rank_correlation(a, -a) == pytest.approx(-1)
    assert math.isnan(rank_correlation(np.ones(4), b))


def test_numbers__as_the_tables_print_them():
    assert number(Estimate(31.24, 0.86, 3)) == "31.2 ± 0.9"
    assert number(Estimate(31.24, math.nan, 1)) == "31.2"
    assert number(estimate(np.zeros(0))) == "-"
    assert signed(Estimate(-1.0, 2.0, 3)) == "-1.0 [-3.0, +1.0]"


@pytest.mark.parametrize("share", [1e-8, 1e-5, 1e-3])
def test_resting_score__is_where_a_bias_alone_gets_as_much_pull_as_push(share):
    p = float(resting_score(np.array(share)))
    loss = EqualizedFocalLoss(1).double()
    logits = torch.full((2, 1), math.log(p / (1 - p)), dtype=torch.float64)
    loss(logits, torch.tensor([0, -1]))
    pull, push = share * loss.balance.pos_grad.item(), (1 - share) * loss.balance.neg_grad.item()
    assert pull == pytest.approx(push, rel=-4 * p * math.log(p))  # the limit of small p


def test_positives_of_a_box__are_those_of_the_assigner_on_real_boxes():
    content = json.loads(Path("tests/golden/lvis_val_100.json").read_text(encoding="utf-8"))
    priors = AnchorGrid([8, 16, 32], [3, 4])([(80, 80), (40, 40), (20, 20)], CPU)
    assert len(priors.boxes) == LVIS_PRIORS
    boxes = positives = 0
    for image in content["images"]:
        height, width = image["height"], image["width"]
        scale = 640 / max(height, width)
        corners = [
            [x * scale, y * scale, (x + w) * scale, (y + h) * scale]
            for x, y, w, h in (a["bbox"] for a in content["annotations"] if a["image_id"] == image["id"])
        ]
        gt_boxes = torch.tensor(corners).reshape(-1, 4)
        size = int(height * scale), int(width * scale)
        found = ATSSAssigner(18)(priors, gt_boxes, torch.zeros(len(corners), dtype=torch.int64), size)
        boxes += len(corners)
        positives += int((found.gt_index >= 0).sum())
    assert positives / boxes == pytest.approx(POSITIVES_A_BOX, abs=0.05)


def test_rule_for_lvis__of_the_median_rare_category_by_hand():
    rows = {(row["sampling"], row["group"]): row for row in lvis_rest()}
    # The median rare category has seven boxes: 7 x 7.5 positives among 100,170 x 16,800 priors.
    share = rows["uniform", "r"]["share"]
    assert share == pytest.approx(7 * 7.5 / (100_170 * 16_800))
    assert rows["uniform", "r"]["rest"] == pytest.approx((0.25 * share / (0.75 * 3)) ** (1 / 3))
    # More drawn is more seen; frequent categories have a repeat factor of one.
    assert rows["repeat factor", "r"]["share"] > share
    assert rows["repeat factor", "f"]["share"] == pytest.approx(rows["uniform", "f"]["share"], rel=0.2)


def test_thresholds__precision_recall_and_f1_by_hand():
    assert scores_of(3, 4, 6) == (0.75, 0.5, 0.6)
    assert cell(scores_of(3, 4, 6)) == "75 50 60"
    assert cell(scores_of(0, 0, 6)) == "- 0 0"
    assert cell(scores_of(0, 0, 0)) == "- - -"


# ------------------------------------------------------------------------------------------------- the grid


def test_grid__every_setting_exists_and_every_case_has_one_name():
    known = {file: set(get_exp(file).attributes()) for file in (EXP_FILE, TWO_STAGE_FILE, RESNET_FILE, PRIORS_FILE)}
    for name, found in SETS.items():
        names = [case.name for case in found.cases]
        assert len(set(names)) == len(names), name
        for case in found.cases:
            unknown = {*found.settings, *case.settings} - known[case.exp_file]
            assert unknown <= {case.needs}, (name, case.name)
            assert case.start is None or case.start in STARTS
            assert case.after is None or (case.start is None and case.after in names)
    for key, settings in STARTS.items():
        assert set(settings) <= known[START_FILES.get(key, EXP_FILE)]


def test_experiments__have_the_same_data():
    """So that their rows may be shown beside each other, and the folder is written once."""
    names = [name for name in get_exp(EXP_FILE).attributes() if name.startswith("glyph_")]
    names += ["num_classes", "data_folder", "repeat_thresh"]
    first, *others = ([getattr(get_exp(file), n) for n in names] for file in (EXP_FILE, TWO_STAGE_FILE, RESNET_FILE))
    assert all(other == first for other in others)


def test_main__two_in_one_folder_are_refused(tmp_path):
    """Each would replace the other's rows."""
    words = ("--set", "cpu", "--only", "QFL", "--seeds", "1", "--folder", tmp_path)
    with run_lock(tmp_path):
        done = run_script("studies", *words)
    assert done.returncode == 1
    assert f"{tmp_path}: another run is writing here" in done.stderr
    assert "another --folder" in done.stderr
    assert not (tmp_path / RUNS).exists()


@pytest.mark.parametrize(
    ("name", "kind"), [("RetinaNet", RetinaNetExp), ("FCOS", FCOSExp), ("ATSS", ATSSExp), ("PAA", PAAExp)]
)
def test_detectors__are_those_of_the_paper_s_experiments(name, kind):
    """All that tells them apart but the size of the anchors and the schedule."""
    parts = (
        "anchor_ratios",
        "quality",
        "assigner",
        "box_code",
        "box_loss",
        "box_weight",
        "quality_weight",
        "clip_norm",
    )
    ours = get_exp(RESNET_FILE)
    ours.update(DETECTORS[name])
    assert {part: getattr(ours, part) for part in parts} == {part: getattr(kind(), part) for part in parts}
    assert len(ours.anchor_scales) == len(kind().anchor_scales)


def test_claims__compare_cases_that_exist():
    cases = {(name, case.name) for name, found in SETS.items() for case in found.cases}
    for claim in (*CLAIMS, *CONTROLS, *TWO_STAGE, *DETECTOR_CLAIMS, *KEPT_CLAIMS):
        assert {claim.ours, claim.theirs} <= cases, claim.text
        assert claim.ours != claim.theirs
    for pair in (*TAIL_PAIRS, *WIDE_PAIRS, *REPEAT_PAIRS):
        assert set(pair) <= cases, pair
        assert pair[0] != pair[1]


def test_waiting_runs__leave_out_what_has_a_row_and_what_this_version_cannot_run():
    cases = Case("a", {}, 3), Case("b", {}, 2), Case("c", {}, 1, needs="no_such_setting")
    sets = {"x": Set(cases)}
    done = {("x", "a", "1"), ("x", "b", "0"), ("y", "b", "1")}
    found = [(case.name, seed, state) for _, case, seed, _, state in waiting_runs(sets, done, None, 2)]
    assert found == [
        ("a", 0, "not run"),
        ("a", 1, "done"),
        ("b", 0, "done"),
        ("b", 1, "not run"),
        ("c", 0, "not run: this version has no setting no_such_setting"),
    ]
    assert [case.name for _, case, *_ in waiting_runs(sets, done, ["b"], None)] == ["b", "b"]


# ------------------------------------------------------------------------------------------------- a run


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("study")


@pytest.fixture(scope="module")
def tiny(folder):
    """Common settings of small runs whose data lie in the test's folder."""
    return {**TINY, "data_dir": str(folder / "glyphs")}


@pytest.fixture(scope="module")
def efl(tiny, folder):
    return run(Case("EFL", {"cls_loss": "efl"}, 1, None), 0, tiny, folder, CPU, "efl")


def test_run__row_has_every_setting_and_every_measurement(efl, tiny):
    trainer, row, _ = efl
    for cap in (*CAPS, "fixed"):
        assert all(0 <= row[f"{name}_{cap}"] <= 100 for name in ("AP", "AP50", "APr", "APc", "APf"))
    report = trainer.run.evaluator.score(trainer.run.evaluator.detections)
    assert row["AP_300"] == pytest.approx(100 * report.metrics["AP"], abs=1e-3)
    assert {**trainer.exp.attributes()}.keys() - row.keys() == {"output_dir", "data_dir"}
    assert (row["cls_loss"], row["num_classes"], row["iterations"]) == ("efl", 3, 2)
    assert all(row[f"{name}_r"] is not None for name in ("g", "gamma", "weight", "pos_share", "neg_share"))
    assert row["loss_cls"] > 0
    assert row["processor_seconds"] > 0


def test_watch__sums_are_those_of_the_loss_and_groups_share_all_of_them(efl):
    trainer, row, course = efl
    balance = trainer.run.criterion.cls_loss.balance
    assert torch.allclose(trainer.watch.pos.float(), balance.pos_grad, rtol=1e-5)
    assert torch.allclose(trainer.watch.neg.float(), balance.neg_grad, rtol=1e-5)
    of = trainer.run.evaluator.groups == "f"
    assert row["g_f"] == pytest.approx(float(balance.ratio[torch.from_numpy(of)].mean()), abs=1e-4)
    shares = [row[f"{kind}_share_{group}"] for kind in ("pos", "neg") for group in "rcf"]
    assert sum(shares) == pytest.approx(1, abs=1e-4)
    assert [(r["iteration"], r["group"]) for r in course] == [(i, g) for i in (1, 2) for g in "rcf"]
    exponent, weight = trainer.run.criterion.cls_loss.category_factors()
    assert row["gamma_f"] == pytest.approx(float(exponent[torch.from_numpy(of)].mean()), abs=1e-3)
    assert row["weight_f"] == pytest.approx(float(weight[torch.from_numpy(of)].mean()), abs=1e-3)
    ratio, counts = balance.ratio.numpy(), trainer.run.data.dataset.store.index.image_counts
    assert row["rank_100"] == pytest.approx(rank_correlation(ratio, counts), abs=1e-4, nan_ok=True)
    assert set(trainer.watch.marks) == {10, 50, 100}


def test_watch__g_is_that_of_the_loss_whatever_its_form(tiny, folder):
    settings = {"cls_loss": "eqfl", "loss_ratio": "samples"}
    trainer, row, _ = run(Case("samples", settings, 1, None), 0, tiny, folder, CPU, "samples")
    loss, of = trainer.run.criterion.cls_loss, torch.from_numpy(trainer.run.evaluator.groups == "r")
    assert row["g_r"] == pytest.approx(float(loss.ratio[of].mean()), abs=1e-4)
    assert abs(row["g_r"] - float(loss.balance.ratio[of].mean())) > 0.01


@pytest.mark.usefixtures("without_report")
def test_watch__changes_nothing_of_the_training(efl, tiny, folder):
    """A plain run of the project's own trainer ends with the same weights."""
    exp = experiment({**tiny, "cls_loss": "efl", "seed": 0}, folder, "plain")
    trainer = Trainer(exp, TrainOptions(exp.batch_size))
    trainer.train()
    for (name, ours), theirs in zip(efl[0].run.model.state_dict().items(), trainer.run.model.state_dict().values()):
        assert torch.equal(ours, theirs), name


def test_start__has_no_classifier_and_a_run_takes_the_rest(tiny, folder, monkeypatch):
    monkeypatch.setitem(STARTS, "tiny", {**tiny, "cls_loss": "sigmoid", "seed": 7})
    row = make_start("tiny", folder, CPU)
    assert row["cls_loss"] == "sigmoid"
    start = folder / "start_tiny.pth"
    kept = load_checkpoint(start)["ema"]["model"]
    trained = load_checkpoint(folder / "runs" / "start_tiny" / "latest.pth")["ema"]["model"]
    assert {n for n in trained if n not in kept} == {n for n in trained if ".cls_preds." in n}
    still = {"cls_loss": "efl", "basic_lr_per_img": 0.0, "prior_prob": 0.02}
    trainer, _, _ = run(Case("x", still, 1), 0, tiny, folder, CPU, "from_start", start)
    state = trainer.run.model.state_dict()
    assert all(torch.equal(state[n], v) for n, v in kept.items() if n.endswith(("weight", "bias")))
    biases = torch.cat([v for n, v in state.items() if ".cls_preds." in n and n.endswith("bias")])
    assert torch.allclose(biases, torch.tensor(math.log(0.02 / 0.98)))


def test_two_stage__a_second_training_starts_from_the_first_of_its_seed(tiny, folder):
    """Nothing but the classifier differs afterwards, which is that of the other loss."""
    small = {
        "max_iter": 2,
        "warmup_iters": 1,
        "fpn_channels": 16,
        "head_width": 16,
        "short_sides": (64,),
        "long_side": 64,
    }
    settings = {k: v for k, v in tiny.items() if k.startswith(("glyph", "num_classes", "data_dir"))} | small
    first, *second = (case for case in SETS["two_stage"].cases if case.name in ("Faster R-CNN, softmax", "BAGS"))
    row, course = train_job("two_stage", replace(first, start=None), 1, settings, folder, "cpu")
    assert (row["case"], row["iterations"], row["cls_loss"], course) == ("Faster R-CNN, softmax", 2, "softmax", [])
    assert "g_r" not in row
    row, _ = train_job("two_stage", second[0], 1, settings, folder, "cpu")
    assert (row["start"], row["cls_loss"], row["classifier_only"]) == ("Faster R-CNN, softmax", "bags", True)
    before, after = (
        load_checkpoint(folder / "runs" / run_name("two_stage", name, 1) / "latest.pth")["model"]
        for name in ("Faster R-CNN, softmax", "BAGS")
    )
    differ = {name for name in after if name not in before or not torch.equal(before[name], after[name])}
    assert differ == {"head.cls_pred.weight", "head.cls_pred.bias"}


# ------------------------------------------------------------------------------------------------- csv and page


def test_records__rows_are_added_under_new_columns_and_known_by_set_case_and_seed(tmp_path):
    path = tmp_path / "runs.csv"
    assert read_rows(path) == []
    append_rows(path, [{"set": "a", "case": "EFL, s 4", "seed": 0, "AP": 1.5}])
    append_rows(path, [{"set": "a", "case": "x", "seed": 1, "AP": 2, "new": (1, 2)}])
    rows = read_rows(path)
    assert [key_of(r) for r in rows] == [("a", "EFL, s 4", "0"), ("a", "x", "1")]
    assert [r["new"] for r in rows] == ["", "(1, 2)"]
    assert by_seed(rows, "a", "x", "AP") == {"1": 2.0}
    assert by_seed(rows, "a", "x", "missing") == {}


def test_category_priors__by_hand_and_on_every_level(tmp_path):
    share = np.array([0.0, 0.001, 0.018])
    assert category_priors(share, "share").tolist() == [1e-4, 0.001, 0.018]
    # (0.25 share / (0.75 * 3)) ^ (1 / 3)
    np.testing.assert_allclose(category_priors(share, "rest"), [1e-4, 0.0480750, 0.1259921], rtol=1e-5)
    with pytest.raises(ValueError, match=r"'prior'.*share or rest"):
        category_priors(share, "prior")
    exp = get_exp(PRIORS_FILE)
    exp.merge([str(word) for name, value in {**TINY, "data_dir": tmp_path}.items() for word in (name, value)])
    exp.category_prior = "share"
    index = exp.get_store("train").index
    labels = [index.labels_of(i) for i in range(150) if len(index.labels_of(i))]  # no image without boxes is drawn
    boxes = np.bincount(np.concatenate(labels), minlength=3)
    height, width = exp.input_size
    cells = sum((height // stride) * (width // stride) for stride in (8, 16, 32))
    expected = boxes * 7.5 / (len(labels) * 2 * cells)  # uniform draws, two anchors
    for conv in exp.get_model().head.cls_preds:
        np.testing.assert_allclose(conv.bias.detach().view(2, 3).sigmoid().numpy(), [expected] * 2, rtol=1e-5)
