"""One data set as COCO json, as VOC xml and as YOLO text: the same index, the same samples, the same AP."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.data.own_data import bccd, small, write_image, write_voc, write_yolo
from yolox_lt.data.annotations.formats import detect_format
from yolox_lt.data.annotations.index import AnnotationIndex
from yolox_lt.data.annotations.source import Source
from yolox_lt.data.sampling.sampler import SampleRequest
from yolox_lt.errors import UserError
from yolox_lt.evaluate import evaluate_coco
from yolox_lt.exp import YOLOXStarExp, get_exp

CLASSES = ("RBC", "WBC", "Platelets")
COLUMNS = (
    *("image_ids", "sizes", "box_offsets", "labels", "annotation_ids", "crowd", "ignore", "usable", "category_ids"),
    *("negative_offsets", "negative_labels", "not_exhaustive_offsets", "not_exhaustive_labels"),
    *("image_counts", "instance_counts"),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """coco/, voc/ and yolo/: the first 30 images of BCCD's validation split, one of them with its objects removed."""
    folder = tmp_path_factory.mktemp("bccd")
    content = small(bccd(), 30)
    content["annotations"] = [a for a in content["annotations"] if a["image_id"] != 7]
    content = small(content, 30)
    for split in ("train", "val"):
        (folder / "coco").mkdir(exist_ok=True)
        (folder / f"coco/{split}.json").write_text(json.dumps(content))
    write_voc(folder / "voc", content, "train", images=False)
    write_voc(folder / "voc", content, "val")
    for split in ("train", "val"):
        write_yolo(folder / "yolo", content, split)
    for image in content["images"]:
        write_image(folder / "coco/images" / image["file_name"], image["width"], image["height"])
    return folder


def sources(folder: Path) -> dict[str, Source]:
    return {
        "coco": Source((str(folder / "coco/val.json"),)),
        "voc": Source((str(folder / "voc/ImageSets/Main/val.txt"),), class_names=CLASSES),
        "yolo": Source((str(folder / "yolo/data.yaml"),)),
    }


def test_formats__the_same_index(folder) -> None:
    made = {name: AnnotationIndex.load(source, cache=False) for name, source in sources(folder).items()}
    coco = made["coco"]
    assert len(coco) == 30
    assert len(coco.boxes) > 300
    for name, tolerance in (("voc", 0.0), ("yolo", 640 * 1.1e-6)):  # six decimals, twice rounded
        other = made[name]
        for column in COLUMNS:
            np.testing.assert_array_equal(getattr(other, column), getattr(coco, column), f"{name} {column}")
        assert other.category_names == coco.category_names == CLASSES
        assert (other.federated, other.frequencies) == (False, None)
        np.testing.assert_allclose(other.boxes, coco.boxes, rtol=0, atol=tolerance)
        np.testing.assert_allclose(other.areas, coco.areas, rtol=0, atol=640 * 2 * tolerance)
        assert [Path(other.file_name(i)).name for i in range(30)] == [coco.file_name(i) for i in range(30)]
        assert other.groups(coco.image_counts).tolist() == coco.groups(coco.image_counts).tolist()
    assert made["voc"].file_name(0) == "JPEGImages/BloodImage_00000.jpg"
    assert made["yolo"].file_name(0) == "images/val/BloodImage_00000.jpg"
    assert made["voc"].ignored_not_scored
    assert not coco.ignored_not_scored


def detections_for(index: AnnotationIndex, seed: int) -> list[dict[str, Any]]:
    """The boxes moved at random, some with another category, some twice, some left out."""
    rng = np.random.default_rng(seed)
    image = np.repeat(index.image_ids, np.diff(index.box_offsets))
    found = []
    for row in np.flatnonzero(rng.random(len(image)) < 0.9).tolist():
        for _ in range(int(rng.integers(1, 3))):
            box = index.boxes[row] * rng.normal(1, 0.05, 4)
            label = int(rng.integers(3)) if rng.random() < 0.1 else int(index.labels[row])
            entry = {"image_id": int(image[row]), "category_id": label + 1, "bbox": box.tolist()}
            found.append(entry | {"score": float(rng.random())})
    return found


def test_formats__the_same_ap(folder) -> None:
    made = {name: AnnotationIndex.load(source, cache=False) for name, source in sources(folder).items()}
    detections = detections_for(made["coco"], 3)
    wanted = evaluate_coco(made["coco"], detections).metrics
    assert 0.1 < wanted["AP"] < 0.9
    for name in ("voc", "yolo"):
        assert evaluate_coco(made[name], detections).metrics == pytest.approx(wanted, abs=1e-9, nan_ok=True), name


def exp_of(folder: Path, kind: str) -> YOLOXStarExp:
    exp = YOLOXStarExp()
    exp.data_dir, exp.num_classes, exp.seed = str(folder / kind), 3, 0
    exp.train_images = exp.val_images = None
    exp.keep_empty = True
    exp.input_size, exp.multiscale_range, exp.mosaic_prob = (128, 160), 0, 0.0
    exp.train_ann, exp.val_ann = {
        "coco": ("train.json", "val.json"),
        "voc": ("ImageSets/Main/train.txt", "ImageSets/Main/val.txt"),
        "yolo": ("data.yaml", "data.yaml"),
    }[kind]
    exp.class_names = CLASSES if kind == "voc" else ()
    return exp


def test_formats__the_same_samples_from_an_experiment(folder) -> None:
    draws = [SampleRequest(i, n, False) for n, i in enumerate((0, 6, 29))]
    made = {kind: exp_of(folder, kind).get_dataset(seed=1) for kind in ("coco", "voc", "yolo")}
    for draw in draws:
        wanted = made["coco"][draw]
        for kind in ("voc", "yolo"):
            item = made[kind][draw]
            np.testing.assert_array_equal(item.image, wanted.image)
            np.testing.assert_array_equal(item.labels, wanted.labels)
            np.testing.assert_allclose(item.boxes, wanted.boxes, atol=1e-3)
    assert len(made["coco"][draws[1]].boxes) == 0  # image 7 has no objects


@pytest.mark.parametrize("kind", ["voc", "yolo"])
def test_cache__is_mapped_again_until_a_file_changes(folder, kind, tmp_path) -> None:
    shutil.copytree(folder / kind, tmp_path / kind, ignore=shutil.ignore_patterns("*.index"))
    source = sources(tmp_path)[kind]
    first = AnnotationIndex.load(source)
    (cache,) = tmp_path.rglob("*.index")
    stamp = cache.stat().st_mtime_ns
    again = AnnotationIndex.load(source)
    assert cache.stat().st_mtime_ns == stamp
    assert len(pickle.dumps(again)) < 2000
    reopened = pickle.loads(pickle.dumps(again))
    np.testing.assert_array_equal(reopened.boxes, first.boxes)
    victim = tmp_path / (
        "voc/Annotations/BloodImage_00000.xml" if kind == "voc" else "yolo/labels/val/BloodImage_00000.txt"
    )
    text = victim.read_text()
    victim.write_text(text.replace("WBC", "RBC") if kind == "voc" else text.replace("1 0.", "0 0.", 1))
    changed = AnnotationIndex.load(source)
    assert changed.instance_counts.tolist() != first.instance_counts.tolist()
    with pytest.raises(UserError, match="changed after the run began"):
        pickle.loads(pickle.dumps(again))


def test_recognise__by_looking(folder, tmp_path) -> None:
    for path, kind in (
        ("coco/val.json", "coco"),
        ("voc", "voc"),
        ("voc/Annotations", "voc"),
        ("voc/ImageSets/Main/val.txt", "voc"),
        ("yolo", "yolo"),
        ("yolo/data.yaml", "yolo"),
        ("yolo/images/val", "yolo"),
    ):
        assert detect_format(folder / path) == kind, path
    (tmp_path / "list.txt").write_text("\n./images/a.jpg\n")
    assert detect_format(tmp_path / "list.txt") == "yolo"
    with pytest.raises(UserError, match=r"holds no annotations of a known format"):
        detect_format(tmp_path)
    (tmp_path / "_annotations.coco.json").write_text("{}")
    assert detect_format(tmp_path) == "coco"
    assert detect_format(tmp_path, "voc") == "voc"
    with pytest.raises(UserError, match=r"none: no such annotation file"):
        detect_format(tmp_path / "none")
    with pytest.raises(UserError, match=r"'pascal' is unknown; choose one of auto, coco, cvat, labelme, voc, yolo"):
        Source(("a.json",), "pascal")


def test_exp__says_what_is_missing(folder, tmp_path) -> None:
    exp = exp_of(folder, "voc")
    exp.class_names = ("RBC", "WBC")
    with pytest.raises(UserError, match=r"xml: object \d+ is a 'Platelets', which class_names does not list"):
        exp.get_index("train")
    exp = exp_of(folder, "yolo")
    exp.val_ann = "data.yaml:test"
    with pytest.raises(UserError, match=r"data\.yaml: has no 'test', only train, val; add the key"):
        exp.get_index("val")
    exp.val_ann = "none.yaml"
    with pytest.raises(UserError, match=r"none\.yaml: annotation file not found; set data_dir \(now .*\) or val_ann"):
        exp.get_index("val")
    exp.num_classes = 4
    with pytest.raises(UserError, match=r"has 3 categories but num_classes is 4"):
        exp.get_index("train")
    exp.merge(["train_ann", "('a.json', 'b.json')", "val_ann", "c.json"])
    assert (exp.train_ann, exp.val_ann) == (("a.json", "b.json"), "c.json")


OWN_FORMAT = """
from yolox_lt.data.annotations.coco_json import AnnotationFile, BoxEntry, CategoryEntry, ImageEntry
from yolox_lt.data.annotations.formats import FORMATS
from yolox_lt.data.annotations.reader import Reader
from yolox_lt.exp import YOLOXStarExp


def read(path, options):
    image, category = ImageEntry(1, 10, 10, file_name="a.jpg"), CategoryEntry(1, "thing")
    return AnnotationFile([image], [category], [BoxEntry(1, 1, (LEFT, 1, 2, 2))])


class Exp(YOLOXStarExp):
    num_classes, train_ann, train_images = 1, "train.own", None

    def get_formats(self):
        own = Reader(lambda path: path.suffix == ".own", lambda path, _: path, read, lambda path: [path])
        return {"own": own} | FORMATS
"""


def test_own_format__changed_reader_reads_again(tmp_path) -> None:
    (tmp_path / "train.own").write_text("as it was")
    for left in (1, 5):
        (tmp_path / "exp.py").write_text(OWN_FORMAT.replace("LEFT", str(left)) + "# longer\n" * left)
        exp = get_exp(tmp_path / "exp.py")
        exp.data_dir = str(tmp_path)
        assert exp.get_index("train").boxes.tolist() == [[left, 1, 2, 2]]
