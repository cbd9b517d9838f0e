"""NMS inside a traced network, and the measure of how far two lists of detections are apart."""

from __future__ import annotations

import io
import warnings
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

from yolox_lt.coders import DeltaCoder
from yolox_lt.errors import UserError
from yolox_lt.export.compare import Difference, check, detection_difference, random_images
from yolox_lt.export.metadata import Metadata
from yolox_lt.predict import Predictor
from yolox_lt.predict.nms import category_nms
from yolox_lt.predict.traced import best_first, keep_mask
from yolox_lt.types import Detections

CATEGORIES = 1203


def candidates():
    """Two images with 200 candidates of four categories, one of them the last; some are none, some have no width."""
    generator = torch.Generator().manual_seed(0)
    corner = torch.rand(2, 200, 2, generator=generator) * 60
    side = torch.rand(2, 200, 2, generator=generator) * 50
    side[:, ::20, 0] = -0.5  # in the +1 pixel convention a box may end before it begins, and is half a pixel wide
    labels = torch.tensor([0, 1, 700, 1202])[torch.randint(4, (2, 200), generator=generator)]
    for values in (corner, side, labels):
        values[:, 10::20] = values[:, ::20]  # such boxes twice: without an area they do not overlap
    scores = torch.rand(2, 200, generator=generator)
    scores[:, 190:] = -1
    return torch.cat([corner, corner + side], dim=2), scores, labels


def expected(boxes, scores, labels):
    masks = []
    for b in range(len(boxes)):
        rows = (scores[b] >= 0).nonzero().squeeze(1)
        kept = category_nms(boxes[b][rows], scores[b][rows], labels[b][rows], 0.3)
        masks.append(torch.zeros(len(boxes[b]), dtype=torch.bool).index_fill(0, rows[kept], True))
    return torch.stack(masks)


def test_keep_mask__equals_category_nms_image_by_image():
    want = expected(*candidates())
    assert 50 < want.sum() < 300
    assert torch.equal(keep_mask(*candidates(), CATEGORIES, 0.3, 300), want)


def test_keep_mask__of_onnx_equals_category_nms():
    class Keep(nn.Module):
        def forward(self, boxes, scores, labels):
            return keep_mask(boxes, scores, labels, CATEGORIES, 0.3, 300)

    file, names = io.BytesIO(), ["boxes", "scores", "labels"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(Keep(), candidates(), file, dynamo=False, opset_version=17, input_names=names)
    session = onnxruntime.InferenceSession(file.getvalue())
    (kept,) = session.run(None, {name: tensor.numpy() for name, tensor in zip(names, candidates())})
    np.testing.assert_array_equal(kept, expected(*candidates()).numpy())


def test_keep_mask__nothing_to_keep():
    boxes, scores, labels = candidates()
    assert not keep_mask(boxes, torch.full_like(scores, -1), labels, CATEGORIES, 0.3, 300).any()


def test_best_first__in_order_and_filled_up():
    boxes = torch.arange(12.0).reshape(1, 3, 4)
    rows = best_first(boxes, torch.tensor([[0.2, -1.0, 0.9]]), torch.tensor([[4, 5, 6]]), 4)
    assert rows[0].tolist() == [[[8, 9, 10, 11], [0, 1, 2, 3], [0] * 4, [0] * 4]]
    torch.testing.assert_close(rows[1], torch.tensor([[0.9, 0.2, 0.0, 0.0]]))
    assert rows[2].tolist() == [[6, 4, -1, -1]]
    assert rows[3].tolist() == [2]


def detections(*rows):
    """Rows of (x of a box of 10 x 10 pixels, score, label)."""
    boxes = torch.tensor([[x, 0.0, x + 10, 10] for x, _, _ in rows]).reshape(-1, 4)
    return Detections(boxes, torch.tensor([r[1] for r in rows]), torch.tensor([r[2] for r in rows], dtype=torch.int64))


@pytest.mark.parametrize(
    ("found", "boxes", "scores"),
    [
        ([(0, 0.9, 1), (20, 0.5, 1)], 0, 0),
        ([(0.25, 0.8, 1), (20, 0.5, 1)], 0.25, 0.1),
        ([(20, 0.9, 1), (0, 0.5, 1)], 0, 0.4),  # scores exchanged
        ([(0, 0.9, 2), (20, 0.5, 1)], 0, 0.9),  # another category: one is missing, one is too many
        ([(0, 0.9, 1)], 0, 0.5),  # missing
        ([(0, 0.9, 1), (22, 0.45, 1)], 0, 0.05),  # a neighbour that overlaps and is nearly as good in its place
        ([(0, 0.9, 1), (40, 0.45, 1)], 0, 0.5),  # nothing overlaps: one is missing, one is too many
        ([], 0, 0.9),
        ([(0, float("nan"), 1), (20, 0.5, 1)], 0, float("nan")),
    ],
)
def test_detection_difference__by_hand(found, boxes, scores):
    want = detections((0, 0.9, 1), (20, 0.5, 1))
    got = detection_difference(detections(*found), want, Predictor(DeltaCoder(), nms_threshold=0.5))
    assert got == pytest.approx((boxes, scores), nan_ok=True)


def test_detection_difference__what_a_full_list_cuts_off_is_measured_from_its_last_score():
    predictor = Predictor(DeltaCoder(), nms_threshold=0.5, max_detections=2)
    want = detections((0, 0.9, 1), (20, 0.5, 1))
    assert detection_difference(detections((0, 0.9, 1), (40, 0.52, 1)), want, predictor) == pytest.approx((0, 0.02))


@pytest.mark.parametrize(
    ("difference", "allowed"),
    [
        (Difference(1e-3, 1e-4, 1), True),
        (Difference(2e-3, 0, 1), False),
        (Difference(0, 2e-4, 1), False),
        (Difference(float("nan"), 0, 1), False),
        (Difference(0, float("nan"), 1, (1.0, 1.0)), False),
        (Difference(2e-3, 0, 1, (2.1e-4, 0.0)), True),  # rounding explains it
        (Difference(2e-3, 0, 1, (1.9e-4, 0.0)), False),
        (Difference(0, 3e-4, 1, (0.0, 1e-4)), True),
    ],
)
def test_check__limits(difference, allowed):
    assert difference.allowed() is allowed
    if not allowed:
        with pytest.raises(UserError, match=r"a\.onnx: not written, .* where 0\.001 px and 0\.0001 are allowed"):
            check(difference, Path("a.onnx"))


def test_random_images__same_every_time_and_wide():
    first, second = random_images(2), random_images(2)
    assert all(np.array_equal(a, b) for a, b in zip(first, second))
    assert all(image.shape[1] > image.shape[0] and image.std() > 20 for image in first)


def test_metadata__strings_and_back():
    metadata = Metadata(
        **{"family": "yolox", "settings": {"width": 0.5, "seed": None}, "names": ("a", "é"), "input": "x"},
        **{"outputs": "y", "size": (64, 96), "size_divisor": 32, "batch": None, "needs_image_sizes": False},
        **{"nms": True, "thresholds": {"clip": None}, "strides": [8], "anchors": [[[-4.0, -4.0, 4.0, 4.0]]]},
        **{"legacy": False, "box_code": {"name": "DeltaCoder"}},
    )
    strings = metadata.to_strings()
    assert Metadata.from_strings({**strings, "other": "{"}, "file") == metadata
    with pytest.raises(UserError, match=r"^file: written by a newer version .*\(format 2\); update$"):
        Metadata.from_strings({**strings, "format_version": "2"}, "file")
    for broken in ({}, {**strings, "names": "["}, {k: v for k, v in strings.items() if k != "strides"}):
        with pytest.raises(UserError, match=r"^file: holds no metadata of this project"):
            Metadata.from_strings(broken, "file")
