"""EFL on ResNet-101, the released configuration, LVIS (paper, Tables 2 to 6)."""

from __future__ import annotations

from yolox_lt.exp import LVISData, ResNetExp


class Exp(LVISData, ResNetExp):
    resnet_depth = 101
    cls_loss = "efl"
