"""Settings chosen from the data: worked by hand."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest

from yolox_lt.data.annotations.index import AnnotationIndex
from yolox_lt.data.dataset import ImageStore
from yolox_lt.data.image_file import BadImageError
from yolox_lt.exp.choices import (
    MODELS,
    Choice,
    DataFacts,
    choose,
    data_facts,
    default_iterations,
    input_size,
    mosaic,
    white_share,
)

MUSIC = DataFacts(
    images=1193, categories=109, boxes=104052, empty=0, height=416, width=416, object_side=13, rare=42, fewest=2
)


def values(facts: DataFacts, steps: int = 1000, batch: int = 8) -> dict[str, object]:
    found = choose(facts, Choice("iterations", steps, "given"), batch, "yolox-nano")
    assert len({c.name for c in found}) == len(found)
    return {c.name: c.value for c in found}


def test_facts__of_three_images():
    index = AnnotationIndex.load(
        {
            "images": [{"id": i, "width": 40 * i, "height": 20, "file_name": f"{i}.jpg"} for i in (1, 2, 3)],
            "categories": [{"id": 1, "name": "ant"}, {"id": 2, "name": "bee"}, {"id": 3, "name": "cow"}],
            "annotations": [
                {"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 4, 9]},
                {"id": 2, "image_id": 3, "category_id": 1, "bbox": [0, 0, 2, 8]},
                {"id": 3, "image_id": 3, "category_id": 2, "bbox": [0, 0, 16, 4]},
                {"id": 4, "image_id": 2, "category_id": 2, "bbox": [0, 0, 16, 4], "iscrowd": 1},
            ],
        }
    )
    # Sides 6, 4, 8; image 2 has a crowd region alone; the third category has no image at all.
    assert data_facts(index) == DataFacts(3, 3, 3, 1, 20.0, 80.0, 6.0, 1, 1)


@pytest.mark.parametrize(
    ("height", "width", "object_side", "size"),
    [
        (416, 416, 13, (640, 640)),  # 416 * 20 / 13 = 640
        (480, 640, 100, (320, 416)),  # legible at any size: 416 on the long side, 312 -> 320 on the other
        (128, 128, 25, (256, 256)),  # small images are doubled at most
        (300, 300, 60, (416, 416)),  # and reach the size of the weights' own training
        (128, 128, 5, (256, 256)),  # at most twice the image
        (3000, 2000, 15, (960, 640)),  # at most 960
    ],
)
def test_input_size__follows_the_objects(height, width, object_side, size):
    facts = replace(MUSIC, height=height, width=width, object_side=object_side)
    assert input_size(facts).value == size


def test_choices__of_music():
    found = values(MUSIC)
    assert (found["epoch_iters"], found["max_epoch"]) == (100, 10)
    assert found["basic_lr_per_img"] == 0.0005  # 0.004 / 8
    assert found["ema_decay"] == 0.995  # 1 - 1 / (1000 / 5)
    assert (found["sampler"], found["mosaic_prob"]) == ("repeat_factor", 0.0)  # 13 pixels become 20
    assert values(MUSIC, batch=32)["basic_lr_per_img"] == 0.00025  # 0.004 * 2 / 32
    assert values(replace(MUSIC, rare=0))["sampler"] == "uniform"
    large = replace(MUSIC, object_side=100.0)
    assert values(large, steps=1500)["mosaic_prob"] == 0.5  # 1500 * 8 / 1193 = 10.06 passes
    assert values(large, steps=1490)["mosaic_prob"] == 0.0  # 9.99
    assert values(replace(MUSIC, categories=1203))["prior_prob"] == 0.01
    given = {c.name: c.value for c in choose(MUSIC, Choice("iterations", 1500, ""), 8, "yolox-s", (1280, 1280))}
    assert (given["input_size"], given["test_size"]) == ((1280, 1280), (1280, 1280))
    assert given["mosaic_prob"] == 0.5  # 13 pixels become 40


@pytest.mark.parametrize(
    ("seen", "passes", "value", "figure"),
    [(31.0, 50.0, 0.0, "31 input pixels"), (40.0, 7.2, 0.0, "7.2 passes"), (40.0, 12.0, 0.5, "12 times")],
)
def test_mosaic__needs_large_objects_and_many_passes(seen, passes, value, figure):
    choice = mosaic(seen, passes)
    assert choice.value == value
    assert figure in choice.reason


def test_flips__are_off_for_pages(tmp_path):
    """White in all, in three quarters and in a fifth; a yellow quarter is not white."""
    parts = {1: (1.0, 255), 2: (1.0, 230), 3: (0.2, 255)}
    for number, (share, level) in parts.items():
        image = np.zeros((8, 20, 3), np.uint8)
        image[:, : int(20 * share)] = level
        image[:, 15:, 0] = np.minimum(image[:, 15:, 0], 200) if number == 2 else image[:, 15:, 0]
        cv2.imwrite(str(tmp_path / f"{number}.png"), image)
    images = [{"id": i, "width": 20, "height": 8, "file_name": f"{i}.png"} for i in parts]
    box = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 4, 4]}
    index = AnnotationIndex.load({"images": images, "categories": [{"id": 1, "name": "ant"}], "annotations": [box]})
    store = ImageStore(index, tmp_path)
    assert white_share(store) == 0.75  # of 1, 0.75 (a quarter is yellow) and 0.2
    assert values(data_facts(index, 0.75))["flip_prob"] == 0.0
    assert values(data_facts(index, 0.2))["flip_prob"] == 0.5
    (tmp_path / "2.png").unlink()
    with pytest.raises(BadImageError):
        white_share(store)
    assert white_share(store, skip_bad_images=True) == pytest.approx((1.0 + 0.2) / 2)


def test_length__of_a_short_run_and_without_a_budget():
    found = values(MUSIC, steps=3)
    assert (found["epoch_iters"], found["max_epoch"]) == (1, 3)
    assert default_iterations(MUSIC, 8).value == 4474  # 30 * 1193 / 8
    assert default_iterations(replace(MUSIC, images=100), 8).value == 1500
    assert default_iterations(replace(MUSIC, images=10**6), 8).value == 30_000


def test_reasons__hold_the_figures():
    reasons = {c.name: c.reason for c in choose(MUSIC, default_iterations(MUSIC, 8), 8, "yolox-nano")}
    assert "13 pixels" in reasons["input_size"]
    assert "gets 20" in reasons["input_size"]
    assert "42 of 109" in reasons["sampler"]
    assert "in 2" in reasons["sampler"]
    assert "4,470 iterations" in reasons["epoch_iters"]
    assert "30 passes" in reasons["epoch_iters"]
    assert "0 of 1,193" in reasons["keep_empty"]


def test_models__are_the_stock_ones():
    from yolox_lt.exp import get_exp

    for name, settings in MODELS.items():
        stock = get_exp(name=name)
        assert {k: getattr(stock, k) for k in ("depth", "width", "depthwise")} == {"depthwise": False} | settings, name


def test_small_objects__are_said_below_one_cell():
    aerial = replace(MUSIC, height=3000, width=2000, object_side=15)
    reasons = {}
    for side in (15, 25):
        chosen = choose(replace(aerial, object_side=side), Choice("iterations", 10, ""), 8, "yolox-nano")
        reasons[side] = next(c.reason for c in chosen if c.name == "input_size")
    assert "5 is less than a cell of 8 pixels: cut the images into tiles" in reasons[15]  # 15 * 960 / 3000 = 4.8
    assert "tiles" not in reasons[25]  # exactly 8
