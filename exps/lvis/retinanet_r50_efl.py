"""RetinaNet on ResNet-50 with EFL, LVIS (paper, Table 6)."""

from __future__ import annotations

from yolox_lt.exp import LVISData, RetinaNetExp


class Exp(LVISData, RetinaNetExp):
    cls_loss = "efl"
