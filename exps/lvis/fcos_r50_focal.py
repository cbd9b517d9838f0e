"""FCOS* on ResNet-50 with focal loss, LVIS (paper, Tables 1 and 6)."""

from __future__ import annotations

from yolox_lt.exp import FCOSExp, LVISData


class Exp(LVISData, FCOSExp):
    cls_loss = "focal"
