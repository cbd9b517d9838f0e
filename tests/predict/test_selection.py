"""The predictor against a sort of all (prior, category) pairs and NMS by offset, on random and on hostile input."""

from __future__ import annotations

import pytest
import torch
from torchvision.ops import nms

from yolox_lt import boxes as box_ops
from yolox_lt.coders import DeltaCoder
from yolox_lt.models.priors import AnchorGrid
from yolox_lt.predict import Predictor
from yolox_lt.predict.nms import category_nms
from yolox_lt.predict.predictor import GROUP, largest
from yolox_lt.types import Predictions

SIZE = 64


def plain(predictor, predictions, priors):
    """Boxes, scores and labels of one image: every score, every pair sorted, boxes shifted by category in float64."""
    boxes = box_ops.clip(DeltaCoder().decode(priors.boxes, predictions.box_deltas[0]), (SIZE, SIZE))
    scores = predictions.cls_logits[0].float().sigmoid()
    if predictions.quality_logits is not None:
        scores = scores * predictions.quality_logits[0].sigmoid()[:, None]
    c = scores.shape[1]
    scores[((boxes[:, 2:] - boxes[:, :2]) <= 0).any(1)] = -1
    found, first = [], 0
    for level in scores.split(priors.level_sizes):
        limit = len(level) if predictor.pre_nms is None else min(predictor.pre_nms, len(level))
        if predictor.multi_label:
            ranked = level.flatten().sort(descending=True, stable=True)
            value, pair = ranked.values[:limit], ranked.indices[:limit]
        else:
            ranked = level.max(1).values.sort(descending=True, stable=True)
            value, pair = ranked.values[:limit], ranked.indices[:limit] * c + level.argmax(1)[ranked.indices[:limit]]
        keep = value >= max(predictor.score_threshold, 0)
        found.append((value[keep], pair[keep] + first * c))
        first += len(level)
    value, pair = (torch.cat(x) for x in zip(*found))
    order = value.sort(descending=True, stable=True).indices
    value, prior, label = value[order], pair[order] // c, pair[order] % c
    keep = nms(boxes[prior].double() + 4.0 * SIZE * label.double()[:, None], value.double(), predictor.nms_threshold)
    keep = keep[: predictor.max_detections]
    return boxes[prior[keep]], value[keep], label[keep]


def make_case(case):
    generator = torch.Generator().manual_seed(len(case))
    c = {"one category": 1, "1203 categories": 1203}.get(case, 40)
    strides = [8] if case == "one prior" else [8, 16, 32]
    sizes = [(1, 1)] if case == "one prior" else [(SIZE // s, SIZE // s) for s in strides]
    priors = AnchorGrid(strides, [3] if case == "one prior" else [3, 4])(sizes)
    n = len(priors.boxes)
    logits = torch.randn(1, n, c, generator=generator) * 2 - 4
    deltas = torch.randn(1, n, 4, generator=generator) * 0.2
    quality = torch.randn(1, n, generator=generator)
    if case == "many equal scores":
        logits, quality = logits.round(), torch.zeros_like(quality)
    elif case == "all scores equal":
        logits, quality = torch.full_like(logits, -4.6), torch.zeros_like(quality)
    elif case == "logits of +-100":
        logits = torch.randint(0, 2, logits.shape, generator=generator) * 200.0 - 100
    elif case == "all logits -100":
        logits[:] = -100
    elif case == "empty boxes":
        deltas[:, ::2, 0] = 500.0  # far outside: nothing is left after clipping
    elif case == "all boxes empty":
        deltas[..., 0] = 500.0
    elif case == "good priors are good in all categories":
        quality = quality * 8
    return Predictions(logits, deltas, quality), priors


CASES = [
    "random",
    "one category",
    "1203 categories",
    "one prior",
    "many equal scores",
    "all scores equal",
    "logits of +-100",
    "all logits -100",
    "empty boxes",
    "all boxes empty",
    "good priors are good in all categories",
]
OPTIONS = {
    "released": {"pre_nms": 20, "max_detections": 30},
    "more than there are": {"pre_nms": 1000, "max_detections": 3000},
    "no limit": {"pre_nms": None},
    "threshold": {"pre_nms": 50, "score_threshold": 0.05},
    "one label": {"pre_nms": None, "multi_label": False, "score_threshold": 0.01},
    "few of one label": {"pre_nms": 5, "multi_label": False},
}


def check(predictor, predictions, priors):
    size = torch.tensor([[SIZE, SIZE]])
    (found,) = predictor(predictions, priors, torch.ones(1, 2), size, size, (SIZE, SIZE))
    boxes, scores, labels = plain(predictor, predictions, priors)
    torch.testing.assert_close(found.scores, scores, rtol=0, atol=0)
    torch.testing.assert_close(found.labels, labels, rtol=0, atol=0)
    torch.testing.assert_close(found.boxes, boxes, rtol=0, atol=0)
    return found


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("case", CASES)
def test_all_pairs__same_detections(case, options):
    predictions, priors = make_case(case)
    found = check(Predictor(DeltaCoder(), **OPTIONS[options]), predictions, priors)
    assert (case == "all boxes empty") <= (len(found) == 0)


def test_all_pairs__without_quality():
    predictions, priors = make_case("random")
    predictions.quality_logits = None
    assert len(check(Predictor(DeltaCoder(), pre_nms=20, max_detections=30), predictions, priors)) == 30


@pytest.mark.parametrize("layout", ["bfloat16", "channels first", "every second column"])
def test_all_pairs__half_precision_and_other_memory(layout):
    predictions, priors = make_case("1203 categories")
    logits = predictions.cls_logits
    predictions.cls_logits = {
        "bfloat16": logits.bfloat16(),
        "channels first": logits.transpose(1, 2).contiguous().transpose(1, 2),
        "every second column": torch.stack([logits, -logits], 3)[..., 0],
    }[layout]
    assert len(check(Predictor(DeltaCoder(), pre_nms=100, max_detections=100), predictions, priors)) == 100


@pytest.mark.parametrize("values", ["distinct", "few", "equal", "descending"])
@pytest.mark.parametrize("n", [0, 1, GROUP - 1, 40 * GROUP, 40 * GROUP + 7])
@pytest.mark.parametrize("count", [1, 7, 100_000])
def test_largest__equals_a_stable_sort(values, n, count):
    generator = torch.Generator().manual_seed(n + count)
    x = {
        "distinct": torch.rand(n, generator=generator),
        "few": torch.randint(3, (n,), generator=generator).float(),
        "equal": torch.ones(n),
        "descending": -torch.arange(n).float(),
    }[values]
    assert largest(x, count).tolist() == sorted(range(n), key=lambda i: (-x[i].item(), i))[:count]


@pytest.mark.parametrize("limit", [0, 1, 5, 60, 1000])
def test_nms__a_limit_cuts_the_full_result(limit):
    generator = torch.Generator().manual_seed(0)
    xy = torch.rand(500, 2, generator=generator) * 50
    boxes = torch.cat([xy, xy + 20 + 20 * torch.rand(500, 2, generator=generator)], 1)
    scores = torch.rand(500, generator=generator)
    labels = torch.randint(1200, 1203, (500,), generator=generator)
    whole = category_nms(boxes, scores, labels, 0.5)
    assert 60 < len(whole) < 200  # of 500
    assert torch.equal(category_nms(boxes, scores, labels, 0.5, limit), whole[:limit])
