"""A run on photographs whose EXIF says that they lie on their side: the same as on the images stored upright."""

from __future__ import annotations

import json

import cv2
import numpy as np
import torch
from PIL import Image

import yolox_lt
from yolox_lt.checkpoint import load_checkpoint
from yolox_lt.commands import main
from yolox_lt.exp import YOLOXStarExp

HEIGHT, WIDTH, COUNT = 64, 40, 8


def write_sets(folder):
    """turned/: JPEG with EXIF 6, 40 pixels high; upright/: what it shows, as PNG. A red or a green square in each."""
    rng = np.random.default_rng(0)
    images, boxes = {"turned": [], "upright": []}, []
    exif = Image.Exif()
    exif[0x0112] = 6
    for name in images:
        (folder / name / "images").mkdir(parents=True)
    for number in range(1, COUNT + 1):
        x, y, side, label = (int(rng.integers(*bounds)) for bounds in ((0, 16), (0, 40), (12, 24), (0, 2)))
        shown = rng.integers(0, 60, (HEIGHT, WIDTH, 3), dtype=np.uint8)
        shown[y : y + side, x : x + side, label] = 250
        boxes.append({"id": number, "image_id": number, "category_id": label + 1, "bbox": [x, y, side, side]})
        stored = Image.fromarray(np.ascontiguousarray(np.rot90(shown)))
        stored.save(folder / f"turned/images/{number}.jpg", exif=exif, quality=95)
        stored.save(folder / "plain.jpg", quality=95)
        upright = np.ascontiguousarray(np.rot90(cv2.imread(str(folder / "plain.jpg")), -1))
        cv2.imwrite(str(folder / f"upright/images/{number}.png"), upright)
        for name, suffix in (("turned", "jpg"), ("upright", "png")):
            entry = {"id": number, "file_name": f"{number}.{suffix}", "height": HEIGHT, "width": WIDTH}
            images[name].append(entry)
    categories = [{"id": 1, "name": "red"}, {"id": 2, "name": "green"}]
    for name, entries in images.items():
        content = {"images": entries, "annotations": boxes, "categories": categories}
        (folder / name / "all.json").write_text(json.dumps(content))


def train(folder, name):
    exp = YOLOXStarExp()
    exp.exp_name, exp.output_dir, exp.data_dir, exp.seed = name, str(folder), str(folder / name), 0
    exp.train_ann = exp.val_ann = "all.json"
    exp.train_images = exp.val_images = None
    exp.depth, exp.width, exp.input_size, exp.test_size, exp.multiscale_range = 0.33, 0.125, (64, 64), (64, 64), 0
    exp.optimizer, exp.basic_lr_per_img, exp.prior_prob, exp.ema_decay = "adamw", 0.002 / 4, 0.01, 0.9
    exp.mosaic_prob, exp.batch_size, exp.max_epoch, exp.max_iter, exp.data_num_workers = 0.0, 4, 3, 12, 0
    exp.epoch_iters, exp.warmup_epochs, exp.no_aug_epochs, exp.eval_interval = 12, 0, 1, 3
    exp.get_trainer().train()
    return folder / name / "latest.pth"


def test_run__on_turned_images_is_the_run_on_upright_ones(tmp_path):
    """Weights and AP of the training, AP of eval and what the API finds in the files."""
    write_sets(tmp_path)
    paths = {name: train(tmp_path, name) for name in ("turned", "upright")}
    contents = {name: load_checkpoint(path) for name, path in paths.items()}
    weights = [content["model"] for content in contents.values()]
    assert all(torch.equal(tensor, weights[1][name]) for name, tensor in weights[0].items())
    assert contents["turned"]["best"] == contents["upright"]["best"] > 0
    found = []
    for name, path in paths.items():
        table = tmp_path / f"{name}.csv"
        main(["eval", "-c", str(path), "-d", "1", "--device", "cpu", "-b", "4", "--csv", str(table)])
        image = next(iter(sorted((tmp_path / name / "images").iterdir())))
        found.append((table.read_text(), yolox_lt.load(path, device="cpu")(image, conf=0.0).to_list()))
    assert found[0] == found[1]
    assert len(found[0][1]) > 0
