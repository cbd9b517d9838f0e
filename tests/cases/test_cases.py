"""What users gave and what went wrong, each as it was given: sets of a few small images with an experiment file."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from loguru import logger

from yolox_lt.commands import main
from yolox_lt.errors import UserError
from yolox_lt.exp import YOLOXStarExp, get_exp

CASES = Path(__file__).parent


@pytest.fixture
def case(tmp_path, monkeypatch):
    """case("name") -> a copy of its folder, which may be written; runs go beside it."""
    monkeypatch.chdir(tmp_path)

    def copy(name: str) -> Path:
        return Path(shutil.copytree(CASES / name, tmp_path / name))

    return copy


def failure(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    """The sentence with which a command ends."""
    with pytest.raises(SystemExit) as end:
        main([str(word) for word in words])
    assert end.value.code == 1
    return capsys.readouterr().err


def train(file: Path, *more: object) -> None:
    main([str(w) for w in ("train", "-f", file, "--device", "cpu", "-d", 1, "-b", 2, *more)])


@pytest.mark.parametrize(
    ("file", "images", "boxes"),
    [
        ("yolo-other-rows/polygon/exp.py", 2, 3),  # the box around the corners
        ("yolo-other-rows/pose/exp.py", 2, 3),  # the box before the key points
        ("yolo-other-rows/bom/exp.py", 2, 3),
        ("yolo-other-rows/bom_json/exp.py", 2, 3),
        ("segmentation-only/exp.py", 3, 4),
        ("yolo-labels-beside/exp.py", 8, 14),
        ("yolo-labels-beside/only.py", 4, 9),
        ("windows-and-tool-paths/backslash.py", 3, 4),
        ("windows-and-tool-paths/drive.py", 3, 4),
        ("windows-and-tool-paths/upload.py", 3, 4),
        ("windows-and-tool-paths/url.py", 3, 4),
        ("nested-names/exp.py", 6, 12),
    ],
)
def test_inspect__finds_every_image_and_box(case, capsys, file, images, boxes):
    name, _, rest = file.partition("/")
    main(["inspect", "-f", str(case(name) / rest), "--pictures", "0", "--check-images"])
    out = capsys.readouterr().out
    assert f"{images} of {images} images used, {boxes} boxes of 3 categories" in out
    assert "unreadable" not in out
    assert "missing image files" not in out


def test_rows__polygon_pose_and_five_columns_give_the_same_boxes(case):
    """The three sets hold the same objects."""
    folder = case("yolo-other-rows")
    boxes = {name: get_exp(folder / name / "exp.py").get_index("train").boxes for name in ("polygon", "pose", "bom")}
    assert boxes["pose"] == pytest.approx(boxes["bom"], abs=0.01)
    assert boxes["polygon"] == pytest.approx(boxes["bom"], abs=0.01)


def test_scores_in_labels__are_refused_by_name(case, capsys):
    sentence = failure(capsys, "inspect", "-f", case("yolo-other-rows") / "conf/exp.py", "--pictures", 0)
    assert re.search(r"0\.txt, line 1: has 6 columns .* without a score", sentence)


def test_nested__the_folder_of_a_name_counts_before_the_bare_name(case):
    """flat/ has images of the same bare names in the folder itself."""
    store = get_exp(case("nested-names") / "flat/exp.py").get_store("val")
    folders = {store.path(i).parent.name for i in range(len(store.index))}
    assert folders == {"camA", "camB"}


@pytest.mark.parametrize("name", ["square", "upside_down", "upright_size"])
def test_exif__boxes_of_the_shown_image_fit_its_pixels(case, name):
    """The objects are bright on dark ground: inside the boxes it is brighter than around them."""
    store = get_exp(case("exif-coco") / f"{name}.py").get_store("val")
    inside, outside = [], []
    for i in range(len(store.index)):
        image = store.read(i).astype(float)
        colour = image.max(axis=2) - image.min(axis=2)  # the ground is grey
        mask = colour * 0 > 1
        for x1, y1, x2, y2 in store.index.boxes_of(i).round().astype(int).tolist():
            mask[y1 + 2 : y2 - 2, x1 + 2 : x2 - 2] = True
        inside.append(colour[mask].mean())
        outside.append(colour[~mask].mean())
    assert min(inside) > 3 * max(outside)


def test_exif__a_size_as_stored_is_refused_by_name(case):
    store = get_exp(case("exif-coco") / "stored_size.py").get_store("val")
    with pytest.raises(
        UserError, match=r"has an EXIF rotation, so it is shown as 128x160, .* say 160x128, as it is stor"
    ):
        store.read(0)


def test_names__of_another_order_are_matched(case, capsys):
    folder = case("names-swapped")
    train(folder / "exp.py", "max_epoch", 1, "eval_interval", 1)
    assert "val.json: numbers its categories otherwise than the model; matched by name" in capsys.readouterr().err
    exp = get_exp(folder / "exp.py")
    index = exp.get_index("train")
    labels = exp.get_evaluator(2, names=index.category_names).labels
    own = exp.get_index("val").category_names
    assert [own[label] for label in labels] == list(index.category_names)
    assert labels.tolist() != [0, 1, 2]


def test_names__that_the_training_does_not_have_are_refused(case, capsys):
    folder = case("names-swapped")
    words = ("train", "-f", folder / "other.py", "--device", "cpu", "-d", 1, "-b", 2, "max_epoch", 1)
    assert "other.json: lists 'cat', 'dog', 'fish', which the model does not have (red, green, blue" in failure(
        capsys, *words
    )


def test_names__missing_in_the_validation_file_are_said(case, capsys):
    train(case("num-classes-circle") / "exp.py", "max_epoch", 1, "eval_interval", 1)
    said = "val.json: numbers its categories otherwise than the model; matched by name; it lacks green"
    assert said in capsys.readouterr().err
    rows = Path("YOLOX_outputs/exp/per_category.csv").read_text().splitlines()
    assert len(rows) == 1 + 2


def test_resume__with_renumbered_categories_is_refused(case, capsys):
    folder = case("resume-reordered")
    train(folder / "exp.py", "-expn", "rr", "max_epoch", 1)
    sentence = failure(
        capsys, "train", "-f", folder / "exp2.py", "--device", "cpu", "-d", 1, "-expn", "rr", "--resume", "max_epoch", 2
    )
    assert "latest.pth: category 1 of" in sentence
    assert "is 'green', in the checkpoint 'red' (1 more differ)" in sentence


@pytest.mark.parametrize(("highest", "is_said"), [(4095, True), (40000, False)])
def test_twelve_bits__in_sixteen_are_said_each_time(tmp_path, highest, is_said):
    """Camera images of 12 bits in 16-bit files become nearly black when the lower 8 bits are dropped."""
    pixels = np.linspace(0, highest, 40 * 20).astype(np.uint16).reshape(20, 40)
    cv2.imwrite(str(tmp_path / "a.png"), pixels)
    content = {
        "images": [{"id": 1, "width": 40, "height": 20, "file_name": "a.png"}],
        "categories": [{"id": 1, "name": "cell"}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 2, 10, 10]}],
    }
    (tmp_path / "train.json").write_text(json.dumps(content))
    exp = YOLOXStarExp()
    exp.data_dir, exp.train_ann, exp.train_images, exp.num_classes = str(tmp_path), "train.json", None, 1
    said: list[str] = []
    handle = logger.add(said.append, level="WARNING", format="{message}")
    try:
        for _ in range(2):
            exp.get_store("train")
    finally:
        logger.remove(handle)
    found = [line for line in said if f"up to {highest} of 65535" in line]
    assert len(found) == (2 if is_said else 0)
