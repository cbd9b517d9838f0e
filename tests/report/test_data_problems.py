"""What is found wrong with a data set that has one of everything, and what inspect prints of it."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import threading
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.tiny import TINY, tiny_data
from yolox_lt.commands import main
from yolox_lt.data.annotations.index import AnnotationIndex
from yolox_lt.data.dataset import ImageStore
from yolox_lt.report.data.problems import ERRORS, REMARKS, find_problems

pytestmark = pytest.mark.xdist_group("data_problems")

ROOT = Path(__file__).resolve().parents[2]


def write_data(folder: Path, images: list[int], boxes: list[dict], categories: dict[int, str], name: str) -> Path:
    """A COCO file whose image number n is `folder`/images/<images[n]>.png of 20 x 10 pixels."""
    content = {
        "images": [{"id": n, "width": 20, "height": 10, "file_name": f"{i}.png"} for n, i in enumerate(images)],
        "categories": [{"id": i, "name": name} for i, name in categories.items()],
        "annotations": boxes,
    }
    path = folder / name
    path.write_text(json.dumps(content))
    (folder / "images").mkdir(exist_ok=True)
    for i in images:
        cv2.imwrite(str(folder / "images" / f"{i}.png"), np.zeros((10, 20, 3), np.uint8))
    return path


def box(image: int, category: int, corners: list[float], **more: object) -> dict:
    return {"image_id": image, "category_id": category, "bbox": corners, "area": 4.0, **more}


@pytest.fixture
def broken(tmp_path):
    """Folder with train.json and val.json that have one of everything."""
    good = box(0, 1, [1, 1, 4, 4])
    train = [good, good, box(1, 1, [30, 1, 4, 4]), box(1, 1, [5, 5, 0, 2]), box(2, 1, [18, 1, 6, 4])]
    # Images 1 and 2 are without a usable box; number 3 is the file of number 0 again.
    train += [box(1, 2, [1, 1, 3, 3], iscrowd=1)]
    write_data(tmp_path, [0, 1, 2, 0], train, {1: "cat", 2: "dog", 3: "eel"}, "train.json")
    val = [box(0, 1, [1, 1, 4, 4]), box(1, 3, [1, 1, 4, 4])]
    write_data(tmp_path, [7, 2, 8], val, {1: "cat", 2: "wolf", 3: "eel"}, "val.json")
    (tmp_path / "images/1.png").unlink()
    (tmp_path / "images/8.png").write_bytes(b"no image")
    return tmp_path


def found(folder: Path, read: bool = False) -> dict[tuple[str, str], tuple[bool, int, tuple[str, ...]]]:
    stores = [ImageStore(AnnotationIndex.load(folder / f"{name}.json"), folder) for name in ("train", "val")]
    problems = find_problems(stores[0], np.arange(len(stores[0].index)), stores[1], read)
    assert [p.error for p in problems] == sorted((p.error for p in problems), reverse=True)
    return {(p.split, p.text): (p.error, p.count, p.examples) for p in problems}


def test_problems__one_of_everything(broken):
    images = broken / "images"
    assert found(broken) == {
        ("train", ERRORS["duplicate annotation"]): (True, 1, ()),
        ("train", ERRORS["outside image"]): (True, 1, ()),
        ("train", ERRORS["zero-size"]): (True, 1, ()),
        ("train", REMARKS["clipped"]): (False, 1, ()),
        ("train", REMARKS["crowd"]): (False, 1, ()),
        ("train", REMARKS["images without usable boxes"]): (False, 2, ()),
        ("val", REMARKS["images without usable boxes"]): (False, 1, ()),
        ("train", "categories without a box"): (False, 2, ("dog", "eel")),
        ("val", "categories that the training annotations do not list"): (True, 1, ("wolf",)),
        ("train", "image files listed more than once"): (True, 1, (str(images / "0.png"),)),
        ("train", "missing image files"): (True, 1, (str(broken / "1.png"),)),
        ("val", "images that are trained on too"): (True, 1, (str(images / "2.png"),)),
    }


def test_problems__reading_finds_broken_files(broken):
    extra = {k: v for k, v in found(broken, read=True).items() if k not in found(broken)}
    (((split, text), (error, count, (example,))),) = extra.items()
    assert (split, text, error, count) == ("val", "unreadable images", True, 1)
    assert example == f"{broken / 'images/8.png'}: not a readable image (8 bytes)"


def test_problems__other_categories(tmp_path):
    write_data(tmp_path, [0], [box(0, 1, [1, 1, 4, 4])], {1: "cat", 2: "dog"}, "train.json")
    write_data(tmp_path, [1], [box(0, 1, [1, 1, 4, 4])], {1: "cat", 3: "eel"}, "val.json")
    assert found(tmp_path)["val", "categories that the training annotations do not list"] == (True, 1, ("eel",))
    write_data(tmp_path, [1], [box(0, 1, [1, 1, 4, 4])], {1: "dog", 3: "cat"}, "val.json")
    assert found(tmp_path)["val", "categories numbered otherwise than in training, matched by name"] == (
        *(False, 2),
        ("cat", "dog"),
    )
    assert found(tmp_path)["val", "categories with boxes here and none in training"] == (True, 1, ("dog",))
    write_data(tmp_path, [1], [box(0, 7, [1, 1, 4, 4])], {7: "cat"}, "val.json")
    assert found(tmp_path)["val", "categories that only the training annotations list"] == (False, 1, ("dog",))


def test_problems__every_count_of_the_reader_has_a_text(broken):
    assert set(AnnotationIndex.load(broken / "train.json").problems) == ERRORS.keys() | REMARKS.keys()


# ------------------------------------------------------------------------------------------------------ inspect


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    """Overrides that put exps/glyphs/*.py on the tiny data set, and the folder of images."""
    output = tmp_path_factory.mktemp("inspect")
    values = {
        "num_classes": TINY["num_categories"],
        "glyph_image_size": TINY["image_size"],
        "glyph_train_images": TINY["train_images"],
        "glyph_val_images": TINY["val_images"],
        "input_size": "(64,64)",
        "data_dir": tiny_data(tmp_path_factory),
        "output_dir": output,
    }
    return [str(word) for pair in values.items() for word in pair], output


def inspect(*words: str) -> None:
    main(["inspect", *words])


def test_inspect__plain_when_piped_and_the_same_in_colour_on_a_terminal(settings, capsys):
    overrides, output = settings
    words = ["-f", str(ROOT / "exps/glyphs/eqfl.py"), "--pictures", "2", *overrides, "mosaic_prob", "1"]
    inspect(*words)
    plain = capsys.readouterr().out
    folder = output / "eqfl/pictures"
    pictures = "\n" + plain.splitlines()[-1]
    assert pictures.endswith(str(folder))
    assert "\033" not in plain
    assert "mosaic and mixup add 4 images to a sample on average" in plain
    without = TINY["train_images"] - int(re.search(r"^(\d+) of 360 images used", plain, re.MULTILINE)[1])
    assert plain.endswith(f"found:\n  remark train {without} {REMARKS['images without usable boxes']}\n{pictures}\n")
    assert {"labels.png", "train_batch.jpg"} <= {p.name for p in folder.iterdir()}
    assert len(list(folder.glob("labels_*.jpg"))) == 2

    parts: list[bytes] = []
    master, slave = pty.openpty()

    def drain() -> None:
        with contextlib.suppress(OSError):  # the other end is closed
            while part := os.read(master, 4096):
                parts.append(part)

    reader = threading.Thread(target=drain)
    reader.start()
    with os.fdopen(slave, "w") as terminal, contextlib.redirect_stdout(terminal):
        inspect(*words)
    reader.join(10)
    os.close(master)
    colored = b"".join(parts).decode().replace("\r\n", "\n")
    assert "\033[31mrare " in colored.replace("rare  ", "rare ")
    assert re.sub(r"\033\[\d+m", "", colored) == plain


def test_inspect__json_of_a_resnet(settings, capsys, tmp_path):
    overrides, _ = settings
    words = ["-f", str(ROOT / "exps/glyphs/efl_r18.py"), "-b", "8", *overrides]
    words = [w for w in words if w not in ("input_size", "(64,64)")]
    inspect("--json", "-", "--pictures", "0", *words)
    values = json.loads(capsys.readouterr().out)
    assert values["epoch"]["partners_per_sample"] == 0
    assert values["epoch"]["iterations"] == -(-values["images"] // 8)  # epoch_length dataset
    samples = values["epoch"]["iterations"] * 8
    image_counts = np.array([c["images"] for c in values["categories"]])
    draws = np.array([c["draws_per_epoch"] for c in values["categories"]])
    gain = np.array([c["gain_over_uniform"] for c in values["categories"]])
    np.testing.assert_allclose(draws, gain * image_counts * samples / values["images"])
    assert (draws <= samples).all()
    inspect("--json", str(tmp_path / "data.json"), "--pictures", "0", *words)
    assert "id  name" in capsys.readouterr().out
    assert json.loads((tmp_path / "data.json").read_text()) == values


def test_inspect__strict_fails_on_errors_alone(settings, broken, capsys, tmp_path):
    overrides, _ = settings
    words = ["inspect", "--strict", "--pictures", "1", "-f", str(ROOT / "exps/glyphs/eqfl.py"), *overrides]
    main(words)
    (tmp_path / "exp.py").write_text(
        "from yolox_lt.exp import YOLOXStarExp\n\n\nclass Exp(YOLOXStarExp):\n"
        f"    data_dir, train_ann, val_ann, num_classes = {str(broken)!r}, 'train.json', 'val.json', 3\n"
        f"    keep_empty, train_images, val_images = True, None, None\n    output_dir = {str(tmp_path)!r}\n"
        "    input_size, multiscale_range = (64, 64), 0\n"
    )
    capsys.readouterr()
    with pytest.raises(SystemExit) as end:
        main(["inspect", "--strict", "--pictures", "1", "-f", str(tmp_path / "exp.py")])
    assert end.value.code == 1
    out = capsys.readouterr().out
    assert "  error  train 1 missing image files: " in out
    assert "  remark train 2 categories without a box: dog, eel\n" in out
    main(["inspect", "--pictures", "1", "-f", str(tmp_path / "exp.py")])
