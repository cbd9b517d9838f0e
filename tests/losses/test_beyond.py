"""Losses beyond the paper against independent float64 transcriptions; arrays: golden/README.md."""

from __future__ import annotations

import pytest
import torch

from yolox_lt.errors import UserError
from yolox_lt.exp import YOLOXStarExp
from yolox_lt.losses import EqualizedQualityFocalLoss, EqualizedVarifocalLoss

C = 8
CASES = {
    "asym_s4": lambda: EqualizedQualityFocalLoss(C, focus="negatives"),
    "evfl_s4": lambda: EqualizedVarifocalLoss(C),
    "evfl_unweighted_s4": lambda: EqualizedVarifocalLoss(C, weigh_by_quality=False),
    "evfl_s4_zeros": lambda: EqualizedVarifocalLoss(C),
    "vfl": lambda: EqualizedVarifocalLoss(C, scale=0.0),
    "vfl_unweighted": lambda: EqualizedVarifocalLoss(C, scale=0.0, weigh_by_quality=False),
}


@pytest.mark.parametrize("name", CASES)
def test_golden__four_iterations_with_the_statistic_carried_over(golden, name):
    data = golden("beyond_varifocal.npz")
    loss_fn = CASES[name]().double()
    qualities = data["quality_with_zeros" if name.endswith("zeros") else "quality"]
    for i in range(4):
        logits = torch.from_numpy(data["logits"][i]).requires_grad_()
        labels, quality = torch.from_numpy(data["labels"][i]), torch.from_numpy(qualities[i])
        loss = loss_fn(logits, labels, quality, float(data["normalizer"][i]))
        loss.backward()
        assert loss.item() == pytest.approx(data[f"{name}_loss"][i], rel=1e-9)
        want = torch.from_numpy(data[f"{name}_grad"][i])
        torch.testing.assert_close(logits.grad, want, rtol=1e-7, atol=1e-12)
        if f"{name}_ratio" in data:
            for key, found in (
                ("pos_grad", loss_fn.balance.pos_grad),
                ("neg_grad", loss_fn.balance.neg_grad),
                ("ratio", loss_fn.balance.ratio),
            ):
                want = torch.from_numpy(data[f"{name}_{key}"][i])
                torch.testing.assert_close(found, want, rtol=1e-9, atol=1e-15)


def test_exp__names_the_losses_and_refuses_others():
    exp = YOLOXStarExp()
    exp.merge(["num_classes", "8", "loss_focus", "negatives"])
    assert exp.get_cls_loss().focus == "negatives"
    exp.merge(["cls_loss", "evfl", "loss_scale", "2"])
    with pytest.raises(UserError, match="loss_focus negatives is for cls_loss eqfl, not evfl"):
        exp.get_cls_loss()
    exp.loss_focus = "both"
    loss_fn = exp.get_cls_loss()
    assert (type(loss_fn), loss_fn.scale, loss_fn.alpha) == (EqualizedVarifocalLoss, 2.0, 0.75)
    exp.loss_focus = "positives"
    with pytest.raises(UserError, match="loss_focus 'positives' is unknown; choose one of both, negatives"):
        exp.get_cls_loss()
