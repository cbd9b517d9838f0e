"""ATSS on ResNet-50 with focal loss, LVIS (paper, Table 1)."""

from __future__ import annotations

from yolox_lt.exp import ATSSExp, LVISData


class Exp(LVISData, ATSSExp):
    cls_loss = "focal"
