"""Open Images from the published files to the table, through the tools: convert, train, evaluate, score results."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.openimages_files import CHALLENGE, V4, options, write_lists, write_split
from yolox_lt.commands import main
from yolox_lt.data.annotations.index import AnnotationIndex
from yolox_lt.evaluate import evaluate_openimages
from yolox_lt.exp import get_exp

pytestmark = pytest.mark.xdist_group("openimages")

ROOT = Path(__file__).resolve().parents[2]
EXP = str(ROOT / "exps/openimages/efl_r50.py")
SMALL = ["resnet_depth", "18", "backbone_weights", "none", "fpn_channels", "32", "trainable_layers", "5"]
SMALL += ["short_sides", "(64,)", "test_size", "(64,96)", "max_iter", "2", "max_epoch", "2", "eval_interval", "2"]
SMALL += ["warmup_iters", "1", "data_num_workers", "0", "seed", "0", "group_aspect", "False", "prior_prob", "0.3"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both splits, one in each layout, converted as the experiments expect them."""
    folder = tmp_path_factory.mktemp("openimages")
    write_lists(folder)
    for name, layout, seed in (("train", V4, 0), ("val", CHALLENGE, 1)):
        write_split(folder, name, layout, seed)
        main(["convert-dataset", *options(folder, name), "--out", str(folder / f"challenge2019_{name}.index")])
    return folder


def test_convert__says_what_was_written(folder, capsys):
    main(["convert-dataset", *options(folder, "train", "--debug")])
    index = AnnotationIndex.load(folder / "train.index")
    out = capsys.readouterr().out
    with_boxes = int((index.image_counts > 0).sum())
    usable = int(index.usable.sum())
    assert f"train.index: 8 images, 42 boxes ({usable} to train on), {with_boxes} of 500 categories with boxes" in out
    assert f"  {index.problems['group-of']} group-of" in out


def test_train_and_evaluate(folder, tmp_path, capsys):
    settings = [*SMALL, "data_dir", str(folder), "output_dir", str(tmp_path)]
    main(["train", "-f", EXP, "-d", "1", "-b", "2", "--device", "cpu", *settings])
    run = tmp_path / "efl_r50"
    log = (run / "train.log").read_text()
    assert "2 iterations of 2 images; 2 epochs make" in log
    title = (
        r"Open Images AP at IoU 0\.5, up to 300 detections per image, not expanded to ancestors, in percent \(8 images"
    )
    assert re.search(title, log)
    capsys.readouterr()
    saved = tmp_path / "results.json"
    words = ["-f", EXP, "-c", str(run / "latest.pth"), "-d", "1", "-b", "2", "--device", "cpu", "--save", str(saved)]
    main(["eval", *words, *settings])
    trained = capsys.readouterr().out
    assert trained.splitlines()[1].split() == ["AP", "AP1", "AP2", "AP3", "AP4", "AP5"]
    assert trained.strip() in log  # the trainer's own evaluation gives the same table
    # The saved file, scored on its own: by the index's protocol, by the same one by name, and with the switch.
    ann = str(folder / "challenge2019_val.index")
    tables = []
    for more in ([], ["--protocol", "openimages"], ["--expand-detections"]):
        main(["eval", "--ann", ann, "--results", str(saved), "--csv", str(tmp_path / "c.csv"), *more])
        tables.append(capsys.readouterr().out)
    assert tables[0] == tables[1] == trained
    assert "300 detections per image, expanded to ancestors," in tables[2]
    assert tables[2].strip() == evaluate_openimages(ann, saved, expand_detections=True).table()
    assert len((tmp_path / "c.csv").read_text().splitlines()) == 501


def test_eval__perfect_detections_with_and_without_ancestors(folder, tmp_path, capsys):
    """Every box of the file as a detection: without its ancestors the detector misses all of those."""
    index = AnnotationIndex.load(folder / "challenge2019_val.index")
    images = [index.image_ids[i] for i in range(len(index)) for _ in range(*index.box_offsets[i : i + 2])]
    entries = zip(map(int, images), index.category_ids[index.labels].tolist(), index.boxes.tolist())
    results = tmp_path / "results.json"
    results.write_text(json.dumps([{"image_id": i, "category_id": c, "bbox": b, "score": 1} for i, c, b in entries]))
    found = []
    for more in ([], ["--expand-detections"]):
        main(["eval", "--ann", str(index.path), "--results", str(results), *more])
        found.append(float(capsys.readouterr().out.splitlines()[2].split()[0]))
    assert found[0] < found[1] == 100


def test_eval__the_switch_belongs_to_the_protocol(folder, capsys):
    with pytest.raises(SystemExit) as end:
        main(
            [
                "eval",
                "--ann",
                str(folder / "challenge2019_train.index"),
                "--results",
                "r",
                "--protocol",
                "coco",
                "--expand-detections",
            ]
        )
    assert end.value.code == 1
    assert "error: --expand-detections: only the protocol of Open Images knows ancestors" in capsys.readouterr().err


def test_convert__an_error_is_one_sentence(folder, capsys):
    for words, message in (
        (["--out", "no/such/folder/x.index"], "error: no/such/folder/x.index: its folder does not exist"),
        (["--boxes", "none.csv"], "error: none.csv: no such file; check the path"),
    ):
        with pytest.raises(SystemExit) as end:
            main(["convert-dataset", *options(folder, "train", *words)])
        assert end.value.code == 1
        assert message in capsys.readouterr().err


def test_quintiles__of_other_categories_by_training_boxes(folder, tmp_path):
    """A class list that is not the challenge's: AP1 to AP5 go by the boxes of the training index."""
    for name in ("train", "val"):
        for path in (folder / "classes.csv", folder / "hierarchy.json", *folder.glob(f"{name}_*.csv")):
            (tmp_path / path.name).write_text(path.read_text().replace("/m/", "/own/"))
        (tmp_path / name).symlink_to(folder / name)
        out = str(tmp_path / f"challenge2019_{name}.index")
        main(["convert-dataset", *options(tmp_path, name, "--out", out)])
    exp = get_exp(EXP)
    exp.merge([*SMALL, "data_dir", str(tmp_path)])
    evaluator = exp.get_evaluator(2)
    train = AnnotationIndex.load(tmp_path / "challenge2019_train.index")
    assert evaluator.train_boxes.tolist() == [int((train.labels == c).sum()) for c in range(500)]
    exp.merge(["data_dir", str(folder)])
    assert exp.get_evaluator(2).train_boxes is None  # the challenge's own categories have published counts
