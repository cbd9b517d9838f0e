"""Thresholds, margins, images and the file of an evaluation."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from loguru import logger

from tests.evaluate.cases import random_case
from tests.report.made_run import made_analysis
from yolox_lt.data.annotations.index import AnnotationIndex
from yolox_lt.data.dataset import ImageStore
from yolox_lt.errors import UserError
from yolox_lt.evaluate import evaluate_lvis
from yolox_lt.evaluate.results import DetectionArrays, load_detections
from yolox_lt.report.analysis.analysis import Analysis, analyse
from yolox_lt.report.analysis.evaluation_file import record_evaluation
from yolox_lt.report.analysis.picks import Pick, ranks_of
from yolox_lt.report.analysis.thresholds import THRESHOLDS, best_threshold
from yolox_lt.report.page.category_images import COLORS, FOLDER, crop, image_plan

pytestmark = pytest.mark.xdist_group("analysis")


def scored(*scores):
    return np.array(scores, float)


@pytest.mark.parametrize(
    ("scores", "hit", "boxes", "threshold", "f1"),
    [
        ([0.9, 0.8, 0.7], [1, 0, 1], 2, 0.7, 4 / 5),
        ([0.9, 0.8, 0.7], [1, 0, 0], 1, 0.9, 1.0),
        ([0.9, 0.5, 0.5], [1, 0, 1], 3, 0.5, 2 * 2 / 6),  # equal scores pass together
        ([0.9, 0.8], [1, 1], 4, 0.8, 4 / 6),
        ([0.9, 0.8, 0.7, 0.6], [1, 0, 0, 1], 2, 0.9, 2 / 3),  # 2/3 at 0.9 and 4/6 at 0.6: the higher threshold
        ([0.9], [0], 1, np.nan, 0.0),
        ([], [], 2, np.nan, 0.0),
        ([0.9], [0], 0, np.nan, np.nan),
    ],
)
def test_best_threshold__by_hand(scores, hit, boxes, threshold, f1):
    found = best_threshold(scored(*scores), np.array(hit, bool), boxes)
    np.testing.assert_allclose(found, (threshold, f1))


@pytest.fixture(scope="module")
def case():
    gt, results = random_case(3, num_images=40, num_categories=6)
    missing = gt["categories"][-1]["id"]
    gt["annotations"] = [a for a in gt["annotations"] if a["category_id"] != missing]
    index, detections = AnnotationIndex.load(gt), load_detections(results)
    report = evaluate_lvis(index, detections)
    counts = {c: 7 * k for k, c in enumerate(index.category_ids.tolist())}
    return index, detections, report, analyse(index, detections, report, counts, epoch=9)


def test_analysis__thresholds_scores_and_curves_equal_plain_loops(case):
    index, detections, report, (found, _) = case
    names = np.array(report.status_names())
    for c, category in enumerate(index.category_ids.tolist()):
        mine = detections.category_ids == category
        hits, misses = (detections.scores[mine & (names == name)] for name in ("tp", "fp"))
        boxes = int(report.box_counts[c])

        def f1(t, hits=hits, misses=misses, boxes=boxes):
            return 2 * (hits >= t).sum() / ((hits >= t).sum() + (misses >= t).sum() + boxes)

        if boxes == 0:
            assert np.isnan([found.best_f1[c], found.threshold[c], *found.f1[c]]).all()
            continue
        best = max(f1(t) for t in np.append(hits, misses))
        assert found.best_f1[c] == pytest.approx(best)
        assert found.threshold[c] == max(t for t in np.append(hits, misses) if f1(t) == best)
        assert found.hits[c] == (hits >= found.threshold[c]).sum()
        np.testing.assert_allclose(found.f1[c], [f1(t) for t in THRESHOLDS], rtol=1e-6)
        assert found.positive_score[c] == pytest.approx(hits.mean())
        assert found.margin[c] == pytest.approx(hits.mean() - misses.mean())
        np.testing.assert_allclose(found.precision[c], report.precision[c, 0], rtol=1e-6)
    assert found.train_counts.tolist() == [0, 7, 14, 21, 28, 35]


def test_picks__best_hits_worst_misses_largest_missed(case):
    index, detections, report, (found, picks) = case
    names = np.array(report.status_names())
    for c, category in enumerate(index.category_ids.tolist()):
        mine = detections.category_ids == category
        of = {kind: [p for p in picks if p.label == c and p.kind == kind] for kind in COLORS}
        for kind in ("tp", "fp"):
            scores = np.sort(detections.scores[mine & (names == kind)])[::-1]
            assert [p.score for p in of[kind]] == scores[:3].tolist()
            assert [p.rank for p in of[kind]] == list(range(min(3, len(scores))))
        areas = [p.box[2] * p.box[3] for p in of["missed"]]
        assert areas == sorted(areas, reverse=True)
        assert len(areas) == min(3, found.errors[c, 5])
        assert all((p.other is not None) == (p.error == "classification") for p in of["fp"])
    assert ranks_of(np.array([4, 4, 6, 6, 6])).tolist() == [0, 1, 0, 1, 2]


def test_no_detections__everything_is_missed(case):
    index = case[0]
    nothing = DetectionArrays(np.zeros(0, int), np.zeros(0, int), np.zeros((0, 4)), np.zeros(0))
    report = evaluate_lvis(index, nothing)
    found, picks = analyse(index, nothing, report)
    assert found.errors[:, 5].tolist() == report.box_counts.tolist()
    assert found.errors[:, :5].sum() == 0
    assert {p.kind for p in picks} == {"missed"}
    assert np.isnan(found.margin).all()
    assert found.confusion.shape == (0, 3)
    assert (found.train_counts == -1).all()


def test_one_category_without_groups(tmp_path):
    gt, results = random_case(1, federated=False, num_categories=1)
    del gt["categories"][0]["frequency"]
    index, detections = AnnotationIndex.load(gt), load_detections(results)
    found, _ = analyse(index, detections, evaluate_lvis(index, detections))
    assert found.groups.tolist() == [""]
    assert len(found.confusion) == 0
    found.save(tmp_path / "a.npz")
    assert Analysis.load(tmp_path / "a.npz").groups.tolist() == [""]


def test_file__comes_back_as_it_was(tmp_path):
    found = made_analysis(np.random.default_rng(0), 5)
    found.examples = [{"file": "ä_0.jpg", "kind": "tp", "label": 3, "score": None}]
    found.save(tmp_path / "evaluation.npz")
    again = Analysis.load(tmp_path / "evaluation.npz")
    assert [p.name for p in tmp_path.iterdir()] == ["evaluation.npz"]
    for name, value in vars(found).items():
        np.testing.assert_equal(getattr(again, name), value, err_msg=name)


def test_file__unreadable_or_of_another_version_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "evaluation.npz"
    path.write_bytes(b"PK no archive")
    with pytest.raises(UserError, match=r"evaluation\.npz: not a readable evaluation"):
        Analysis.load(path)
    monkeypatch.setattr("yolox_lt.report.analysis.analysis.FORMAT", 99)
    made_analysis(np.random.default_rng(0), 2).save(path)
    monkeypatch.undo()
    with pytest.raises(UserError, match="has format 99, this version reads 1"):
        Analysis.load(path)


def test_plan__fewer_and_smaller_images_for_more_categories():
    assert image_plan(0) == image_plan(1) == image_plan(150) == (3, 160)
    assert image_plan(225) == (2, 160)
    assert image_plan(1203) == (1, 97)
    assert image_plan(100_000) == (1, 80)


def test_crop__shows_the_box_in_its_surroundings():
    image = np.zeros((400, 600, 3), np.uint8)
    image[100:200, 200:400] = 90
    canvas = crop(image, Pick("tp", 0, 0, 0, (200, 100, 200, 100)), 160)
    # Window 320 x 160, twice as wide as high: half its size on the canvas, the box at 60 to 260 of 320.
    assert canvas.shape == (80, 160, 3)
    assert canvas[40, 80].tolist() == [90, 90, 90]
    assert canvas[40, 30].tolist() == canvas[15, 80].tolist() == list(COLORS["tp"])
    assert canvas[5, 5].tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    "box", [(0, 0, 1, 1), (595, 395, 5, 5), (0, 0, 600, 400), (-20, -20, 30, 30), (590, 10, 40, 4), (0, 0, 600, 1)]
)
def test_crop__at_the_edges_of_the_image(box):
    canvas = crop(np.full((400, 600, 3), 50, np.uint8), Pick("missed", 0, 0, 0, box), 100)
    assert max(canvas.shape[:2]) == 100
    assert min(canvas.shape[:2]) >= 16
    assert (canvas == COLORS["missed"]).all(axis=2).any()


def test_record__files_images_and_one_warning_for_unreadable_images(tmp_path):
    gt, results = random_case(2, num_images=8, num_categories=3)
    (tmp_path / "images").mkdir()
    for image in gt["images"]:
        image["file_name"] = f"{image['id']}.png"
        cv2.imwrite(str(tmp_path / "images" / image["file_name"]), np.full((200, 200, 3), 120, np.uint8))
    index, detections = AnnotationIndex.load(gt), load_detections(results)
    report = evaluate_lvis(index, detections)
    store = ImageStore(index, tmp_path)
    folder = tmp_path / "run"
    (folder / FOLDER).mkdir(parents=True)
    (folder / FOLDER / "old.jpg").write_bytes(b"of an earlier evaluation")
    found = record_evaluation(folder, index, store, detections, report, {}, 3)
    names = [entry["file"] for entry in found.examples]
    assert sorted(names) == sorted(p.name for p in (folder / FOLDER).iterdir())
    assert Analysis.load(folder / "evaluation.npz").examples == found.examples
    assert [entry["label"] for entry in found.examples] == sorted(entry["label"] for entry in found.examples)
    assert {entry["kind"] for entry in found.examples} == {"tp", "fp", "missed"}
    assert all(max(cv2.imread(str(folder / FOLDER / name)).shape) == 160 for name in names)

    gone = found.examples[0]["image"]
    (tmp_path / "images" / f"{gone}.png").unlink()
    lines: list[str] = []
    handler = logger.add(lambda message: lines.append(message.record["message"]), level="WARNING")
    fewer = record_evaluation(folder, index, store, detections, report)
    logger.remove(handler)
    assert [entry["file"] for entry in fewer.examples] == [e["file"] for e in found.examples if e["image"] != gone]
    assert len(lines) == 1
    assert lines[0].startswith("no images for the report from 1 unreadable image(s): ")
    assert (fewer.epoch, found.epoch) == (None, 3)
