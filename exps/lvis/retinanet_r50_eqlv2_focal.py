"""RetinaNet on ResNet-50 with EQLv2 & Focal, LVIS (paper, Table 1)."""

from __future__ import annotations

from yolox_lt.exp import LVISData, RetinaNetExp


class Exp(LVISData, RetinaNetExp):
    cls_loss = "eqlv2_focal"
