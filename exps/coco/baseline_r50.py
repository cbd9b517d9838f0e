"""Improved baseline on ResNet-50: focal loss, COCO, uniform sampling (paper, Table 9)."""

from __future__ import annotations

from yolox_lt.exp import ResNetExp


class Exp(ResNetExp):
    cls_loss = "focal"
