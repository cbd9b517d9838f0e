"""YOLOX-S* on LVIS v1 with focal loss (paper, Table 8)."""

from yolox_lt.exp import LVISStarExp


class Exp(LVISStarExp):
    def __init__(self):
        super().__init__()
        self.depth, self.width = 0.33, 0.50
        self.cls_loss = "focal"
