"""YOLOX-X on COCO, as official YOLOX."""

from yolox_lt.exp import Exp as YOLOXExp


class Exp(YOLOXExp):
    def __init__(self):
        super().__init__()
        self.depth, self.width = 1.33, 1.25
