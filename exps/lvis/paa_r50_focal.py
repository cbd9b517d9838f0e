"""PAA on ResNet-50 with focal loss, LVIS (paper, Tables 1 and 6)."""

from __future__ import annotations

from yolox_lt.exp import LVISData, PAAExp


class Exp(LVISData, PAAExp):
    cls_loss = "focal"
