"""ATSS on ResNet-50 with EFL, LVIS (paper, Table 5, first row)."""

from __future__ import annotations

from yolox_lt.exp import ATSSExp, LVISData


class Exp(LVISData, ATSSExp):
    cls_loss = "efl"
