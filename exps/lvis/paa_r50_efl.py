"""PAA on ResNet-50 with EFL, LVIS (paper, Table 6)."""

from __future__ import annotations

from yolox_lt.exp import LVISData, PAAExp


class Exp(LVISData, PAAExp):
    cls_loss = "efl"
