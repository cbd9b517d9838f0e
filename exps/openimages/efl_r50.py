"""EFL on ResNet-50, the released configuration, Open Images Challenge 2019 (paper, Table 7)."""

from __future__ import annotations

from yolox_lt.exp import OpenImagesData, ResNetExp


class Exp(OpenImagesData, ResNetExp):
    cls_loss = "efl"
