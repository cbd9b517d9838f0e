"""Faster R-CNN on ResNet-101 with softmax, Open Images Challenge 2019 (paper, Table 7)."""

from __future__ import annotations

from yolox_lt.exp import OpenImagesData, TwoStageExp


class Exp(OpenImagesData, TwoStageExp):
    resnet_depth = 101
    cls_loss = "softmax"
    warmup_iters = 501
