"""Networks: images in, raw predictions and priors out. Nothing here knows targets, losses or data sets.

`resnet_fpn` is imported by those who need it: torchvision takes as long to load as half of torch.
"""

from __future__ import annotations

from yolox_lt.models.blocks import fuse_conv_bn
from yolox_lt.models.darknet import CSPDarknet
from yolox_lt.models.detector import Detector, build_resnet, build_yolox
from yolox_lt.models.heads import YOLOXHead
from yolox_lt.models.init import init_prior_bias
from yolox_lt.models.pafpn import YOLOPAFPN
from yolox_lt.models.priors import AnchorGrid
from yolox_lt.models.retina_head import RetinaHead

__all__ = [
    "YOLOPAFPN",
    "AnchorGrid",
    "CSPDarknet",
    "Detector",
    "RetinaHead",
    "YOLOXHead",
    "build_resnet",
    "build_yolox",
    "fuse_conv_bn",
    "init_prior_bias",
]
