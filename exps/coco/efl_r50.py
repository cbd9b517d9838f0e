"""EFL on ResNet-50, COCO, uniform sampling (paper, Table 9; there also with `loss_scale` 2 and 4)."""

from __future__ import annotations

from yolox_lt.exp import ResNetExp


class Exp(ResNetExp):
    cls_loss = "efl"
