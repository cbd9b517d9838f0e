"""Faster R-CNN on ResNet-50 with EQL, LVIS (paper, Table 2)."""

from __future__ import annotations

from yolox_lt.exp import LVISData, TwoStageExp


class Exp(LVISData, TwoStageExp):
    cls_loss = "eql"
    eql_threshold = 0.0011
