"""RetinaNet on ResNet-101 with focal loss, Open Images Challenge 2019 (paper, Table 7)."""

from __future__ import annotations

from yolox_lt.exp import OpenImagesData, RetinaNetExp


class Exp(OpenImagesData, RetinaNetExp):
    resnet_depth = 101
    cls_loss = "focal"
