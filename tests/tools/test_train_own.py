"""train --data: one command for a user's own data."""

from __future__ import annotations

import json
import re
import statistics

import pytest
import yaml

import yolox_lt
from studies.records import DEFAULTS, PUBLISHED, RUNS, read_rows
from tests.data.own_data import bccd, small, write_image, write_voc, write_yolo
from yolox_lt.commands import train
from yolox_lt.commands.train_own import budget_iterations, own_exp_file
from yolox_lt.errors import UserError
from yolox_lt.exp import OwnDataExp, get_exp
from yolox_lt.exp.choices import mosaic

PLACES = {"exp_name", "output_dir", "data_dir", "train_ann", "val_ann", "train_images", "val_images"}


@pytest.fixture(scope="module")
def content():
    return small(bccd(), 10)


def write_coco(folder, content, *splits):
    for image in content["images"]:
        write_image(folder / "images" / image["file_name"], image["width"], image["height"])
    for split in splits:
        (folder / f"{split}.json").write_text(json.dumps(content))
    return folder


def write_labelme(folder, content):
    names = {c["id"]: c["name"] for c in content["categories"]}
    for image in content["images"]:
        write_image(folder / image["file_name"], image["width"], image["height"])
        boxes = [a for a in content["annotations"] if a["image_id"] == image["id"]]
        shapes = [
            {"label": names[a["category_id"]], "points": [[x, y], [x + w, y + h]], "shape_type": "rectangle"}
            for a in boxes
            for x, y, w, h in [a["bbox"]]
        ]
        told = {"version": "5.0.1", "shapes": shapes, "imagePath": image["file_name"], "imageData": None}
        told |= {"imageHeight": image["height"], "imageWidth": image["width"]}
        (folder / image["file_name"]).with_suffix(".json").write_text(json.dumps(told))


def choose(path, output, *words):
    args = train.make_parser().parse_args(["--data", str(path), *words, "output_dir", str(output)])
    return own_exp_file(args)


def settings(path):
    return {k: v for k, v in get_exp(path).attributes().items() if k not in PLACES}


def test_settings__are_the_same_for_the_same_data_in_every_format(content, tmp_path):
    coco = write_coco(tmp_path / "coco", content, "train", "val")
    for split in ("train", "val"):
        write_voc(tmp_path / "voc", content, split)
        write_yolo(tmp_path / "yolo", content, split)
        write_labelme(tmp_path / "labelme" / split, content)
    places = [coco, coco / "train.json", *(tmp_path / name for name in ("voc", "yolo", "labelme"))]
    found = [
        settings(choose(path, tmp_path / "runs", "-expn", f"run{i}", "--budget", "100it"))
        for i, path in enumerate(places)
    ]
    assert all(other == found[0] for other in found)
    assert (found[0]["num_classes"], found[0]["epoch_iters"], found[0]["max_epoch"]) == (3, 10, 10)


def test_single_set__a_part_is_held_out_alike_in_every_format(content, tmp_path):
    coco = write_coco(tmp_path / "coco", content, "train")
    write_yolo(tmp_path / "yolo", content, "train")
    exps = [get_exp(choose(p, tmp_path / "runs", "-expn", p.name)) for p in (coco, tmp_path / "yolo")]
    parts = [
        {
            s: [e.get_index(s).file_name(i).rpartition("/")[2] for i in range(len(e.get_index(s)))]
            for s in ("train", "val")
        }
        for e in exps
    ]
    assert (len(parts[0]["train"]), len(parts[0]["val"])) == (8, 2)
    assert {s: sorted(n) for s, n in parts[0].items()} == {s: sorted(n) for s, n in parts[1].items()}
    assert not set(parts[0]["train"]) & set(parts[0]["val"])


def test_run__trains_scores_and_is_loaded_and_its_file_gives_it_again(content, tmp_path, capsys):
    folder = write_coco(tmp_path / "cells", content, "train", "val")
    words = ["--data", str(folder), "--budget", "2it", "-b", "2", "-d", "1", "--device", "cpu"]
    words += ["output_dir", str(tmp_path), "data_num_workers", "0"]
    words += ["input_size", "(64,64)", "test_size", "(64,64)", "exp_name", "run"]
    args = train.make_parser().parse_args(words)
    train.main(args)
    detector = yolox_lt.load(tmp_path / "run/best.pth")
    assert detector.names == tuple(c["name"] for c in sorted(content["categories"], key=lambda c: c["id"]))
    again = get_exp(tmp_path / "run/exp.py")
    assert isinstance(again, OwnDataExp)
    assert (again.input_size, again.start_from, again.epoch_iters, again.max_epoch) == ((64, 64), "yolox-nano", 1, 2)
    text = (tmp_path / "run/exp.py").read_text()
    assert "given on the command line; chosen was (320, 416)" in text
    resumed = train.make_parser().parse_args([*words[:2], "--resume", *words[8:]])
    before = (tmp_path / "run/exp.py").stat().st_mtime_ns
    assert own_exp_file(resumed) == tmp_path / "run/exp.py"
    assert (tmp_path / "run/exp.py").stat().st_mtime_ns == before


def test_given__what_depends_on_it_follows(content, tmp_path):
    coco = write_coco(tmp_path / "coco", content, "train", "val")
    opts = ("--budget", "0.5m", "batch_size", "2", "input_size", "(64,64)", "repeat_thresh", "0.05")
    file = choose(coco, tmp_path / "runs", *opts[:2], "-expn", "small", *opts[2:])
    exp = get_exp(file)
    assert exp.test_size == exp.input_size == (64, 64)
    assert exp.basic_lr_per_img == 0.001  # 0.004 * sqrt(2 / 8) / 2
    (line,) = [line for line in file.read_text().splitlines() if "self.epoch_iters" in line]
    step = float(re.search(r": ([\d.]+) s a step of 2 here", line)[1])
    assert 0 < exp.epoch_iters * exp.max_epoch * (step - 0.005) <= 0.9 * 30  # a tenth of the budget is for the rest
    assert "self.input_size = (64, 64)  # given on the command line; chosen was (320, 416)\n" in file.read_text()
    with pytest.raises(UserError, match="-b auto is for an experiment file"):
        choose(coco, tmp_path / "runs", "-b", "auto")


def test_evaluate_on__other_annotations_have_no_held_out_part(content, tmp_path):
    """With `val_share` set, --split test must not score the held-out part of the training annotations."""
    coco = write_coco(tmp_path / "coco", content, "train")
    (coco / "test.json").write_text(json.dumps(content))
    exp = get_exp(choose(coco, tmp_path / "runs"))
    assert len(exp.get_index("val")) == 2
    exp.evaluate_on("test.json", None)
    assert (len(exp.get_index("val")), exp.get_source("val").path.name) == (10, "test.json")


@pytest.mark.parametrize("text", ["abc", "0m", "0it", "1.5it", "-3m", "30"])
def test_budget__of_another_kind_is_refused(text):
    with pytest.raises(UserError, match=r"--budget .*2000it, 30m or 2h"):
        budget_iterations(text, OwnDataExp(), 8, None)


def test_data__that_cannot_be_read_is_refused_by_name(content, tmp_path):
    with pytest.raises(UserError, match="nowhere: no such file or folder"):
        choose(tmp_path / "nowhere", tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="empty: the folder is empty"):
        choose(tmp_path / "empty", tmp_path)
    write_image(tmp_path / "bare/a.jpg", 20, 20)
    with pytest.raises(UserError, match="bare: holds images, but no labels"):
        choose(tmp_path / "bare", tmp_path)
    coco = write_coco(tmp_path / "none", content | {"annotations": []}, "train")
    with pytest.raises(UserError, match="no training image has a box"):
        choose(coco, tmp_path)
    with pytest.raises(UserError, match="-n yolox-z: unknown model"):
        choose(tmp_path, tmp_path, "-n", "yolox-z")
    args = train.make_parser().parse_args(["-n", "yolox-nano", "--budget", "3it"])
    with pytest.raises(UserError, match="--budget is for --data"):
        train.main(args)


def test_yaml__relative_parts_are_found(content, tmp_path):
    path = write_yolo(tmp_path / "set", content, "train")
    write_yolo(tmp_path / "set", content, "valid")
    told = yaml.safe_load(path.read_text())
    path.write_text(yaml.safe_dump({"names": told["names"], "train": "images/train", "val": "images/valid"}))
    exp = get_exp(choose(path, tmp_path / "runs"))
    assert (len(exp.get_index("train")), len(exp.get_index("val"))) == (10, 10)
    for split, folder in (("train", "images/train"), ("val", "images/valid")):
        assert exp.get_store(split).path(0).parent == tmp_path / "set" / folder


def test_exp_file__that_was_edited_is_not_overwritten(content, tmp_path):
    coco = write_coco(tmp_path / "coco", content, "train", "val")
    file = choose(coco, tmp_path / "runs", "--budget", "100it")
    assert choose(coco, tmp_path / "runs", "--budget", "100it") == file  # the same choices again
    file.write_text(edited := file.read_text() + "        self.seed = 7\n")
    with pytest.raises(UserError, match=r"exp\.py: is there already and differs .*-f, .*-expn"):
        choose(coco, tmp_path / "runs", "--budget", "100it")
    assert file.read_text() == edited


def test_layouts__without_a_yaml_or_list_are_read_by_their_folders(content, tmp_path):
    """images/train beside labels/train with and without names, and xml below annotations/ beside images/."""
    for split in ("train", "val"):
        write_yolo(tmp_path / "named", content, split).unlink()
        write_yolo(tmp_path / "bare", content, split).unlink()
    (tmp_path / "named/classes.txt").write_text("a\nb\nc\n")
    write_voc(tmp_path / "voc", content, "train").unlink()
    (tmp_path / "voc/Annotations").rename(tmp_path / "voc/annotations")
    (tmp_path / "voc/JPEGImages").rename(tmp_path / "voc/images")
    found = {}
    for name in ("named", "bare", "voc"):
        exp = get_exp(choose(tmp_path / name, tmp_path / "runs", "--budget", "10it"))
        indices = [exp.get_index(split) for split in ("train", "val")]
        found[name] = (*map(len, indices), indices[0].category_names)
    assert found == {
        "named": (10, 10, ("a", "b", "c")),
        "bare": (10, 10, ("0", "1", "2")),
        "voc": (8, 2, ("Platelets", "RBC", "WBC")),
    }


FILE = """
from yolox_lt.exp import {base}


class Exp({base}):
    def __init__(self):
        super().__init__()
        self.data_dir, self.train_ann, self.val_ann = {data!r}, "train.json", "val.json"
        self.train_images = self.val_images = None
        self.output_dir, self.data_num_workers = {output!r}, 0
        {more}
"""


def write_exp(path, base, data, more="pass"):
    path.write_text(FILE.format(base=base, data=str(data), output=str(path.parent), more=more))
    return path


def test_own_exp__leaves_to_the_data_what_the_file_does_not_set(content, tmp_path):
    """The file of --data has the same values; what the file sets, and what depends on it, follows the file."""
    coco = write_coco(tmp_path / "coco", content, "train", "val")
    chosen = get_exp(choose(coco, tmp_path / "runs", "--budget", "100it"))
    exp = get_exp(write_exp(tmp_path / "birds.py", "OwnDataExp", coco, "self.iterations = 100"))
    said = exp.settle(8)
    assert {choice.name for choice in said} == exp.chosen_names | {"num_classes"}
    differ = {k for k, v in exp.attributes().items() if chosen.attributes()[k] != v}
    assert differ <= PLACES | {"iterations", "data_num_workers"}
    assert exp.settle(8) == []
    sized = get_exp(write_exp(tmp_path / "sized.py", "OwnDataExp", coco, "self.input_size, self.width = (64, 64), 0.5"))
    names = {choice.name for choice in sized.settle(8)}
    assert (sized.test_size, sized.width, sized.start_from) == ((64, 64), 0.5, None)
    assert not {"input_size", "width", "start_from"} & names
    sized.model = "yolox-q"
    with pytest.raises(UserError, match="model 'yolox-q': unknown; choose one of yolox-nano, "):
        sized.choices(8)


@pytest.mark.usefixtures("without_report")
def test_num_classes__left_out_is_that_of_the_training_annotations(content, tmp_path):
    """In any experiment; an evaluation with the file takes it, and what else was chosen, from the checkpoint."""
    coco = write_coco(tmp_path / "coco", content, "train", "val")
    plain = get_exp(write_exp(tmp_path / "plain.py", "YOLOXStarExp", coco))
    assert [str(c) for c in plain.settle(8)] == [f"num_classes 3 (categories of {coco / 'train.json'})"]
    small = "self.iterations, self.input_size, self.width, self.depthwise = 2, (64, 64), 0.125, False"
    file = write_exp(tmp_path / "birds.py", "OwnDataExp", coco, small)
    exp = get_exp(file)
    exp.merge(["batch_size", "2"])
    exp.get_trainer().train()  # as the README has it
    (tmp_path / "coco/train.json").unlink()
    given = yolox_lt.load(tmp_path / "birds/best.pth", exp=file).exp
    assert (given.num_classes, given.test_size, given.prior_prob, given.max_epoch) == (3, (64, 64), 0.01, 2)
    kept = get_exp(file)
    kept.num_classes = 4
    with pytest.raises(UserError, match="was trained with num_classes 3, the experiment has 4"):
        yolox_lt.load(tmp_path / "birds/best.pth", exp=kept)


def test_reasons__are_true_of_the_annotations(content, tmp_path):
    """Every printed figure that is of the data or the run, worked out again from the json alone."""
    bare = {
        **content,
        "images": [*content["images"], {"id": 999, "file_name": "bare.jpg", "width": 320, "height": 240}],
    }
    file = choose(
        write_coco(tmp_path / "coco", bare, "train", "val"), tmp_path / "runs", "--budget", "100it", "-b", "4"
    )
    said = dict(re.findall(r"self\.(\w+) = .*?  # (.*)", file.read_text()))
    images, boxes = bare["images"], bare["annotations"]
    holders = [{a["image_id"] for a in boxes if a["category_id"] == c["id"]} for c in bare["categories"]]
    side = statistics.median((a["bbox"][2] * a["bbox"][3]) ** 0.5 for a in boxes)
    height, width = (statistics.median(i[k] for i in images) for k in ("height", "width"))
    exp = get_exp(file)
    seen = side * max(exp.input_size) / max(height, width)  # close to it: the input is a multiple of 32
    empty = len(images) - len({a["image_id"] for a in boxes})
    rare = [len(h) for h in holders if len(h) < 0.05 * len(images)]
    assert said["num_classes"] == "categories of the training annotations"
    assert exp.num_classes == len(bare["categories"]) == 3
    assert f"median object has {side:.0f} pixels in images of {width} x {height} (width x height)" in said["input_size"]
    assert float(said["input_size"].rpartition(" ")[2]) == pytest.approx(seen, abs=2)
    assert float(said["mosaic_prob"].split()[4]) == pytest.approx(seen, abs=2)
    assert (exp.mosaic_prob == 0) == (seen < 32)
    assert said["epoch_iters"] == "100 iterations in 10 epochs: --budget 100it"
    assert (exp.epoch_iters, exp.max_epoch) == (10, 10)
    assert said["max_epoch"] == f"an epoch is {10 * 4 / len(images):.1f} passes over the images"
    assert said["warmup_epochs"] == "5% of the run"
    assert exp.warmup_epochs * exp.epoch_iters == 100 / 20
    assert said["keep_empty"].startswith(f"{empty} of {len(images)} images have no object")
    published = {(r["set"], r["case"], r["seed"]): float(r["AP_300"]) for r in read_rows(PUBLISHED / RUNS)}
    higher, lower = (published["wide", case, "0"] for case in ("QFL, prior 0.01, RFS", "QFL, RFS"))
    assert (
        said["prior_prob"] == f"AP {higher:.1f} after 600 steps where 0.001 reached {lower:.1f} (640 glyphs, one seed)"
    )
    tried = {(r["set"], r["case"], r["seed"]): float(r["AP"]) for r in read_rows(PUBLISHED / DEFAULTS)}
    cost = tried["60 glyphs", "--data", "0"] - tried["60 glyphs", "with mosaic", "0"]
    assert f"(it cost {cost:.1f} AP in 7)" in mosaic(100.0, 7.2).reason
    assert rare == []
    assert said["sampler"].startswith("every category is in 5% of the images or more")
    assert float(said["basic_lr_per_img"].split()[0]) == pytest.approx(exp.basic_lr_per_img * 4, rel=0.05)
    assert said["ema_decay"] == "averages over 100 iterations, the least"
    assert exp.ema_decay == 1 - 1 / 100
    factors = exp.get_factors(exp.get_index("train"), exp.train_positions(exp.get_index("train")))
    assert (factors == 1).all()  # nothing is repeated, as the sampler's reason says


@pytest.mark.usefixtures("without_report")
def test_resume__keeps_the_choices_that_the_run_began_with(content, tmp_path):
    """The first command gives a length and a batch on which choices rest; the second gives neither."""
    coco = write_coco(tmp_path / "coco", content, "train", "val")
    small = "self.input_size, self.width, self.depthwise = (64, 64), 0.125, False"
    file = write_exp(tmp_path / "birds.py", "OwnDataExp", coco, small)
    words = ["-f", str(file), "-d", "1", "--device", "cpu"]
    train.main(
        train.make_parser().parse_args([*words, "-b", "2", "iterations", "600", "max_epoch", "1", "max_iter", "2"])
    )
    began = yolox_lt.load(tmp_path / "birds/latest.pth").exp
    train.main(train.make_parser().parse_args([*words, "--resume", "max_epoch", "2"]))
    ended = yolox_lt.load(tmp_path / "birds/latest.pth").exp
    differ = {k for k, v in ended.attributes().items() if began.attributes()[k] != v}
    assert differ == {"max_epoch"}
    assert (ended.ema_decay, ended.basic_lr_per_img) == (0.99167, 0.001)  # 1 - 1 / (600 / 5); 0.004 * sqrt(2 / 8) / 2
