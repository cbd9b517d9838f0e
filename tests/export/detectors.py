"""Small detectors with random weights that see differences between images, and images for them."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from yolox_lt.data.glyphs.make import write_glyphs
from yolox_lt.exp import DetectorExp, Exp, FCOSExp, ResNetExp, RetinaNetExp, YOLOXStarExp
from yolox_lt.images import read_image
from yolox_lt.inference import LoadedDetector

YOLOX = {"num_classes": 5, "depth": 0.33, "width": 0.125, "test_size": (64, 96)}
RESNET = {
    **{"num_classes": 5, "resnet_depth": 18, "fpn_channels": 64, "test_size": (64, 96)},
    **{"freeze_bn": False, "trainable_layers": 5},
}
# Thresholds so low that NMS has something to do.
KINDS: dict[str, tuple[type[DetectorExp], dict[str, Any]]] = {
    "star": (YOLOXStarExp, {**YOLOX, "nmsthre": 0.5}),
    "plain": (Exp, {**YOLOX, "test_conf": 0.2, "nmsthre": 0.5}),
    "resnet": (ResNetExp, RESNET),
    "fcos": (FCOSExp, RESNET),
    "retinanet": (RetinaNetExp, RESNET),
    "many": (YOLOXStarExp, {**YOLOX, "num_classes": 1203, "nmsthre": 0.5, "pre_nms": 200}),
}


def pictures(folder: Path) -> list[np.ndarray]:
    """Five images of characters, four of 64 x 64 pixels and a wide one of 60 x 90."""
    paths = write_glyphs(folder, num_categories=4, train_images=200, val_images=12, image_size=64)
    images = [read_image(path) for path in sorted(paths.val_images.glob("*.jpg"))[:6]]
    return [*images[:4], np.concatenate(images[4:6], axis=1)[:60, :90].copy()]


def random_detector(kind: str, images: list[np.ndarray]) -> LoadedDetector:
    """Weights drawn with a fixed seed; logits are spread over the images as a trained detector's are."""
    torch.manual_seed(0)
    base, settings = KINDS[kind]
    exp = base()
    for name, value in settings.items():
        setattr(exp, name, value)
    model = exp.get_model().eval()
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.normal_(module.weight, std=1.5 / module.weight[0].numel() ** 0.5)
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.8, 1.2)
            nn.init.uniform_(module.bias, -0.2, 0.2)
            module.running_mean.uniform_(-0.2, 0.2)
            module.running_var.uniform_(0.8, 1.2)
    batch = exp.get_collate()([exp.get_eval_transform()(image) for image in images])
    with torch.no_grad():
        predictions, _ = model(exp.get_preprocessor()(batch.images, batch.image_sizes))
    for part, logits, spread, bias in (
        ("cls_pred", predictions.cls_logits, 1.5, 0.0),
        ("obj_pred", predictions.quality_logits, 1.0, 0.0),
        ("reg_pred", predictions.box_deltas, 0.4, 0.5),  # large boxes overlap
    ):
        for name, module in model.head.named_modules():
            name = name.replace("quality_pred", "obj_pred").replace("box_pred", "reg_pred")
            if part in name and isinstance(module, nn.Conv2d):
                module.weight.data *= spread / logits.std()
                nn.init.constant_(module.bias, bias)
    names = tuple(f"category {label}" for label in range(exp.num_classes))
    return LoadedDetector(model, exp, names, "cpu")


def at_size(detector: LoadedDetector, size: tuple[int, int]) -> LoadedDetector:
    """The same detector with another test size."""
    exp = copy.copy(detector.exp)
    exp.test_size = size
    return LoadedDetector(detector.model, exp, detector.names, detector.device)
