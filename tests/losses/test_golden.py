"""Losses, gradients and statistics against arrays of the released implementation."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from yolox_lt.losses import (
    EqualizedFocalLoss,
    EqualizedQualityFocalLoss,
    FocalLoss,
    QualityFocalLoss,
    bce_with_logits,
)

C = 30
ITERATIONS = 6


def flatten_levels(maps: list[np.ndarray]) -> np.ndarray:
    """Level maps [B, A*C, H, W] -> [B, P, C] in the order level, row, column, anchor."""
    flat = []
    for level in maps:
        b, _, h, w = level.shape
        flat.append(level.transpose(0, 2, 3, 1).reshape(b, h * w * 2, C))  # [B, H, W, A*C] -> [B, H*W*A, C]
    return np.concatenate(flat, axis=1)


def level_arrays(data: dict, prefix: str, iteration: int) -> np.ndarray:
    return flatten_levels([data[f"{prefix}_lvl{level}"][iteration] for level in range(3)])


def labels_from_reference(target: np.ndarray) -> torch.Tensor:
    """-1 ignored, 0 background, 1..C -> -2, -1, 0..C-1."""
    target = torch.from_numpy(target.astype(np.int64)).reshape(-1)
    return torch.where(target < 0, -2, target - 1)


SEQUENCES = [
    ("efl_sequence.npz", "s8_f64", lambda: EqualizedFocalLoss(C, scale=8.0), torch.float64),
    ("efl_sequence.npz", "s4_f64", lambda: EqualizedFocalLoss(C, scale=4.0), torch.float64),
    ("efl_sequence.npz", "s4_noalpha_f64", lambda: EqualizedFocalLoss(C, alpha=-1.0, scale=4.0), torch.float64),
    ("efl_sequence.npz", "s8_f32", lambda: EqualizedFocalLoss(C, scale=8.0), torch.float32),
    ("efl_sequence.npz", "s4_f32", lambda: EqualizedFocalLoss(C, scale=4.0), torch.float32),
    ("eqfl_sequence.npz", "s8_f64", lambda: EqualizedQualityFocalLoss(C, scale=8.0), torch.float64),
    ("eqfl_sequence.npz", "s4_f64", lambda: EqualizedQualityFocalLoss(C), torch.float64),
    ("eqfl_sequence.npz", "s8_f32", lambda: EqualizedQualityFocalLoss(C, scale=8.0), torch.float32),
    ("eqfl_sequence.npz", "s4_f32", lambda: EqualizedQualityFocalLoss(C), torch.float32),
]


@pytest.mark.parametrize(("file", "run", "make", "dtype"), SEQUENCES, ids=lambda v: v if isinstance(v, str) else "")
def test_sequence__six_iterations_with_the_statistic_carried_over(golden, file, run, make, dtype):
    data = golden(file)
    loss_fn = make().to(dtype)
    rtol = 1e-9 if dtype == torch.float64 else 1e-4
    for i in range(ITERATIONS):
        logits = torch.from_numpy(level_arrays(data, "logits", i)).to(dtype).reshape(-1, C).requires_grad_()
        quality = None
        if "scores" in data:
            quality = torch.from_numpy(data["scores"][i].reshape(-1)).to(dtype)
        normalizer = float(data["normalizer"][i])
        if "scores" in data:
            normalizer = float(np.float32(normalizer))  # the reference rounds it first
        loss = loss_fn(logits, labels_from_reference(data["target"][i]), quality, normalizer)
        loss.backward()
        np.testing.assert_allclose(loss.item(), data[f"{run}_loss"][i], rtol=rtol)
        gradients = f"{run.replace('f32', 'f64')}_grad"  # float32 runs are held to the reference's float64 gradients
        if f"{gradients}_lvl0" in data:
            want = level_arrays(data, gradients, i).reshape(-1, C)
            grad_rtol = rtol if want.dtype == np.float64 else max(rtol, 1e-7)  # some float64 runs are stored as float32
            np.testing.assert_allclose(logits.grad.numpy(), want, rtol=grad_rtol, atol=1e-2 * rtol * np.abs(want).max())
        balance = loss_fn.balance
        np.testing.assert_allclose(balance.pos_grad.numpy(), data[f"{run}_pos_grad"][i], rtol=rtol, atol=1e-12)
        np.testing.assert_allclose(balance.neg_grad.numpy(), data[f"{run}_neg_grad"][i], rtol=rtol, atol=1e-12)
        np.testing.assert_allclose(balance.ratio.numpy(), data[f"{run}_pos_neg"][i], rtol=rtol, atol=1e-12)


@pytest.mark.parametrize("name", ["qfl", "focal"])
@pytest.mark.parametrize(("precision", "dtype"), [("f64", torch.float64), ("f32", torch.float32)])
def test_simple_losses__value_and_gradient(golden, name, precision, dtype):
    data = golden("simple_losses.npz")
    gamma, alpha = float(data["gamma"]), float(data["alpha"])
    loss_fn = QualityFocalLoss(gamma) if name == "qfl" else FocalLoss(alpha, gamma)
    logits = torch.from_numpy(data["logits"]).to(dtype).reshape(-1, C).requires_grad_()
    scores = torch.from_numpy(data["scores"].reshape(-1)).to(dtype)
    loss = loss_fn(logits, labels_from_reference(data["target"]), scores, float(data["normalizer"]))
    loss.backward()
    rtol = 1e-9 if dtype == torch.float64 else 1e-4
    want = data[f"{name}_{precision}_grad"].reshape(-1, C)
    np.testing.assert_allclose(loss.item(), data[f"{name}_{precision}_loss"], rtol=rtol)
    np.testing.assert_allclose(logits.grad.numpy(), want, rtol=rtol, atol=rtol * 1e-2 * np.abs(want).max())


@pytest.mark.parametrize(("name", "normalizer"), [("normaliser7p5", 7.5), ("nonorm", None)])
def test_bce__soft_targets_and_ignored_entries(golden, name, normalizer):
    data = golden("simple_losses.npz")
    logits = torch.from_numpy(data["bce_logits"]).requires_grad_()
    target = torch.from_numpy(data["bce_target"])
    if normalizer is None:
        normalizer = int((target >= 0).sum())
    loss = bce_with_logits(logits, target).sum() / normalizer
    loss.backward()
    np.testing.assert_allclose(loss.item(), data[f"bce_{name}_loss"], rtol=1e-5)
    np.testing.assert_allclose(logits.grad.numpy(), data[f"bce_{name}_grad"], rtol=1e-4, atol=1e-8)
