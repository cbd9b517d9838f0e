"""Faster R-CNN on ResNet-50 with Seesaw, LVIS (paper, Tables 1 and 2); normed_classifier False: the plain variant."""

from __future__ import annotations

from yolox_lt.exp import LVISData, TwoStageExp


class Exp(LVISData, TwoStageExp):
    cls_loss = "seesaw"
    normed_classifier = True
