"""The Python API: every form of an image, lists, threads, images and JSON, errors."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import PIL.Image
import pytest
import torch
from torch import Tensor

import yolox_lt
from tests.convert.files import official, released
from yolox_lt.api import LoadedDetector, read_checkpoint
from yolox_lt.checkpoint import plain, save_checkpoint
from yolox_lt.errors import UserError
from yolox_lt.exp import DetectorExp, Exp, ResNetExp, YOLOXStarExp
from yolox_lt.images import read_image
from yolox_lt.models.priors import AnchorGrid
from yolox_lt.render import color_of
from yolox_lt.types import Detections, Predictions, Priors

ROOT = Path(__file__).resolve().parents[1]
NAMES = ("blue", "green", "red")
ORIENTATION = 0x0112  # EXIF tag


def find_colors(images: Tensor) -> tuple[Predictions, Priors]:
    """Cells of 32 pixels, each with the mean of its channels as logits: 255 has score 1.00, below 100 score 0.06."""
    logits = (torch.nn.functional.avg_pool2d(images, 32) - 128) / 10
    b, c, h, w = logits.shape
    logits = logits.permute(0, 2, 3, 1).reshape(b, h * w, c)  # [B, C, H, W] -> [B, H*W, C]
    deltas = torch.tensor([0.5, 0.5, 0, 0]).expand(b, h * w, 4)  # the cell itself
    return Predictions(logits, deltas, torch.full((b, h * w), 20.0)), AnchorGrid((32,), (1,))([(h, w)])


@pytest.fixture
def colors() -> LoadedDetector:
    exp = Exp()
    exp.num_classes, exp.test_size, exp.test_conf = 3, (64, 96), 0.5
    return LoadedDetector(find_colors, exp, NAMES, "cpu")


def picture() -> np.ndarray:
    """128 x 192, twice the test size, BGR: a red square in the right lower corner, a blue one at the left above."""
    image = np.zeros((128, 192, 3), np.uint8)
    image[64:, 128:, 2] = 255
    image[:64, :64, 0] = 255
    return image


EXPECTED = {"red": [128, 64, 192, 128], "blue": [0, 0, 64, 64]}


def by_name(detections: Detections) -> dict[str, list[float]]:
    return {detections.name_of(label): box for box, label in zip(detections.boxes.tolist(), detections.labels.tolist())}


def equal(first: Detections, second: Detections) -> bool:
    return all(torch.equal(getattr(first, name), getattr(second, name)) for name in ("boxes", "scores", "labels"))


def test_call__array_path_and_pil_image_give_the_same(colors, tmp_path):
    array = picture()
    cv2.imwrite(str(tmp_path / "a.png"), array)
    forms = [array, tmp_path / "a.png", str(tmp_path / "a.png"), PIL.Image.open(tmp_path / "a.png")]
    forms.append(PIL.Image.fromarray(array[:, :, ::-1]))
    for form in forms:
        assert by_name(colors(form)) == EXPECTED
    assert [by_name(found) for found in colors(forms)] == [EXPECTED] * 5
    assert [by_name(found) for found in colors(tuple(forms))] == [EXPECTED] * 5
    assert colors([]) == []


@pytest.mark.parametrize("mode", ["RGBA", "P", "CMYK"])
def test_pil__other_modes_are_converted(colors, mode):
    image = PIL.Image.fromarray(picture()[:, :, ::-1]).convert(mode)
    assert by_name(colors(image)) == EXPECTED


@pytest.mark.parametrize("mode", ["L", "I;16"])
def test_pil__grey_equals_the_file_by_opencv(mode, tmp_path):
    values = np.arange(0, 65536, 97, dtype=np.uint16).reshape(26, 26)
    grey = values if mode == "I;16" else (values >> 8).astype(np.uint8)
    PIL.Image.fromarray(grey).save(tmp_path / "grey.png")
    with PIL.Image.open(tmp_path / "grey.png") as image:
        assert image.mode == mode
        found = read_image(image)
    assert found[25, 25].tolist() == [65475 >> 8] * 3
    assert np.array_equal(found, read_image(tmp_path / "grey.png"))


@pytest.mark.parametrize("suffix", ["png", "jpg"])
@pytest.mark.parametrize("orientation", [3, 6])
def test_exif__images_stand_upright(colors, tmp_path, suffix, orientation):
    """Tag 3: stored upside down. Tag 6: stored turned by 90 degrees to the left."""
    upright = PIL.Image.fromarray(picture()[:, :, ::-1])
    exif = PIL.Image.Exif()
    exif[ORIENTATION] = orientation
    path = tmp_path / f"photo.{suffix}"
    upright.rotate({3: 180, 6: 90}[orientation], expand=True).save(path, exif=exif, quality=95)
    with PIL.Image.open(path) as image:
        assert image.size == {3: (192, 128), 6: (128, 192)}[orientation]
        found = colors([path, image])
    assert [by_name(f) for f in found] == [EXPECTED] * 2
    assert equal(*found)


def test_call__thresholds_the_score(colors):
    image = picture()
    image[:64, :64, 0] = 150  # score of blue: sigmoid(2.2) = 0.900
    assert by_name(colors(image, conf=0.89)) == EXPECTED
    assert list(by_name(colors(image, conf=0.91))) == ["red"]
    assert [len(found) for found in colors([image, image], conf=0.91)] == [1, 1]
    with pytest.raises(UserError, match="batch_size is 0: give at least 1"):
        colors([image], batch_size=0)


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    small = np.random.default_rng(seed).integers(0, 256, (-(-height // 8), -(-width // 8), 3), dtype=np.uint8)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)


SIZES = [(64, 96), (96, 64), (50, 111), (64, 96), (7, 90)]


def tiny(exp: DetectorExp, **changes: Any) -> LoadedDetector:
    """A small network with random weights, its classifier's enlarged so that scores differ."""
    for name, value in {"num_classes": 5, "prior_prob": 0.1, **changes}.items():
        setattr(exp, name, value)
    torch.manual_seed(0)
    model = exp.get_model()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "cls_pred" in name and name.endswith("weight"):
                parameter.copy_(torch.randn_like(parameter) * 0.5)
    return LoadedDetector(model.eval(), exp, tuple("abcde"), "cpu")


def tiny_yolox() -> LoadedDetector:
    """Its batch norms hold the statistics of such images; untrained they would let nothing through."""
    detector = tiny(YOLOXStarExp(), depth=0.33, width=0.125, test_size=(64, 96))
    items = [detector.exp.get_eval_transform()(noise(*size, seed)) for seed, size in enumerate(SIZES)]
    for module in detector.model.train().modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        detector.model(detector.exp.get_collate()(items).images.float())
    detector.model.eval()
    return detector


def tiny_yolox_float64() -> LoadedDetector:
    """Free of float32 rounding, which depends on the size of a batch and which random layers magnify."""
    detector = tiny_yolox()
    model = detector.model.double()
    return LoadedDetector(lambda images: model(images.double()), detector.exp, tuple("abcde"), "cpu")


def tiny_resnet() -> LoadedDetector:
    return tiny(ResNetExp(), resnet_depth=18, fpn_channels=32, test_size=(64, 96))


@pytest.mark.parametrize("make", [tiny_yolox_float64, tiny_resnet])
@pytest.mark.parametrize("batch_size", [2, 16])
def test_list__gives_what_single_images_give(make, batch_size):
    detector = make()
    images = [noise(*size, seed) for seed, size in enumerate(SIZES)]
    found = detector(images, conf=0, batch_size=batch_size)
    assert len(found) == len(images)
    for one, image in zip(found, images):
        alone = detector(image, conf=0)
        assert len(one) == len(alone) >= 50
        torch.testing.assert_close(one.scores, alone.scores, atol=1e-4, rtol=0)
        same = (one.boxes[:, None] - alone.boxes).abs().amax(dim=2) < 1e-2  # [K, 1, 4] - [K, 4] -> [K, K]
        same &= (one.scores[:, None] - alone.scores).abs() < 1e-4
        same &= one.labels[:, None] == alone.labels
        assert same[:20].any(dim=1).all()


def test_list__resnet_images_of_different_sizes_do_not_touch_each_other():
    """A batch padded to a common size would differ by far more than rounding: group norm sees the padding."""
    detector = tiny_resnet()
    wide, tall = noise(50, 111), noise(96, 64)
    assert all(
        equal(a, b) for a, b in zip(detector([wide, tall], conf=0), [detector(wide, conf=0), detector(tall, conf=0)])
    )


def test_threads__four_give_what_one_gives():
    detector = tiny_yolox()
    images = [noise(*SIZES[k % 5], seed=k) for k in range(12)]
    alone = [detector(image, conf=0.1 * (k % 3)) for k, image in enumerate(images)]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda k: detector(images[k], conf=0.1 * (k % 3)), range(12)))
    assert all(equal(a, b) for a, b in zip(alone, together))


def some() -> Detections:
    boxes = torch.tensor([[40.0, 50, 120, 160], [10.123, 20.456, 30.789, 40]])
    return Detections(boxes, torch.tensor([0.91, 0.3333333]), torch.tensor([2, 0]), ("Bär", "cat", "dog"))


def test_to_json__by_hand():
    expected = [
        {"name": "dog", "label": 2, "score": 0.91, "box": [40, 50, 120, 160]},
        {"name": "Bär", "label": 0, "score": 0.33333, "box": [10.12, 20.46, 30.79, 40]},
    ]
    found = some()
    assert json.loads(found.to_json()) == expected == found.to_list()
    assert "Bär" in found.to_json()
    assert len(found) == 2
    found.names = ()
    assert [row["name"] for row in found.to_list()] == ["2", "0"]
    nothing = Detections(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.int64))
    assert nothing.to_json() == "[]"


def test_draw__frames_where_the_boxes_are(tmp_path):
    image = np.zeros((400, 500, 3), np.uint8)
    drawn = some().draw(image)
    assert (drawn.dtype, drawn.shape) == (np.uint8, (400, 500, 3))
    assert drawn[160, 80].tolist() == list(color_of(2))  # lower edge
    assert drawn[100, 120].tolist() == list(color_of(2))  # right edge
    assert drawn[40, 20].tolist() == list(color_of(0))
    assert not drawn[70:150, 60:110].any()  # inside
    assert not drawn[180:].any()
    assert not image.any()
    cv2.imwrite(str(tmp_path / "black.png"), image)
    for form in (tmp_path / "black.png", PIL.Image.fromarray(image)):
        assert np.array_equal(some().draw(form), drawn)


def test_draw__keeps_the_size_of_the_image():
    drawn = some().draw(np.zeros((100, 180, 3), np.uint8))
    assert drawn.shape == (100, 180, 3)
    assert drawn[75, 120].tolist() == list(color_of(2))


def saved(path: Path, detector: LoadedDetector, ema: dict[str, Tensor] | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {
        "model": detector.model.state_dict(),
        "ema": {"model": ema} if ema else None,
        "exp": plain(detector.exp.attributes()),
        "family": detector.exp.family,
        "names": list(detector.names),
        "category_ids": [1, 2, 3, 4, 5],
        "epoch": 1,
    }
    save_checkpoint(path, content)
    return path


def test_load__needs_nothing_but_the_file_wherever_it_is_called(tmp_path):
    """The lines of the README, in a process of their own in another working directory."""
    detector = tiny_yolox()
    saved(tmp_path / "YOLOX_outputs/eqfl/best.pth", detector)
    cv2.imwrite(str(tmp_path / "photo.png"), noise(50, 111, seed=2))
    lines = """
import yolox_lt
detector = yolox_lt.load("YOLOX_outputs/eqfl/best.pth", device="cpu")
found = detector("photo.png", conf=0.3)
for box, score, label in zip(found.boxes, found.scores, found.labels):
    print(found.names[label], float(score), box.tolist())
"""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", lines]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    rows = [line.split(" ", 2) for line in done.stdout.splitlines()]
    here = detector(noise(50, 111, seed=2), conf=0.3)
    assert len(rows) == len(here) > 0
    np.testing.assert_allclose([float(score) for _, score, _ in rows], here.scores, atol=1e-5)
    assert rows[0][0] == here.names[here.labels[0]]
    np.testing.assert_allclose(json.loads(rows[0][2]), here.boxes[0], atol=1e-3)


@pytest.mark.parametrize("make", [tiny_yolox, tiny_resnet])
def test_load__gives_the_detector_back_with_its_averaged_weights(make, tmp_path):
    detector = make()
    state = {name: tensor.clone() for name, tensor in detector.model.state_dict().items()}
    image = noise(50, 111)
    again = yolox_lt.load(saved(tmp_path / "plain.pth", detector))
    assert (again.names, again.exp.test_size, again.device.type) == (detector.names, (64, 96), "cpu")
    torch.testing.assert_close(again(image, conf=0).scores, detector(image, conf=0).scores, atol=1e-5, rtol=0)
    with torch.no_grad():
        for parameter in detector.model.parameters():
            parameter.zero_()
    averaged = yolox_lt.load(saved(tmp_path / "averaged.pth", detector, ema=state))
    assert equal(averaged(image, conf=0), again(image, conf=0))


def test_load__says_how_to_convert_official_and_released_files(golden, tmp_path):
    path = tmp_path / "yolox_nano.pth"
    torch.save({"model": official(golden, "nano"), "best_ap": np.float64(0.25)}, path)
    with pytest.raises(UserError, match=rf"{path}: official YOLOX, .*python tools/convert\.py {path} NEW\.pth"):
        yolox_lt.load(path)
    torch.save({"ema": {"ema_state_dict": released(golden, "yolox_s")}}, path)
    with pytest.raises(UserError, match=r"released EFL/EQFL YOLOX, .*tools/convert\.py"):
        read_checkpoint(path)


def test_load__other_files_keep_their_own_error(tmp_path):
    path = tmp_path / "x.pth"
    with pytest.raises(UserError, match="checkpoint not found"):
        yolox_lt.load(path)
    path.write_bytes(b"hello")
    with pytest.raises(UserError, match="not a readable checkpoint of this project"):
        yolox_lt.load(path)
    torch.save({"state_dict": {"layer1.0.conv1.weight": torch.zeros(1)}}, path)
    with pytest.raises(UserError, match="holds no model and settings"):
        yolox_lt.load(path)
    save_checkpoint(path, {"model": {"a": torch.zeros(1)}, "exp": {}, "family": "future", "names": []})
    with pytest.raises(UserError, match="'future' model"):
        yolox_lt.load(path)


@pytest.mark.parametrize(("device", "message"), [("cuda:99", "CUDA GPU"), ("pentium", "is unknown; give 'cpu'")])
def test_load__refuses_a_device_that_is_not_there(tmp_path, device, message):
    with pytest.raises(UserError, match=message):
        yolox_lt.load(tmp_path / "x.pth", device)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((4, 4, 3), np.float32), r"uint8 \[H, W, 3\] BGR, got float32 \[4, 4, 3\]"),
        (np.zeros((4, 4), np.uint8), r"got uint8 \[4, 4\]"),
        (np.zeros((2, 4, 4, 3), np.uint8), r"got uint8 \[2, 4, 4, 3\]"),
        (np.zeros((0, 4, 3), np.uint8), r"got uint8 \[0, 4, 3\]"),
        (torch.zeros(3, 4, 4), "got Tensor"),
        (None, "got NoneType"),
        ("nowhere.jpg", "nowhere.jpg: image file not found"),
        (ROOT / "LICENSE", "LICENSE: not a readable image"),
        (PIL.Image.new("F", (4, 4)), "mode F: its range is not defined"),
    ],
)
def test_call__says_what_an_image_is(colors, image, message):
    for images in (image, [picture(), image]):
        with pytest.raises(UserError, match=message):
            colors(images)


def test_call__pil_file_that_is_cut_off(colors, tmp_path):
    PIL.Image.fromarray(noise(64, 96)).save(tmp_path / "a.jpg")
    (tmp_path / "b.jpg").write_bytes((tmp_path / "a.jpg").read_bytes()[:-800])
    with PIL.Image.open(tmp_path / "b.jpg") as image, pytest.raises(UserError, match="PIL image could not be read"):
        colors(image)
