"""Improved baseline on ResNet-101: focal loss, Open Images Challenge 2019 (paper, Table 7)."""

from __future__ import annotations

from yolox_lt.exp import OpenImagesData, ResNetExp


class Exp(OpenImagesData, ResNetExp):
    resnet_depth = 101
    cls_loss = "focal"
