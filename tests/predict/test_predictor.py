"""From predictions to detections: golden arrays of both references, planted boxes, NMS per category."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.golden_levels import aligned_priors, legacy_priors, level_maps, predictions_from
from yolox_lt import boxes as box_ops
from yolox_lt.coders import DeltaCoder, grid_coder
from yolox_lt.models.priors import AnchorGrid
from yolox_lt.predict import Predictor
from yolox_lt.predict.nms import category_nms
from yolox_lt.types import Predictions, Priors


def sort_like_reference(rows: np.ndarray) -> np.ndarray:
    """Rows (image, box, score, label) by image and score; scores closer than 1e-6 by label and box."""
    keys = [rows[:, 1], rows[:, 2], rows[:, 6], -np.round(rows[:, 5], 5), rows[:, 0]]
    return rows[np.lexsort(keys)]


def test_golden__released_post_processing(golden):
    data = golden("detections_aligned.npz")
    predictions = predictions_from(*(level_maps(data, "", kind) for kind in ("cls", "loc", "iou")))
    sizes = torch.from_numpy(data["image_hw"])
    predictor = Predictor(DeltaCoder(), nms_threshold=0.65, pre_nms=1000, clip="content")
    found = predictor(predictions, aligned_priors(data), torch.ones(2, 2), sizes, sizes, (0, 0))
    assert [len(d) for d in found] == data["num_per_image"].tolist()
    rows = [
        torch.cat([torch.full((len(d), 1), float(b)), d.boxes, d.scores[:, None], d.labels[:, None] + 1.0], 1)
        for b, d in enumerate(found)
    ]
    ours, want = (sort_like_reference(r) for r in (torch.cat(rows).numpy(), data["detections"]))
    np.testing.assert_allclose(ours[:, 1:6], want[:, 1:6], rtol=1e-4, atol=1e-3)
    np.testing.assert_array_equal(ours[:, [0, 6]], want[:, [0, 6]])


def test_golden__released_resnet_post_processing(golden):
    data = golden("detections_legacy.npz")
    predictions = predictions_from(*(level_maps(data, "", kind, 5) for kind in ("cls", "loc", "iou")))
    sizes = torch.from_numpy(data["image_hw"])
    predictor = Predictor(DeltaCoder(), nms_threshold=0.5, pre_nms=6000, clip="content")
    (found,) = predictor(predictions, legacy_priors(data), torch.ones(1, 2), sizes, sizes, (0, 0))
    assert len(found) == data["num_per_image"][0] == 300
    # The reference's boxes end on their last pixel, ours one further.
    boxes = found.boxes - torch.tensor([0.0, 0, 1, 1])
    rows = torch.cat([torch.zeros(300, 1), boxes, found.scores[:, None], found.labels[:, None] + 1.0], 1).numpy()
    ours, want = sort_like_reference(rows), sort_like_reference(data["detections"])
    np.testing.assert_allclose(ours[:, 1:6], want[:, 1:6], rtol=1e-4, atol=1e-3)
    np.testing.assert_array_equal(ours[:, 6], want[:, 6])


def test_clip__to_the_content_not_to_the_padding():
    # One prior that reaches beyond a content of 30 x 20 (height x width) in an input of 64 x 64, scale 1/2.
    priors = Priors(torch.tensor([[10.0, 10, 50, 50]]), torch.tensor([8.0]), [1], [(1, 1)], [8], 1, legacy=True)
    predictions = Predictions(torch.full((1, 1, 1), 5.0), torch.zeros(1, 1, 4), None)
    content_size = torch.tensor([[30, 20]])
    content, whole = (
        Predictor(DeltaCoder(), clip=clip)(
            predictions, priors, torch.full((1, 2), 0.5), torch.tensor([[200, 200]]), content_size, (64, 64)
        )[0]
        for clip in ("content", "input")
    )
    # Legacy: clipped to x2 = 19, y2 = 29; times 2, and one pixel for the last one.
    assert content.boxes.tolist() == [[20, 20, 39, 59]]
    assert whole.boxes.tolist() == [[20, 20, 101, 101]]


def probabilities_to_logits(p: np.ndarray) -> torch.Tensor:
    p = torch.from_numpy(p).double().clamp(1e-12, 1 - 1e-12)
    return (p.log() - (-p).log1p()).float()


@pytest.mark.parametrize("config", range(5))
def test_golden_yolox__one_label_per_prior(golden, config):
    data = golden("yolox_postprocess.npz")
    rows = data["prediction"]  # [B, P, 4 + 1 + C]: decoded centre boxes, objectness, class scores
    n = rows.shape[1]
    unit = torch.tensor([[-0.5, -0.5, 0.5, 0.5]]).expand(n, 4)  # decoding from this prior: centre = delta, size = exp
    priors = Priors(unit, torch.ones(n), [n], [(n, 1)], [1], 1)
    boxes = torch.from_numpy(rows[..., :4])
    predictions = Predictions(
        probabilities_to_logits(rows[..., 5:]),
        torch.cat([boxes[..., :2], boxes[..., 2:].log()], -1),
        probabilities_to_logits(rows[..., 4]),
    )
    predictor = Predictor(
        grid_coder(),
        nms_threshold=float(data[f"cfg{config}_nms_thre"]),
        score_threshold=float(data[f"cfg{config}_conf_thre"]),
        pre_nms=None,
        max_detections=n,
        multi_label=False,
        class_agnostic=bool(data[f"cfg{config}_class_agnostic"]),
        clip=None,
    )
    # A huge image around the boxes, so that the final clipping to the image changes nothing.
    shift = 10000.0
    predictions.box_deltas[..., :2] += shift
    sizes = torch.tensor([[40000, 40000]] * len(rows))
    found = predictor(predictions, priors, torch.ones(len(rows), 2), sizes, sizes, (0, 0))
    assert [len(d) for d in found] == data[f"cfg{config}_counts"].tolist()
    assert [len(d) == 0 for d in found] == data[f"cfg{config}_is_none"].tolist()
    want = data[f"cfg{config}_detections"]
    ours = np.concatenate([np.column_stack([d.boxes - shift, d.scores, d.labels]) for d in found])
    np.testing.assert_allclose(ours[:, 4], want[:, 4] * want[:, 5], rtol=1e-4)
    np.testing.assert_allclose(ours[:, :4], want[:, :4], atol=0.02)
    np.testing.assert_array_equal(ours[:, 5], want[:, 6])


def test_planted_box__comes_back_to_original_pixels_of_an_odd_size():
    # A 333 x 251 image fitted into 64 x 64: scale 64/333.
    scale = 64 / 333
    priors = AnchorGrid([8, 16, 32], [3, 4])([(8, 8), (4, 4), (2, 2)])
    p = len(priors.boxes)
    want = torch.tensor([17.0, 200.0, 230.0, 331.0])
    logits, deltas = torch.full((1, p, 1203), -12.0), torch.zeros(1, p, 4)
    logits[0, p - 1, 1202] = 9.0  # the last prior (second anchor) and the last category
    deltas[0, p - 1] = DeltaCoder().encode(priors.boxes[p - 1], want * scale)
    predictions = Predictions(logits, deltas, torch.full((1, p), 9.0))
    found = Predictor(DeltaCoder())(
        predictions,
        priors,
        torch.tensor([[scale, scale]]),
        torch.tensor([[333, 251]]),
        torch.tensor([[64, 48]]),
        (64, 64),
    )[0]
    torch.testing.assert_close(found.boxes[0], want, rtol=0, atol=1e-3)
    assert found.labels[0] == 1202
    assert found.scores[0].item() == pytest.approx(torch.sigmoid(torch.tensor(9.0)).item() ** 2)
    assert (found.boxes[:, 2] <= 251).all()
    assert (found.boxes[:, 3] <= 333).all()


def tiny(logits, **options):
    """Three priors of one level with the given logits [3, C], quality 1/2, boxes far apart."""
    boxes = torch.tensor([[0.0, 0, 8, 8], [20, 0, 28, 8], [40, 0, 48, 8]])
    priors = Priors(boxes, torch.full((3,), 8.0), [3], [(1, 3)], [8], 1)
    predictions = Predictions(torch.tensor([logits]), torch.zeros(1, 3, 4), torch.zeros(1, 3))
    size = torch.tensor([[64, 64]])
    return Predictor(DeltaCoder(), **options)(predictions, priors, torch.ones(1, 2), size, size, (64, 64))[0]


def test_top_k__takes_two_categories_of_one_prior():
    found = tiny([[4.0, 3.0], [2.0, -5.0], [-5.0, -5.0]], pre_nms=3)
    assert found.labels.tolist() == [0, 1, 0]
    assert found.boxes[:, 0].tolist() == [0, 0, 20]


def test_one_label__takes_the_best_category_of_each_prior():
    found = tiny([[4.0, 3.0], [2.0, -5.0], [-5.0, -4.0]], multi_label=False, score_threshold=0.1)
    assert found.labels.tolist() == [0, 0]


def test_limits__score_threshold_and_max_detections():
    logits = [[4.0, 3.0], [2.0, -5.0], [-5.0, -5.0]]
    assert len(tiny(logits, score_threshold=0.6)) == 0  # quality 1/2 keeps every product below
    assert tiny(logits, max_detections=1).labels.tolist() == [0]


def test_nms__equals_one_category_after_the_other():
    generator = torch.Generator().manual_seed(0)
    n = 400
    xy = torch.rand(n, 2, generator=generator) * 600
    boxes = torch.cat([xy, xy + 20 + 60 * torch.rand(n, 2, generator=generator)], 1)
    scores = torch.rand(n, generator=generator)
    labels = torch.randint(1100, 1110, (n,), generator=generator)
    kept = []
    for label in labels.unique():
        rows = (labels == label).nonzero().squeeze(1)
        order = rows[scores[rows].argsort(descending=True)]
        while len(order):
            kept.append(int(order[0]))
            overlap = box_ops.pairwise_iou(boxes[order[:1]], boxes[order])[0]
            order = order[overlap <= 0.3]
    kept.sort(key=lambda i: -scores[i].item())
    assert category_nms(boxes, scores, labels, 0.3).tolist() == kept
    assert category_nms(boxes[:0], scores[:0], labels[:0], 0.3).tolist() == []
