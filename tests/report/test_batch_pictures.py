"""Pictures of batches and predictions: what is where, in pixels."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from yolox_lt.data.annotations.index import AnnotationIndex
from yolox_lt.data.collate import Collate, Item
from yolox_lt.data.dataset import ImageStore
from yolox_lt.errors import UserError
from yolox_lt.render import color_of
from yolox_lt.report.data.batch_images import (
    CELL,
    GAP,
    best_of_place,
    render_samples,
    render_train_batch,
    render_val_pairs,
)
from yolox_lt.types import Batch, Detections

BAR = 22  # pixels of a cell's title
NAMES = ("cat", "dog", "eel")


def item(grey: int, boxes: list[list[float]], labels: list[int], image_id: int = 0) -> Item:
    """An image of 64 x 96 pixels."""
    image = np.full((64, 96, 3), grey, np.uint8)
    return Item(image, np.array(boxes, np.float32).reshape(-1, 4), np.array(labels), image_id, (64, 96), (64, 96))


def batch_of(*items: Item) -> Batch:
    return Collate()(list(items))


def columns_of(row: np.ndarray, color: tuple[int, int, int]) -> tuple[int, int]:
    """First and last pixel of a colour in a row of pixels [W, 3]."""
    found = np.flatnonzero((row == color).all(axis=1))
    return int(found[0]), int(found[-1])


def test_train_batch__images_in_their_order_and_boxes_in_their_colours(tmp_path):
    greys = [10, 60, 110, 160, 210]
    batch = batch_of(*(item(g, [[24, 16, 72, 48]], [n % 3], n) for n, g in enumerate(greys)))
    sheet = render_train_batch(batch, NAMES, tmp_path / "batch.jpg")
    factor = CELL / 96
    height = BAR + round(64 * factor) + GAP
    assert sheet.shape == (2 * height, 3 * (CELL + GAP), 3)  # 5 images: 3 columns, 2 rows
    for n, grey in enumerate(greys):
        y, x = (n // 3) * height + BAR, (n % 3) * (CELL + GAP)
        middle = sheet[y + round(32 * factor), x : x + CELL]
        assert middle[5].tolist() == [grey] * 3
        left, right = columns_of(middle, color_of(n % 3))
        assert (left, right) == (pytest.approx(24 * factor, abs=1), pytest.approx(72 * factor, abs=1))
    assert (sheet[height + BAR + 5 :, 2 * (CELL + GAP) :] == 255).all()  # no sixth image
    written = cv2.imread(str(tmp_path / "batch.jpg"))
    assert np.abs(written.astype(int) - sheet).mean() < 3


def test_train_batch__is_a_view_of_bgr_channels(tmp_path):
    first = item(0, [], [])
    first.image[:] = (200, 100, 50)
    sheet = render_train_batch(batch_of(first), NAMES, tmp_path / "batch.jpg")
    assert sheet[BAR + 30, 30].tolist() == [200, 100, 50]


def test_train_batch__shows_at_most_the_limit_and_images_without_boxes(tmp_path):
    batch = batch_of(*(item(100, [], []) for _ in range(5)))
    assert render_train_batch(batch, NAMES, tmp_path / "b.jpg", limit=2).shape[1] == 2 * (CELL + GAP)


def test_train_batch__a_folder_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(UserError, match="image could not be written"):
        render_train_batch(batch_of(item(0, [], [])), NAMES, tmp_path / "no/batch.jpg")


def detections(boxes: list[list[float]], scores: list[float], labels: list[int]) -> Detections:
    return Detections(torch.tensor(boxes).reshape(-1, 4), torch.tensor(scores), torch.tensor(labels), NAMES)


def test_val_pairs__truth_left_prediction_right(tmp_path):
    image = np.full((240, 480, 3), 90, np.uint8)
    truth = (np.array([[40.0, 40, 200, 200]]), np.array([0]))
    found = detections([[80, 40, 240, 200], [300, 40, 400, 200]], [0.9, 0.2], [1, 2])
    nothing = (np.zeros((0, 4)), np.zeros(0, np.int64)), detections([], [], [])
    sheet = render_val_pairs([image, image], [truth, nothing[0]], [found, nothing[1]], NAMES, tmp_path / "val.jpg")
    height = BAR + 240 + GAP
    assert sheet.shape == (2 * height, 2 * (CELL + GAP), 3)
    middle = sheet[BAR + 120]
    assert columns_of(middle[:CELL], color_of(0)) == (pytest.approx(40, abs=1), pytest.approx(200, abs=1))
    right = middle[CELL + GAP :]
    assert columns_of(right, color_of(1)) == (pytest.approx(80, abs=1), pytest.approx(240, abs=1))
    assert not (right == color_of(2)).all(axis=1).any()  # below the threshold
    assert not (middle[:CELL] == color_of(1)).all(axis=1).any()
    assert (sheet[height + BAR : height + BAR + 240, :CELL] == 90).all()


def test_val_pairs__show_the_best_where_none_has_the_score(tmp_path):
    image = np.full((240, 480, 3), 90, np.uint8)
    rows = [[40 * i, 40, 40 * i + 20, 60] for i in range(8)]
    found = detections(rows, [0.01 * (8 - i) for i in range(8)], list(range(8)))
    truth = [(np.zeros((0, 4)), np.zeros(0, np.int64))]
    sheet = render_val_pairs([image], truth, [found], "abcdefgh", tmp_path / "val.jpg")
    right = sheet[BAR:, CELL + GAP :].reshape(-1, 3)
    assert [bool((right == color_of(label)).all(axis=1).any()) for label in range(8)] == [True] * 5 + [False] * 3


def test_best_of_place__by_hand():
    """Boxes of 10 pixels: the second lies 1 px (IoU 9/11) beside the first, the third 5 px (IoU 1/3)."""
    boxes = np.array([[0.0, 0, 10, 10], [1, 0, 11, 10], [5, 0, 15, 10], [40, 40, 50, 50]])
    assert best_of_place(boxes, np.array([0.5, 0.9, 0.4, 0.1]), 0.3) == [1, 2]
    assert best_of_place(boxes, np.array([0.5, 0.9, 0.4, 0.1]), 0.0) == [1, 2, 3]
    assert best_of_place(boxes, np.array([0.5, 0.9, 0.4, 0.1]), 0.0, most=2) == [1, 2]
    assert best_of_place(np.zeros((0, 4)), np.zeros(0), 0.0) == []


def test_samples__pass_over_files_that_cannot_be_read(tmp_path):
    content = {
        "images": [{"id": 7 + i, "width": 500, "height": 400, "file_name": f"{i}.png"} for i in range(4)],
        "categories": [{"id": 1, "name": "cat"}],
        "annotations": [{"image_id": 7, "category_id": 1, "bbox": [100, 100, 200, 200], "area": 4e4}],
    }
    store = ImageStore(AnnotationIndex.load(content), tmp_path)
    for i in (0, 2, 3):
        cv2.imwrite(str(tmp_path / f"{i}.png"), np.full((400, 500, 3), 20 * i, np.uint8))
    paths = render_samples(store, np.arange(4), tmp_path, 9)
    assert {p.name for p in paths} == {"labels_7.jpg", "labels_9.jpg", "labels_10.jpg"}
    picture = cv2.imread(str(tmp_path / "labels_7.jpg"))
    assert np.abs(picture[200, 100].astype(int) - color_of(0)).max() < 40  # the box's left side
    assert picture[200, 200].max() < 10
    assert len(render_samples(store, np.arange(4), tmp_path, 2)) == 2
