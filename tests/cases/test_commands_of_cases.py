"""Cases whose inputs a few lines make: the commands users gave, and the sentences they get."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

import yolox_lt
from tests.cases.test_cases import case, failure  # noqa: F401  case is a fixture
from yolox_lt.commands import main
from yolox_lt.commands.demo import make_parser
from yolox_lt.data.image_file import read_image_file
from yolox_lt.distributed.processes import launched_externally


@pytest.mark.parametrize(
    ("option", "value"), [("--conf", "30"), ("--conf", "nan"), ("--conf", "-1"), ("--nms", "1.5"), ("--tsize", "0")]
)
def test_demo_options__outside_their_range_are_refused(capsys, option, value):
    with pytest.raises(SystemExit) as end:
        make_parser().parse_args(["image", "--path", "a.jpg", option, value])
    assert end.value.code == 2
    assert f"{value} is no number" in capsys.readouterr().err


def clip(path: Path) -> Path:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 5, (64, 64))
    for level in (0, 90):
        writer.write(np.full((64, 64, 3), level, np.uint8))
    writer.release()
    return path


def test_video__is_not_overwritten_and_every_one_is_read(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    paths = [str(clip(tmp_path / f"{name}.avi")) for name in ("one", "two")]
    shutil.copy(paths[0], tmp_path / "one.mp4")  # another video of the name that the result would have
    before = (tmp_path / "one.mp4").read_bytes()
    words = ("demo", "video", "--path", *paths, "-n", "yolox-nano", "--tsize", 64, "--device", "cpu", "--save")
    assert "one.mp4: is there already and would be overwritten" in failure(capsys, *words, tmp_path)
    assert (tmp_path / "one.mp4").read_bytes() == before
    main([str(word) for word in (*words, "drawn")])
    assert sorted(path.name for path in Path("drawn").iterdir()) == ["one.mp4", "two.mp4"]


def test_slurm__a_given_number_of_devices_wins(monkeypatch):
    for name, value in {"SLURM_STEP_ID": "4294967290", "SLURM_NTASKS": "4", "SLURM_PROCID": "0"}.items():
        monkeypatch.setenv(name, value)
    assert launched_externally(None)
    assert not launched_externally(1)
    monkeypatch.delenv("SLURM_STEP_ID")
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert not launched_externally(None)


def test_inspect__lists_a_size_that_is_exchanged(case, capsys):  # noqa: F811
    folder = case("num-classes-circle")
    for name in ("train.json", "val.json"):
        content = json.loads((folder / name).read_text())
        for image in content["images"]:
            image["width"], image["height"] = image["height"], image["width"]
        (folder / name).write_text(json.dumps(content))
    with pytest.raises(SystemExit) as end:
        main(["inspect", "-f", str(folder / "exp.py")])
    assert end.value.code == 1
    captured = capsys.readouterr()
    assert "image files of another size than the annotations say" in captured.out
    assert "fix the errors of the list first" in captured.err


def test_reader__tells_labels_without_image_each_time(case, capsys):  # noqa: F811
    folder = case("yolo-other-rows") / "bom"
    for labels in list((folder / "labels").rglob("*.txt"))[:1]:
        shutil.copy(labels, labels.with_name("caf%C3%A9.txt"))
    for _ in range(2):
        with pytest.raises(SystemExit) as end:
            main(["inspect", "-f", str(folder / "exp.py"), "--pictures", "0", "--strict"])
        assert end.value.code == 1
        assert "1 files with labels have no image; they are not read" in capsys.readouterr().out


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif__every_orientation_is_the_image_as_shown(tmp_path, orientation):
    """What training and evaluation read and what the API is given are the pixels of the file stored upright."""
    pixels = np.random.default_rng(0).integers(0, 256, (24, 40, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(pixels).save(tmp_path / "a.jpg", exif=exif, quality=95)
    Image.fromarray(pixels).save(tmp_path / "plain.jpg", quality=95)
    stored = cv2.imread(str(tmp_path / "plain.jpg"))
    turned = {1: stored, 2: stored[:, ::-1], 3: stored[::-1, ::-1], 4: stored[::-1]}
    turned |= {5: stored.transpose(1, 0, 2), 6: np.rot90(stored, -1), 8: np.rot90(stored)}
    turned |= {7: stored.transpose(1, 0, 2)[::-1, ::-1]}
    upright = turned[orientation]
    height, width = upright.shape[:2]
    np.testing.assert_array_equal(read_image_file(tmp_path / "a.jpg", width, height, ""), upright)
    if orientation in (1, 6):  # the detector itself, once
        detector = yolox_lt.load("yolox-nano", device="cpu")
        given, plain = detector(tmp_path / "a.jpg", conf=0), detector(np.ascontiguousarray(upright), conf=0)
        np.testing.assert_array_equal(given.boxes.numpy(), plain.boxes.numpy())
        np.testing.assert_array_equal(given.scores.numpy(), plain.scores.numpy())
