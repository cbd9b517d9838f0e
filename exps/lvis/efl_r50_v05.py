"""EFL on ResNet-50, LVIS v0.5 (1230 categories); not in the paper."""

from __future__ import annotations

from yolox_lt.exp import LVIS05Data, ResNetExp


class Exp(LVIS05Data, ResNetExp):
    cls_loss = "efl"
