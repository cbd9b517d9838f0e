"""RetinaNet on ResNet-101 with focal loss, LVIS (paper, Table 2)."""

from __future__ import annotations

from yolox_lt.exp import LVISData, RetinaNetExp


class Exp(LVISData, RetinaNetExp):
    resnet_depth = 101
    cls_loss = "focal"
