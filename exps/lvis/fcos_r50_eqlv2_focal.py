"""FCOS* on ResNet-50 with EQLv2 & Focal, LVIS (paper, Table 1)."""

from __future__ import annotations

from yolox_lt.exp import FCOSExp, LVISData


class Exp(LVISData, FCOSExp):
    cls_loss = "eqlv2_focal"
