"""LVIS v0.5: 1230 categories, other ids than v1; EFL on ResNet-50. Not in the paper."""

from __future__ import annotations

from yolox_lt.exp import LVIS05Data, ResNetExp


class Exp(LVIS05Data, ResNetExp):
    cls_loss = "efl"
