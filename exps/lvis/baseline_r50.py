"""Improved baseline on ResNet-50: focal loss, LVIS (paper, Tables 2 and 6)."""

from __future__ import annotations

from yolox_lt.exp import LVISData, ResNetExp


class Exp(LVISData, ResNetExp):
    cls_loss = "focal"
