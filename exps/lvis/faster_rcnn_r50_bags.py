"""BAGS on ResNet-50, LVIS (paper, Table 2): the baseline, then a new classifier in groups."""

from __future__ import annotations

from yolox_lt.exp import ClassifierExp, LVISData


class Exp(LVISData, ClassifierExp):
    first_stage = "faster_rcnn_r50.py"
    sampler = "class_balanced"
    cls_loss = "bags"
