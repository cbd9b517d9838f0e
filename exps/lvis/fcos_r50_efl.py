"""FCOS* on ResNet-50 with EFL, LVIS (paper, Table 6)."""

from __future__ import annotations

from yolox_lt.exp import FCOSExp, LVISData


class Exp(LVISData, FCOSExp):
    cls_loss = "efl"
