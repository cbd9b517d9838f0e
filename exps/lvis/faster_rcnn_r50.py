"""Faster R-CNN on ResNet-50 with softmax, LVIS (paper, Tables 1 and 2)."""

from __future__ import annotations

from yolox_lt.exp import LVISData, TwoStageExp


class Exp(LVISData, TwoStageExp):
    cls_loss = "softmax"
