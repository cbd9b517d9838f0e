"""The command lines as a user types them: status, one sentence, files."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from tests.processes import Done, run_script
from tests.tiny import TINY, tiny_data
from yolox_lt.commands import main
from yolox_lt.distributed.processes import free_port
from yolox_lt.evaluate import evaluate_lvis

pytestmark = pytest.mark.xdist_group("tools")

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = [
    *("num_classes", TINY["num_categories"], "glyph_image_size", 64, "glyph_train_images", TINY["train_images"]),
    *("glyph_val_images", TINY["val_images"], "width", 0.125, "input_size", "(64,64)", "test_size", "(64,64)"),
    *("max_iter", 3, "max_epoch", 1, "warmup_epochs", 0, "no_aug_epochs", 0, "data_num_workers", 0),
]


def tool(name: str, *args: object, cwd: Path = ROOT, status: int = 0) -> Done:
    done = run_script(ROOT / "tools" / f"{name}.py", *args, cwd=cwd)
    assert done.returncode == status, done.stderr[-3000:]
    return done


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A trained tiny run on two ranks: (folder of the run, settings that reproduce its data)."""
    data, output = tiny_data(tmp_path_factory), tmp_path_factory.mktemp("runs")
    settings = [*SETTINGS, "data_dir", data, "output_dir", output]
    tool("train", "-f", "exps/glyphs/eqfl.py", "-d", 2, "-b", 4, "--device", "cpu", *settings)
    return output / "eqfl", settings, data


def test_train_eval__two_ranks_score_what_one_rank_scores(run, tmp_path):
    folder, settings, data = run
    assert {"latest.pth", "best.pth", "metrics.csv", "train.log"} <= {p.name for p in folder.iterdir()}
    tables = []
    for devices in (1, 2):
        saved = tmp_path / f"results{devices}.json"
        args = ["-f", "exps/glyphs/eqfl.py", "-c", folder / "best.pth", "-d", devices, "--device", "cpu"]
        done = tool("eval", *args, "--save", saved, "--csv", tmp_path / "per_category.csv", *settings)
        tables.append(done.stdout)
    assert tables[0] == tables[1]
    assert "AP50" in tables[0]
    # The saved file, scored on its own, gives the same table.
    ann = data / "annotations/glyphs_val.json"
    again = tool("eval", "--ann", ann, "--results", tmp_path / "results1.json").stdout
    assert again == tables[0]
    assert evaluate_lvis(ann, tmp_path / "results2.json").table().strip() == again.strip()
    assert len((tmp_path / "per_category.csv").read_text().splitlines()) == 1 + TINY["num_categories"]


def test_eval__fixed_and_pool_count_more_than_the_best_of_an_image(run, tmp_path, capsys):
    folder, settings, data = run
    ann, few, all_of_them = data / "annotations/glyphs_val.json", tmp_path / "few.json", tmp_path / "all.json"
    words = ["eval", "-f", "exps/glyphs/eqfl.py", "-c", folder / "best.pth", "--device", "cpu"]
    settings = [*settings, "max_detections", 5]
    main([str(word) for word in (*words, "--save", few, *settings)])
    plain = capsys.readouterr().out
    main([str(word) for word in (*words, "--fixed", "--pool", "--save", all_of_them, *settings)])
    expected = [evaluate_lvis(ann, all_of_them, protocol=name).table() for name in ("fixed", "pool")]
    assert capsys.readouterr().out == plain + "".join(f"{table}\n" for table in expected)
    assert "LVIS AP-fixed, 10000 detections per category" in expected[0]
    assert len(json.loads(few.read_text())) == 5 * TINY["val_images"] < len(json.loads(all_of_them.read_text()))
    assert evaluate_lvis(ann, few, protocol="fixed").table() != expected[0]
    main(["eval", "--ann", str(ann), "--results", str(all_of_them), "--pool", "--fixed"])
    assert capsys.readouterr().out.endswith("".join(f"{table}\n" for table in expected))


def test_eval__csv_and_page_hold_training_and_thresholds(run, tmp_path):
    """The columns of the training are those that the training itself wrote: same weights, same settings."""
    folder, settings, data = run
    words = ["eval", "-f", "exps/glyphs/eqfl.py", "-c", folder / "best.pth", "--device", "cpu"]
    main([str(word) for word in (*words, "--csv", tmp_path / "c.csv", "--report", tmp_path / "page", *settings)])
    own = list(csv.DictReader((folder / "per_category.csv").open()))
    rows = list(csv.DictReader((tmp_path / "c.csv").open()))
    assert {"train_images", "draws", "g", "gamma", "weight", "threshold", "AP", "AR"} <= set(rows[0])
    assert rows == own
    assert (tmp_path / "page/per_category.csv").read_text() == (tmp_path / "c.csv").read_text()
    assert (tmp_path / "page/report.html").stat().st_size > 40_000
    train = json.loads((data / "annotations/glyphs_train.json").read_text())["annotations"]
    for row in rows:
        images = {a["image_id"] for a in train if a["category_id"] == int(row["id"])}
        assert int(row["train_images"]) == len(images)


def test_eval__without_annotations_writes_results_and_says_so(run, tmp_path):
    """As LVIS test-dev: images and categories alone."""
    folder, settings, data = run
    copy = tmp_path / "run"
    copy.mkdir()
    shutil.copy(folder / "best.pth", copy)
    content = json.loads((data / "annotations/glyphs_val.json").read_text())
    del content["annotations"]
    for image in content["images"]:
        for key in ("neg_category_ids", "not_exhaustive_category_ids"):
            image.pop(key, None)
    (tmp_path / "test_dev.json").write_text(json.dumps(content))
    args = ["-f", "exps/glyphs/eqfl.py", "-c", copy / "best.pth", "--split", "test", "--device", "cpu"]
    done = tool("eval", *args, *settings, "test_ann", tmp_path / "test_dev.json", "test_images", "None")
    assert "test_dev.json has no annotations, so there is nothing to score; the detections are in" in done.stdout
    entries = json.loads((copy / "test_dev_results.json").read_text())
    assert {entry["image_id"] for entry in entries} <= {image["id"] for image in content["images"]}
    assert len(entries) > 0
    assert set(entries[0]) == {"image_id", "category_id", "bbox", "score"}


def test_demo__images_video_and_json(run, tmp_path):
    folder, _, data = run
    images = sorted((data / "val2017").glob("*.jpg"))[:3]
    out, record = tmp_path / "out", tmp_path / "found.json"
    tool("demo", "image", "--path", *images, "-c", folder / "best.pth", "--conf", 0, "--save", out, "--json", record)
    assert sorted(p.name for p in out.iterdir()) == [p.name for p in images]
    picture = cv2.imread(str(out / images[0].name))
    assert picture.shape == cv2.imread(str(images[0])).shape
    found = json.loads(record.read_text())
    assert [f["source"] for f in found] == [str(p) for p in images]
    for entry in found[0]["detections"]:
        x1, y1, x2, y2 = entry["box"]
        assert 0 <= x1 <= x2 <= 64
        assert 0 <= y1 <= y2 <= 64
    video = tmp_path / "clip.avi"
    writer = cv2.VideoWriter(str(video), cv2.VideoWriter.fourcc(*"MJPG"), 10, (64, 64))
    for path in images:
        writer.write(cv2.imread(str(path)))
    writer.release()
    tool("demo", "video", "--path", video, "-c", folder / "best.pth", "--save", out, "--json", record)
    capture = cv2.VideoCapture(str(out / "clip.mp4"))
    assert int(capture.get(cv2.CAP_PROP_FRAME_COUNT)) == 3
    assert len(json.loads(record.read_text())) == 3


def test_inspect__table_and_images(run, tmp_path):
    _, settings, _ = run
    done = tool("inspect_data", "-f", "exps/glyphs/eqfl.py", *settings, "output_dir", tmp_path)
    assert "repeat_factor" in done.stdout
    assert "90 iterations of 4" not in done.stdout
    assert (tmp_path / "eqfl/pictures/labels.png").stat().st_size > 5000
    assert len(list((tmp_path / "eqfl/pictures").glob("labels_*.jpg"))) == 8


@pytest.mark.parametrize(
    ("name", "args", "message"),
    [
        ("train", ["-f", "exps/lvis/yolox_m_eqfl.py", "-d", "8", "-b", "64"], ["lvis_v1_train.json", "data_dir"]),
        ("train", ["-f", "exps/glyphs/eqfl.py", "max_epochs", "3"], ["max_epochs", "did you mean 'max_epoch'"]),
        ("train", ["-n", "yolox-s", "-d", "500", "--device", "cpu"], ["instances_train2017.json"]),
        ("eval", ["-f", "exps/glyphs/eqfl.py", "-c", "none.pth"], ["none.pth", "not found"]),
        ("eval", ["--ann", "a.json"], ["--results", "belong together"]),
        (
            "eval",
            ["--ann", "a.json", "--results", "r.json", "--csv", "no/x.csv"],
            ["no/x.csv", "does not exist"],
        ),
        ("eval", ["--ann", "a.json", "--results", "r.json"], ["a.json", "no such annotation file"]),
        ("demo", ["image", "--path", "none.jpg", "-c", "none.pth"], ["none.jpg", "not found"]),
        ("inspect_data", ["-f", "none.py"], ["none.py", "not found"]),
    ],
)
def test_error__is_one_sentence_and_status_1(name, args, message, tmp_path):
    shutil.copytree(ROOT / "exps", tmp_path / "exps")  # a folder without data
    done = tool(name, *args, cwd=tmp_path, status=1)
    lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    assert "Traceback" not in done.stderr
    for part in message:
        assert part in lines[0]


def test_too_many_devices__says_what_to_use(run):
    _, settings, _ = run
    done = tool("train", "-f", "exps/glyphs/eqfl.py", "-d", 999, "-b", 999, "--device", "cpu", *settings, status=1)
    assert "-d 999: this machine has no GPU and" in done.stderr
    assert "use -d 1" in done.stderr


def test_corrupt_image__stops_by_name_or_is_skipped_and_counted(run, tmp_path):
    _, settings, data = run
    broken = tmp_path / "broken"
    shutil.copytree(data, broken)
    victims = sorted((broken / "train2017").glob("*.jpg"))[::3]
    for victim in victims:
        victim.write_bytes(b"not a jpeg")
    settings = [*settings, "data_dir", broken, "output_dir", tmp_path, "seed", 0, "max_iter", 5]
    settings += ["data_num_workers", 1]
    done = tool("train", "-f", "exps/glyphs/eqfl.py", "-b", 4, *settings, status=1)
    assert any(f"error: {victim}: not a readable image (10 bytes)" in done.stderr for victim in victims)
    tool("train", "-f", "exps/glyphs/eqfl.py", "-b", 4, *settings, "skip_bad_images", True)
    header, row = (tmp_path / "eqfl/metrics.csv").read_text().splitlines()
    assert int(row.split(",")[header.split(",").index("skipped_images")]) >= 1
    log = (tmp_path / "eqfl/train.log").read_text()
    assert any(str(victim) in log for victim in victims)


def test_torchrun__starts_the_same_tool(run, tmp_path):
    _, settings, _ = run
    words = [
        *("--nproc-per-node", 2, "--master-port", free_port()),
        *("tools/train.py", "-f", "exps/glyphs/eqfl.py", "-b", 4, "--device", "cpu"),
        *(*settings, "output_dir", tmp_path, "max_iter", 2),
    ]
    done = run_script("torch.distributed.run", *words)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "2 rank(s)" in (tmp_path / "eqfl/train.log").read_text()
    assert np.isfinite(float((tmp_path / "eqfl/metrics.csv").read_text().splitlines()[1].split(",")[1]))


def test_demo__does_not_overwrite_its_input(run, tmp_path):
    folder, _, data = run
    photo = tmp_path / "photo.jpg"
    shutil.copy(sorted((data / "val2017").glob("*.jpg"))[0], photo)
    before = photo.read_bytes()
    done = tool("demo", "image", "--path", photo, "-c", folder / "best.pth", "--save", tmp_path, status=1)
    assert "would overwrite an input image" in done.stderr
    assert photo.read_bytes() == before


def test_eval__plain_coco_file_equals_pycocotools(run, tmp_path):
    _, _, data = run
    content = json.loads((data / "annotations/glyphs_val.json").read_text())
    for image in content["images"]:
        del image["neg_category_ids"], image["not_exhaustive_category_ids"]
    for annotation in content["annotations"]:
        annotation["iscrowd"] = 0
    ann, results = tmp_path / "ann.json", tmp_path / "results.json"
    ann.write_text(json.dumps(content))
    rng = np.random.default_rng(0)
    found = []
    for a in content["annotations"]:
        for _ in range(30):  # many of one category in an image: the limit of 100 matters
            jitter = (np.array(a["bbox"]) * rng.normal(1, 0.1, 4)).round(2).tolist()
            found.append(
                {**{k: a[k] for k in ("image_id", "category_id")}, "bbox": jitter, "score": float(rng.random())}
            )
    results.write_text(json.dumps(found))
    out = tool("eval", "--ann", ann, "--results", results, "--csv", tmp_path / "c.csv").stdout
    reference = COCO(str(ann))
    scored = COCOeval(reference, reference.loadRes(found), "bbox")
    scored.evaluate()
    scored.accumulate()
    scored.summarize()
    values = out.splitlines()[2].split()
    assert [float(v) for v in values[:3]] == pytest.approx([100 * s for s in scored.stats[:3]], abs=0.051)
    rows = list(csv.DictReader((tmp_path / "c.csv").open()))
    assert np.mean([float(r["AP"]) for r in rows]) == pytest.approx(scored.stats[0], abs=1e-6)
