"""YOLOX-Nano on COCO, as official YOLOX."""

from yolox_lt.exp import Exp as YOLOXExp


class Exp(YOLOXExp):
    def __init__(self):
        super().__init__()
        self.depth, self.width = 0.33, 0.25
        self.depthwise = True
        self.input_size = self.test_size = (416, 416)
        self.random_size = (10, 20)
        self.mosaic_scale = (0.5, 1.5)
        self.enable_mixup = False
        self.mosaic_prob = 0.5
