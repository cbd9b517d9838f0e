"""Faster R-CNN on ResNet-101 with EQLv2, LVIS (paper, Table 2)."""

from __future__ import annotations

from yolox_lt.exp import LVISData, TwoStageExp


class Exp(LVISData, TwoStageExp):
    resnet_depth = 101
    cls_loss = "eqlv2"
