"""EFL on ResNet-18 from random weights, on glyphs: the ResNet models in small."""

from __future__ import annotations

from yolox_lt.exp import GlyphResNetExp


class Exp(GlyphResNetExp):
    seed = 0
    optimizer, basic_lr_per_img, weight_decay = "adamw", 0.001 / 16, 0.02
    warmup_epochs, max_epoch, milestones = 0.5, 9, (6, 8)
    repeat_thresh, epoch_length, eval_interval = 0.1, "dataset", 3
