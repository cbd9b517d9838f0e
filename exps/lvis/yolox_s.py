"""YOLOX-S as it is on LVIS v1: SimOTA, objectness, sigmoid loss (paper, Table 8)."""

from yolox_lt.exp import LVISExp


class Exp(LVISExp):
    def __init__(self):
        super().__init__()
        self.depth, self.width = 0.33, 0.50
