"""Stranger (a): a Seesaw-like softmax loss with weights per row and category, its own width and its own state.

Its experiment normalises pixels and keeps fewer boxes in its own way too."""

from __future__ import annotations

import torch

from tests.strangers.walk import GLYPHS, walk
from tests.tiny import tiny_data
from yolox_lt.checkpoint import load_checkpoint

EXP = f'''
from dataclasses import replace

import torch
import torch.nn.functional as F

from yolox_lt.exp import GlyphExp
from yolox_lt.losses import ClassificationLoss, StepState
from yolox_lt.models.preprocess import Preprocessor


class Counts(StepState):
    """Positives of every category so far."""

    def __init__(self, num_classes):
        super().__init__()
        self.register_buffer("counts", torch.zeros(num_classes))
        self.register_buffer("skipped", torch.zeros((), dtype=torch.int64))

    def empty_contribution(self):
        return torch.zeros_like(self.counts)

    def change(self, contribution, finite):
        self.counts += contribution


class SeesawLike(ClassificationLoss):
    """Cross entropy over C categories and background; rarer categories are pushed down less, mistakes more."""

    def __init__(self, num_classes, p=0.8, q=2.0):
        super().__init__()
        self.p, self.q, self.state = p, q, Counts(num_classes)

    def num_outputs(self, num_classes):
        return num_classes + 1

    def scores(self, logits):
        return logits.softmax(dim=-1)[..., :-1]

    def category_state(self):
        return {{"counts": self.state.counts}}

    def forward(self, logits, labels, quality=None, normalizer=1.0):
        keep = labels != -2
        logits, labels = logits[keep].float(), labels[keep]
        num_classes = logits.shape[1] - 1
        target = torch.where(labels >= 0, labels, num_classes)
        if self.training:
            self.state.contribute(torch.bincount(labels[labels >= 0], minlength=num_classes).float())
        counts = F.pad(self.state.counts.clamp(min=1), (0, 1), value=1.0)
        mitigation = (counts[None] / counts[target][:, None]).clamp(max=1) ** self.p  # [N, W]
        prob = logits.detach().softmax(dim=1)
        compensation = (prob / prob.gather(1, target[:, None]).clamp(min=1e-2)).clamp(min=1) ** self.q
        factors = (mitigation * compensation).scatter(1, target[:, None], 1.0)
        return F.cross_entropy(logits + factors.log(), target, reduction="sum") / normalizer


class Exp(GlyphExp):
{GLYPHS}
    def get_cls_loss(self):
        return SeesawLike(self.num_classes)

    def get_preprocessor(self):
        return Preprocessor((0.5, 0.5, 0.5), (0.2, 0.2, 0.2))

    def get_predictor(self, names=()):
        return replace(super().get_predictor(names), max_detections=20)
'''


def test_stranger__a_loss_with_its_own_width_and_state(tmp_path, tmp_path_factory):
    file = tmp_path / "seesaw_exp.py"
    file.write_text(EXP)
    folder = walk(file, tmp_path, tiny_data(tmp_path_factory), ["get_cls_loss", "get_predictor", "get_preprocessor"])
    content = load_checkpoint(folder / "latest.pth")
    assert content["model"]["head.cls_preds.0.weight"].shape[0] == 2 * (4 + 1)  # two anchors, four categories
    counts = content["criterion"]["cls_loss.state.counts"]
    assert counts.sum() > 0
    first = load_checkpoint(folder / "epoch_1.pth")["criterion"]["cls_loss.state.counts"]
    assert (counts >= first).all()
    assert not torch.equal(counts, first)
