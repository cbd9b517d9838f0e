"""Faster R-CNN on ResNet-101 with Seesaw, LVIS (paper, Table 2); normed_classifier False: the plain variant."""

from __future__ import annotations

from yolox_lt.exp import LVISData, TwoStageExp


class Exp(LVISData, TwoStageExp):
    resnet_depth = 101
    cls_loss = "seesaw"
    normed_classifier = True
