"""ATSS on ResNet-50 with EQLv2 & Focal, LVIS (paper, Table 1)."""

from __future__ import annotations

from yolox_lt.exp import ATSSExp, LVISData


class Exp(LVISData, ATSSExp):
    cls_loss = "eqlv2_focal"
