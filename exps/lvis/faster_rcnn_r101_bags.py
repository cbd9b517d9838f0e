"""BAGS on ResNet-101, LVIS (paper, Table 2): the baseline, then a new classifier in groups."""

from __future__ import annotations

from yolox_lt.exp import ClassifierExp, LVISData


class Exp(LVISData, ClassifierExp):
    resnet_depth = 101
    first_stage = "faster_rcnn_r101.py"
    sampler = "class_balanced"
    cls_loss = "bags"
