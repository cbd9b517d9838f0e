"""Calibrators against the golden arrays, and folding against applying."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from yolox_lt.calibrate import calibrated_logits, fold_into
from yolox_lt.errors import UserError
from yolox_lt.predict.calibrate import (
    FRACAL,
    LogitNormalization,
    NorCal,
    PriorAdjustment,
    TauNormalization,
    fold,
    fractal_dimension,
)


def close(found, wanted, rtol=1e-9, atol=0.0) -> None:
    np.testing.assert_allclose(np.asarray(found), np.asarray(wanted), rtol=rtol, atol=atol)


@pytest.mark.parametrize("anchor", ["mean", "rarest"])
@pytest.mark.parametrize("tau", [0.25, 0.5, 1.0])
def test_prior__golden(golden, anchor, tau):
    case, key = golden("beyond_prior.npz"), f"{anchor}_{round(100 * tau):03d}"
    logits, quality = torch.tensor(case["logits"]), torch.tensor(case["quality_logits"]).sigmoid()
    calibrator = PriorAdjustment(case["image_counts"], tau, anchor)
    close(calibrator.affine()[1], case[f"shift_{key}"], atol=1e-12)
    scores = calibrator.scores(logits)
    close(scores, case[f"scores_{key}"])
    final = scores * quality[:, None]
    close(final, case[f"final_{key}"])
    order = final.flatten().argsort(descending=True, stable=True)[:60]  # row * C + category
    assert torch.stack([order // 14, order % 14], dim=1).tolist() == case[f"order_{key}"].tolist()
    assert (calibrator.affine()[1] <= 0).all() or anchor == "mean"


def test_prior__temperature_and_counts_of_zero(golden):
    case = golden("beyond_prior.npz")
    logits = torch.tensor(case["logits"])
    found = PriorAdjustment(torch.tensor(case["image_counts"]), 0.25, "mean", 2.0).scores(logits)
    close(found, case["scores_mean_025_temperature2"])
    counts = np.maximum(case["image_counts"], 1)
    assert (counts != case["image_counts"]).any()
    close(PriorAdjustment(counts).shift, PriorAdjustment(case["image_counts"]).shift)
    some = torch.randn(7, 3, generator=torch.Generator().manual_seed(0))
    for make in (
        partial(NorCal, gamma=0.6),
        partial(NorCal, normalize="background"),
        lambda n: FRACAL(n, 9, [1, 1, 1.5]),
    ):
        assert torch.equal(make([0, 5, 50]).scores(some), make([1, 5, 50]).scores(some))


@pytest.mark.parametrize("gamma", [0.3, 0.6, 1.0])
def test_norcal__golden(golden, gamma):
    case, key = golden("beyond_norcal.npz"), f"{round(10 * gamma):02d}"
    logits = torch.tensor(case["dense_logits"])
    close(NorCal(case["image_counts"], gamma).scores(logits), case[f"dense_odds_{key}"])
    close(NorCal(case["image_counts"], gamma, "background").scores(logits), case[f"dense_background0_{key}"])


def test_norcal__background_with_a_logit_of_its_own_is_the_original(golden):
    """Shifting all logits by that of the background gives the softmax over C + 1."""
    case = golden("beyond_norcal.npz")
    logits = torch.tensor(case["logits"])
    found = NorCal(case["image_counts"], 0.6, "background").scores(logits[:, :13] - logits[:, 13:])
    close(found, case["exps_norm_06"][:, :13], atol=1e-300)


def test_fractal_dimension__golden(golden):
    case = golden("beyond_fracal.npz")
    centres = case["boxes_xywh"][:, :2] + case["boxes_xywh"][:, 2:] / 2
    found = fractal_dimension(centres, case["categories"], 20)
    close(found, case["dimension_box_dim_64"], rtol=1e-6)
    assert fractal_dimension(np.zeros((0, 2)), np.zeros(0, np.int64), 3).tolist() == [1, 1, 1]
    assert fractal_dimension([[1.0, 1.0]] * 5, [2] * 5, 3).tolist() == [1, 1, 1]


def test_fractal_dimension__of_real_annotations(golden):
    case, index = golden("beyond_fracal.npz"), golden("lvis_val_100.json")
    sizes = {image["id"]: (image["width"], image["height"]) for image in index["images"]}
    rows = [(a["category_id"], a["bbox"], sizes[a["image_id"]]) for a in index["annotations"]]
    centres = [[(x + w / 2) / width, (y + h / 2) / height] for _, (x, y, w, h), (width, height) in rows]
    found = fractal_dimension(centres, [category for category, *_ in rows], 1204)
    close(found[case["val100_category_id"]], case["val100_dimension"], rtol=1e-6)


@pytest.mark.parametrize("power", [0, 1, 2])
def test_fracal__golden(golden, power):
    case = golden("beyond_fracal.npz")
    args = case["image_counts"], int(case["num_images"]), case["dimension_box_dim_64"], float(power)
    product, root = FRACAL(*args, root=False), FRACAL(*args)
    there = case["image_counts"] > 0  # the original's shift of the others is infinite
    close(product.frequency[there], case["shift_base10"][there])
    close(product.space, case[f"space_{power}"], atol=1e-12)
    logits = torch.tensor(case["logits"][:, :20])
    close(product.scores(logits)[:, there], case[f"sigmoid_{power}"][:, there])
    if power == 2:
        close(root.scores(logits)[:, there], case["geometric_2"][:, there])
    assert root.affine() is None
    assert root.scores(logits).isfinite().all()


def test_fracal__lvis(golden):
    case = golden("beyond_fracal_lvis.npz")
    calibrator = FRACAL(case["image_counts"], 100_170, case["fractal_dimension"])
    close(calibrator.frequency, case["shift_base10"])
    close(calibrator.space, case["space_2"], atol=1e-12)


def test_logit_normalization__golden(golden):
    case = golden("beyond_logn.npz")
    logits = torch.tensor(case["test_logits"][:, :12])
    for floor, mark in ((0.0, ""), (0.1, "_floored")):
        std = case["dense_std"]
        if floor == 0.0:
            with pytest.raises(UserError, match="never vary"):
                LogitNormalization(case["dense_mean"], np.where(std == std.min(), 0, std), floor)
        if not (std > 0).all() and floor == 0.0:
            continue
        calibrator = LogitNormalization(case["dense_mean"], std, floor)
        scale, shift = calibrator.affine()
        close(scale, case[f"dense_scale{mark}"])
        close(shift, case[f"dense_shift{mark}"], atol=1e-12)
        close(calibrator.scores(logits), case[f"dense_scores{mark}"])


def test_fold__golden(golden):
    case = golden("beyond_fold.npz")
    layer = nn.Conv2d(7, 18, 1).double()
    layer.weight.data, layer.bias.data = torch.tensor(case["weight"]), torch.tensor(case["bias"])

    class Given:
        def affine(self):
            return torch.tensor(case["scale"]), torch.tensor(case["shift"])

    folded = fold(layer, Given())
    close(folded.weight.detach(), case["folded_weight"])
    close(folded.bias.detach(), case["folded_bias"])
    features = torch.tensor(case["features"])
    close(folded(features).detach(), case["calibrated"], rtol=1e-9, atol=1e-12)
    close(layer(features).detach(), case["logits"], rtol=1e-9, atol=1e-12)  # the given one is as it was
    for tau in (0, 0.5, 0.7, 1.0, 2.0):
        found = fold(layer, TauNormalization(tau))
        close(found.weight.detach()[:, :, 0, 0], case[f"tau_norm_{round(10 * tau):02d}"])
        assert torch.equal(found.bias, layer.bias)
    three = nn.Conv2d(7, 18, 3).double()
    three.weight.data = torch.tensor(case["weight3"])
    close(fold(three, TauNormalization(1.0)).weight.detach(), case["tau_norm3_10"])


def test_fold__a_row_of_zeros_stays():
    layer = nn.Linear(3, 2)
    nn.init.zeros_(layer.weight)
    assert fold(layer, TauNormalization(1.0)).weight.tolist() == [[0, 0, 0]] * 2


def test_fold_into__leaves_the_given_model_and_what_is_not_affine():
    model = nn.Module()
    model.head = nn.Module()
    model.head.cls_pred = nn.Linear(3, 4)
    before = model.head.cls_pred.bias.clone()
    folded, left = fold_into(model, PriorAdjustment([1, 10]), own_scores=False)
    assert left is None
    assert torch.equal(model.head.cls_pred.bias, before)
    shift = PriorAdjustment([1, 10]).shift
    close(folded.head.cls_pred.bias.detach(), before.detach() + torch.cat([shift, shift]).float(), atol=1e-6)
    background = NorCal([1, 10], normalize="background")
    assert fold_into(model, background, False) == (model, background)
    prior = PriorAdjustment([1, 10])
    assert fold_into(model, prior, own_scores=True) == (model, prior)
    with pytest.raises(UserError, match="tau"):
        fold_into(model, TauNormalization(), own_scores=True)
    with pytest.raises(UserError, match="3 categories for a classifier of 4 rows"):
        fold_into(model, PriorAdjustment([1, 2, 3]), False)


def test_calibrated_logits__sigmoid_of_them_are_the_scores():
    logits = torch.randn(50, 4, generator=torch.Generator().manual_seed(0)) * 6
    for calibrator in (
        PriorAdjustment([1, 5, 50, 500]),
        NorCal([1, 5, 50, 500], normalize="background"),
        FRACAL([1, 5, 50, 500], 600, [1, 1, 1.5, 2]),
    ):
        close(calibrated_logits(logits, calibrator).sigmoid(), calibrator.scores(logits), rtol=1e-5)
    assert calibrated_logits(logits, None) is logits
    low = calibrated_logits(torch.tensor([[-1000.0] * 4]), FRACAL([1, 5, 50, 500], 600, [1, 1, 1.5, 2]))
    assert low.sigmoid().tolist() == [[0, 0, 0, 0]]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: PriorAdjustment([1, -2]), "count of category 1 is -2"),
        (lambda: PriorAdjustment([1, float("nan")]), "count of category 1 is nan"),
        (lambda: PriorAdjustment([[1, 2]]), "one number for each category"),
        (lambda: PriorAdjustment([1, 2], tau=-1), "tau is -1"),
        (lambda: PriorAdjustment([1, 2], anchor="middle"), "anchor 'middle'"),
        (lambda: PriorAdjustment([1, 2], temperature=0), "temperature is 0"),
        (lambda: NorCal([1, 2], normalize="all"), "normalize 'all'"),
        (lambda: FRACAL([1, 2], 5, [1, 1, 1]), "2 counts, 3 dimensions"),
        (lambda: LogitNormalization([1, 2], [1]), "2 means and 1 standard"),
        (lambda: TauNormalization().scores(torch.zeros(1, 2)), "tau changes the classifier"),
    ],
)
def test_calibrators__refuse(make, words):
    with pytest.raises(UserError, match=words):
        make()
